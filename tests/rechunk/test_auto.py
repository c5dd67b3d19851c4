"""`auto`, which joins what arrived together."""

from __future__ import annotations

from app.events import Delta, Event, Reasoning, ToolCall
from app.rechunk import create, merge_after


def test_neighbours_are_joined() -> None:
    """Neighbouring texts of one kind within a batch leave as one, and nothing else does."""
    call = ToolCall(0, "", "", "{")
    batch: list[Event] = [Delta("a"), Delta("b"), Reasoning("c"), call, call, Delta("d"), Delta("e")]
    assert create("auto").feed(batch) == [Delta("ab"), Reasoning("c"), call, call, Delta("de")]


def test_nothing_waits() -> None:
    """What has left is not joined to what comes next."""
    auto = create("auto")
    assert [*auto.feed([Delta("a")]), *auto.feed([Delta("b")])] == [Delta("a"), Delta("b")]
    assert not auto.held


def test_merged_for_a_reader_that_is_behind() -> None:
    """Two texts that wait for a reader may be joined for it."""
    assert merge_after("auto") == 2
