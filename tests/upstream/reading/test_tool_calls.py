"""Which call a piece of a chat's tool call belongs to."""

from __future__ import annotations

import pytest

from app.upstream.reading.tool_calls import ToolCalls

Piece = tuple[int | None, str, str]
"""The upstream's index, the id and the name."""


@pytest.mark.parametrize(
    ("pieces", "places"),
    [
        (
            [(0, "a", "f"), (0, "", ""), (1, "b", "g"), (0, "", "")],
            [(0, "a", "f"), (0, "", ""), (1, "b", "g"), (0, "", "")],
        ),
        ([(7, "a", "f"), (3, "b", "g")], [(0, "a", "f"), (1, "b", "g")]),
        ([(0, "a", "f"), (0, "b", "g"), (0, "a", "")], [(0, "a", "f"), (1, "b", "g"), (0, "", "")]),
        ([(0, "a", "f"), (0, "a", "f")], [(0, "a", "f"), (0, "", "")]),
        ([(0, "", "f"), (0, "a", "")], [(0, "", "f"), (0, "a", "")]),
        ([(None, "", "f"), (None, "", ""), (None, "", "g")], [(0, "", "f"), (0, "", ""), (1, "", "g")]),
    ],
    ids=["by-index", "renumbered", "one-index", "repeated", "late-id", "no-index"],
)
def test_place(pieces: list[Piece], places: list[tuple[int, str, str]]) -> None:
    """Our index is dense, and an id or a name comes once (rows X1–X5)."""
    calls = ToolCalls()
    assert [calls.place(*piece) for piece in pieces] == places
