"""Objects in pieces, put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.wire.joined import Joined
from tests.growth import LINEAR, growth

THINKING = {"type": "thinking", "signature": ""}
CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "nothing": ([], {}),
    "texts": ([{"text": "x"}, {"text": "x"}, {"a": {"data": "y"}}], {"text": "xx", "a": {"data": "y"}}),
    "other texts": (
        [
            {"a": {"type": "t", "id": "i"}},
            {"a": {"type": "t", "id": "", "t": "x"}},
            {"a": {"t": "y"}},
            {"a": {"t": "y"}},
        ],
        {"a": {"type": "t", "id": "i", "t": "y"}},
    ),
    "a signature in pieces": ([{"signature": "a"}, {"signature": "b"}, {"signature": "b"}], {"signature": "abb"}),
    "a signature that comes again": ([{"signature": "a"}, {"signature": "a"}], {"signature": "a"}),
    "numbers": ([{"a": 1}, {"a": 2}, {"a": None}], {"a": 2}),
    "scalars in lists": ([{"a": [1, "x"]}, {"a": [1]}], {"a": [1, "x", 1]}),
    "another type": ([{"a": "x"}, {"a": [1]}, {"b": 1}, {"b": "x"}], {"a": [1], "b": "x"}),
    "by index": (
        [
            {"d": [{"index": 0, "text": "a"}, {"index": 1, "text": "x"}]},
            {"d": [{"index": 1, "text": "y"}]},
            {"d": [{"index": 0, "text": "b", "signature": "s"}]},
        ],
        {"d": [{"index": 0, "text": "ab", "signature": "s"}, {"index": 1, "text": "xy"}]},
    ),
    "an index for each type": (
        [
            {"d": [{"index": 0, "type": "reasoning.text", "text": "a"}]},
            {"d": [{"index": 0, "type": "reasoning.encrypted", "data": "x"}]},
        ],
        {
            "d": [
                {"index": 0, "type": "reasoning.text", "text": "a"},
                {"index": 0, "type": "reasoning.encrypted", "data": "x"},
            ]
        },
    ),
    "an index for each id": (
        [{"d": [{"index": 0, "id": "a", "data": "x"}]}, {"d": [{"index": 0, "id": "b", "data": "y"}]}],
        {"d": [{"index": 0, "id": "a", "data": "x"}, {"index": 0, "id": "b", "data": "y"}]},
    ),
    "without an index": ([{"d": [{"a": "x"}]}, {"d": [{"a": "x"}]}], {"d": [{"a": "x"}, {"a": "x"}]}),
    "thinking blocks": (
        [
            {"b": [THINKING | {"thinking": "a"}]},
            {"b": [THINKING | {"thinking": "b"}]},
            {"b": [THINKING | {"thinking": "", "signature": "s"}]},
            {"b": [THINKING | {"thinking": "c"}]},
            {"b": [{"type": "redacted_thinking", "data": "x"}]},
        ],
        {
            "b": [
                {"type": "thinking", "thinking": "ab", "signature": "s"},
                {"type": "thinking", "thinking": "c", "signature": ""},
                {"type": "redacted_thinking", "data": "x"},
            ]
        },
    ),
    "null after a text": ([{"d": {"signature": "s"}}, {"d": {"signature": None}}], {"d": {"signature": "s"}}),
    "ids that are no text": ([{"d": [{"id": [1]}]}, {"d": [{"id": {}}]}], {"d": [{"id": [1]}, {"id": {}}]}),
}


@pytest.mark.parametrize(("pieces", "whole"), CASES.values(), ids=CASES)
def test_joined(pieces: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    """Pieces make the object that an upstream sends which does not stream, and stay as they were."""
    before = repr(pieces)
    joined = Joined()
    for piece in pieces:
        joined.add(piece)
    assert joined.value == whole
    assert bool(joined) == bool(whole)
    assert repr(pieces) == before


@pytest.mark.parametrize("item", [{"index": 0, "text": "x" * 10}, {"text": "x" * 10}, {"id": "a", "text": "x"}])
def test_many_pieces(item: dict[str, Any]) -> None:
    """The time that it takes grows with the pieces, and not with their square."""

    def joining(pieces: int) -> Callable[[], object]:
        def join() -> None:
            joined = Joined()
            for _ in range(pieces):
                joined.add({"d": [item]})
            assert joined.value["d"]

        return join

    assert growth(joining, 8_000) < LINEAR
