"""Which call a piece of a chat's tool call belongs to."""

from __future__ import annotations

from itertools import cycle, islice, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.upstream.reading.tool_calls import ToolCalls, _Arguments, unused

Piece = tuple[int | None, str, str, str]
"""The upstream's index, the id, the name and the arguments."""


def call(calls: list[Piece]) -> list[tuple[str, str, str]]:
    """Return the id, the name and the arguments of each call that the pieces are put together to."""
    placing = ToolCalls()
    found: list[list[str]] = []
    for index, id, name, arguments in calls:
        placing.begin_chunk()
        place = placing.place(index, id, name, arguments)
        if place is None:
            continue
        ours, new_id, new_name = place
        assert ours <= len(found), "our indexes are dense"
        if ours == len(found):
            found.append(["", "", ""])
        assert not (new_id and found[ours][0]), "an id is sent once"
        for at, news in enumerate((new_id, new_name, arguments)):
            found[ours][at] += news
    return [(id, name, arguments) for id, name, arguments in found]


A = ("a", "f", '{"x":1}')
B = ("b", "g", "{}")


@pytest.mark.parametrize(
    ("pieces", "calls"),
    [
        ([(0, "a", "f", '{"x"'), (1, "b", "g", "{"), (0, "", "", ":1}"), (1, "", "", "}")], [A, B]),
        ([(7, *A), (3, *B)], [A, B]),
        ([(0, "a", "f", ""), (0, "b", "g", ""), (0, "a", "", A[2]), (0, "b", "", "{}")], [A, B]),
        ([(0, "a", "f", '{"x"'), (0, "a", "f", ":1}")], [A]),
        ([(0, "", "f", '{"x"'), (0, "a", "", ":1}")], [A]),
        ([(None, "", "f", "{}"), (None, "", "", " "), (None, "", "g", "[]")], [("", "f", "{} "), ("", "g", "[]")]),
        # X12: fresh ids
        ([(0, "1", "f", ""), (0, "2", "", '{"x'), (0, "3", "", '":1}')], [("1", "f", A[2])]),
        ([(0, "1", "f", "{"), (0, "2", "f", '"x":1}')], [("1", "f", A[2])]),
        ([(None, "1", "f", ""), (None, "2", "", "{}")], [("1", "f", "{}")]),
        ([(0, "1", "f", "{}"), (0, "2", "", ""), (0, "3", "", " ")], [("1", "f", "{} ")]),
        # X13: names in pieces, repeated, or all of them so far
        ([(0, "a", "mcp__", ""), (0, "", "get_", ""), (0, "a", "it", "{}")], [("a", "mcp__get_it", "{}")]),
        ([(0, "a", "get", ""), (0, "a", "get_it", ""), (0, "a", "get_it", "{}")], [("a", "get_it", "{}")]),
        ([(None, "", "get_", ""), (None, "", "it", "{}")], [("", "get_it", "{}")]),
        # a second call at the index of the first one
        ([(0, *A), (0, *B)], [A, B]),
        ([(0, "a", "f", A[2]), (0, "b", "f", "{}")], [A, ("b", "f", "{}")]),
        ([(0, "a", "f", ""), (0, "b", "f", "{}")], [("a", "f", ""), ("b", "f", "{}")]),
        ([(0, *A), (0, "b", "", "{"), (0, "b", "g", "}")], [A, B]),
        ([(0, "", "f", "{}"), (0, "", "g", "{}")], [("", "f", "{}"), ("", "g", "{}")]),
        # X14: one id on two calls, and a call that comes twice
        ([(0, *A), (1, "a", "g", "{}")], [A, ("a-2", "g", "{}")]),
        ([(None, *A), (None, "a", "g", "{}"), (None, "a", "g", "[]")], [A, ("a-2", "g", "{}"), ("a-3", "g", "[]")]),
        ([(0, *A), (0, *A), (1, *B), (0, *A)], [A, B]),
        # the index on some pieces only
        ([(None, "a", "f", ""), (0, "a", "", A[2])], [A]),
        ([(0, "a", "f", ""), (None, "", "", A[2])], [A]),
        ([(0, "a", "f", ""), (1, "b", "g", ""), (None, "a", "", A[2]), (None, "b", "", "{}")], [A, B]),
        # what JSON's structure is not told by
        ([(0, "a", "f", '{"x":"}\\'), (0, "b", "f", '"}"}')], [("a", "f", '{"x":"}\\"}"}')]),
        (
            [(0, "a", "f", '{"x":"\\\\'), (0, "", "", '"}'), (0, "b", "f", "{}")],
            [("a", "f", '{"x":"\\\\"}'), ("b", "f", "{}")],
        ),
    ],
)
def test_place(pieces: list[Piece], calls: list[tuple[str, str, str]]) -> None:
    """Pieces are put together to the calls that they are of (rows X1–X6, X12–X14)."""
    assert call(pieces) == calls


def test_calls_of_one_chunk() -> None:
    """Two calls without index, id and arguments are two if they come in one chunk."""
    calls = ToolCalls()
    calls.begin_chunk()
    assert [calls.place(None, "", name, "") for name in ("f", "g")] == [(0, "", "f"), (1, "", "g")]


def test_unused_id() -> None:
    """An id that was used gets the first number that makes it another one."""
    assert [unused("a", used) for used in ((), {"a"}, {"a", "a-2"})] == ["a", "a-2", "a-3"]


class _Long(_Arguments):
    """Arguments of which each piece is taken for a long one."""

    _follow = _Arguments._follow_long


TOKENS = ['"', "\\\\", '\\"', "\\n", "{", "}", "[", "]", "a", ",", "\ud800", "é"]


@pytest.mark.parametrize("text", [r'{"a":"x\"\"y"}', r'{"a":"\\\"}"}', r'{"\\":["\"\\",{}]}'])
def test_escapes_at_any_split(text: str) -> None:
    """Arguments are whole with their last character, and not before, wherever they were split."""
    for sizes in product((1, 2, 3), repeat=4):
        arguments = _Arguments()
        at = 0
        for size in islice(cycle(sizes), len(text)):
            arguments.add(text[at : at + size])
            at += size
            assert arguments.whole == (at >= len(text)), (sizes, text[:at])


@given(st.lists(st.sampled_from(TOKENS)).map("".join), st.lists(st.integers(1, 6), min_size=1))
def test_long_pieces(text: str, sizes: list[int]) -> None:
    """A long piece, which is looked at as a whole, tells the same as it does mark by mark."""
    short = _Arguments()
    long = _Long()
    at = 0
    for size in sizes * len(text):
        short.add(text[at : at + size])
        long.add(text[at : at + size])
        for name in ("whole", "begun", "_depth", "_in_string", "_escaped"):
            assert getattr(long, name) == getattr(short, name), name
        at += size


def test_calls_that_have_come() -> None:
    """A whole call is known by its id, and, whatever its id is, by its name and its arguments."""
    placing = ToolCalls()
    assert (placing.number, placing.has(*A)) == (0, False)
    placing.place(0, *A)
    assert placing.number == 1
    assert [placing.has(*whole) for whole in (A, ("a", "", ""), ("x", "f", '{"x":1}'))] == [True] * 3
    assert [placing.has(*whole) for whole in (B, ("", "g", '{"x":1}'), ("", "f", '{"x":2}'))] == [False] * 3
