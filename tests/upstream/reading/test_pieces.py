"""Parts that come in pieces (row C36)."""

from __future__ import annotations

from typing import Any

import pytest

from app.upstream.reading.pieces import Part, says_something


def thinking(*items: Any, **more: Any) -> dict[str, Any]:
    return {"type": "thinking", "thinking": [*items], **more}


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **more}


REFERENCE = {"type": "reference", "reference_ids": [1]}


def join(*pieces: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts that *pieces* make."""
    parts: list[Part] = []
    for piece in pieces:
        if not parts or not parts[-1].add(piece):
            parts.append(Part(piece))
    return [part.value for part in parts]


@pytest.mark.parametrize(
    ("pieces", "parts"),
    [
        ([thinking(text("a")), thinking(text("b"))], [thinking(text("ab"))]),
        (
            [thinking(text("a"), closed=False), thinking(text("b"), closed=True)],
            [thinking(text("ab"), closed=True)],
        ),
        ([thinking(text("a")), thinking(REFERENCE), thinking(text("b"))], [thinking(text("a"), REFERENCE, text("b"))]),
        (
            [thinking(text("a", signature="")), thinking(text("", signature="s")), thinking(text("b"))],
            [thinking(text("a", signature="s"), text("b"))],
        ),
        (
            [thinking(text("a", signature="s")), thinking(text("b", signature="t"))],
            [thinking(text("a", signature="s"), text("b", signature="t"))],
        ),
        ([thinking("a"), thinking("b")], [thinking("a", "b")]),
        (
            [{"type": "thinking", "thinking": "a"}, {"type": "thinking", "signature": "s"}],
            [{"type": "thinking", "thinking": "a", "signature": "s"}],
        ),
        (
            [{"type": "thinking", "thinking": "a", "signature": "s"}, {"type": "thinking", "thinking": "b"}],
            [{"type": "thinking", "thinking": "a", "signature": "s"}, {"type": "thinking", "thinking": "b"}],
        ),
        ([text("a", lang="en"), text("b", lang="en")], [text("ab", lang="en")]),
        ([text("a", index=0), text("b", index=1)], [text("a", index=0), text("b", index=1)]),
        ([text("a", id="x"), text("b")], [text("ab", id="x")]),
        ([text("a"), thinking("b")], [text("a"), thinking("b")]),
        ([text("a"), {"type": "text", "text": ["b"]}], [text("a"), {"type": "text", "text": ["b"]}]),
        ([text("a"), {"type": "text", "text": 3}], [text("a"), {"type": "text", "text": 3}]),
        ([{"type": "redacted", "data": "x"}] * 2, [{"type": "redacted", "data": "x"}] * 2),
        ([{"type": "text", "text": {"value": "a"}}] * 2, [{"type": "text", "text": {"value": "a"}}] * 2),
    ],
)
def test_pieces(pieces: list[dict[str, Any]], parts: list[dict[str, Any]]) -> None:
    """Pieces of one part are joined, and nothing that is in them is lost."""
    assert join(*pieces) == parts


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (thinking(text("a")), True),
        (thinking(text("", signature="s")), True),
        ({"type": "redacted_thinking", "data": "x"}, True),
        (thinking(text("", signature="")), False),
        (thinking(closed=True, id="x"), False),
        ({"type": "thinking", "thinking": None}, False),
    ],
)
def test_says_something(value: object, says: bool) -> None:
    """Names and switches say nothing by themselves."""
    assert says_something(value) is says
