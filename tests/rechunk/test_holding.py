"""Holding text back until a piece of it is whole, shown with a cut that ends a piece at each full stop."""

from __future__ import annotations

from collections.abc import Sequence

from app.events import TEXT, Delta, Event, Logprobs, Reasoning, ToolCall
from app.rechunk._holding import LIMIT, Holding

CALL = ToolCall(0, "id", "f", "{}")


def stop(text: str, start: int, at: int) -> int:
    """Find the end of a piece: after a full stop."""
    return text.find(".", at - 1) + 1


def later(limit: int = LIMIT) -> Holding:
    """Return one whose first text has left."""
    holding = Holding(stop, None, limit=limit)
    holding.feed([Delta("first."), CALL])
    return holding


def texts(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, TEXT)]


def test_a_piece_leaves_when_it_is_whole() -> None:
    """Text waits for the end of its piece; what follows that end waits for the next one."""
    holding = later()
    assert texts(holding.feed([Delta("ab")])) == []
    assert holding.held
    assert texts(holding.feed([Delta("c.d.e")])) == ["abc.", "d."]
    assert holding.held
    assert texts(holding.feed([Delta(".")])) == ["e."]
    assert not holding.held


def test_the_first_text() -> None:
    """The first text of each kind leaves at once, and only that."""
    holding = Holding(stop, None)
    assert holding.feed([Reasoning("a")]) == [Reasoning("a")]
    assert holding.feed([Delta("b")]) == [Delta("b")]
    assert holding.feed([Delta("c")]) == []
    assert holding.feed([Reasoning("d")]) == [Delta("c")]
    assert holding.flush() == [Reasoning("d")]


def test_the_first_text_moves_no_cut() -> None:
    """The piece that the first text has begun ends where it would have ended."""
    holding = Holding(stop, None)
    assert texts([*holding.feed([Delta("ab")]), *holding.feed([Delta("c.d")]), *holding.flush()]) == ["ab", "c.", "d"]


def test_a_flush_moves_no_cut() -> None:
    """What was flushed has left; the piece ends where it would have ended without the flush."""
    holding = later()
    holding.feed([Delta("ab")])
    assert holding.flush() == [Delta("ab")]
    assert (holding.held, [*holding.flush()]) == (False, [])
    assert texts(holding.feed([Delta("c.d")])) == ["c."]


def test_a_first_text_that_is_not_settled() -> None:
    """Only the settled part leaves at once, and the rest as soon as its last cluster is whole."""
    holding = Holding(stop, None, settled=lambda text: len(text) - 1)
    assert texts(holding.feed([Delta("e")])) == []
    assert holding.held
    assert texts(holding.feed([Delta("\u0301")])) == []
    assert texts(holding.feed([Delta("x")])) == ["e\u0301"]
    assert texts(holding.feed([Delta("y.")])) == ["xy."]


def test_what_is_no_text_passes() -> None:
    """A call comes after the text that was before it, and ends its piece. Log probabilities overtake the text."""
    holding = later()
    beside = Logprobs([{"token": "a"}])
    assert holding.feed([Delta("a"), beside]) == [beside]
    assert holding.feed([CALL]) == [Delta("a"), CALL]
    assert holding.feed([Delta("")]) == []
    assert not holding.held


def test_the_limit() -> None:
    """A piece that is longer is cut at the last cluster boundary before the limit; a longer cluster is cut itself."""
    holding = later(limit=4)
    assert texts([*holding.feed([Delta("abcdef.")]), *holding.flush()]) == ["abcd", "ef."]
    assert texts([*holding.feed([Delta("abce\u0301.")]), *holding.flush()]) == ["abc", "e\u0301."]
    assert texts([*holding.feed([Delta("e" + "\u0301" * 5)]), *holding.flush()]) == ["e" + "\u0301" * 3, "\u0301" * 2]


def test_a_flush_before_a_cut_at_the_limit() -> None:
    """What was flushed does not leave again when the cut turns out to be before its end."""
    holding = later(limit=4)
    holding.feed([Delta("abce")])
    assert holding.flush() == [Delta("abce")]
    assert texts([*holding.feed([Delta("\u0301x.")]), *holding.flush()]) == ["\u0301x."]


def test_each_position_is_judged_once() -> None:
    """A cut is asked about each position of an endless line once, and never sees more than is held and added."""
    judged: list[int] = []

    def never(text: str, start: int, at: int) -> int:
        assert len(text) <= LIMIT + 4
        judged.append(len(text) - at)
        return 0

    rechunker = Holding(never, None)
    for _ in range(50_000):
        rechunker.feed([Delta("abcd")])
    assert sum(judged) <= 200_000 * 1.1
