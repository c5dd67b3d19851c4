from __future__ import annotations

from app.events import Delta, Event, Reasoning, ToolCall
from app.rechunk import create


def test_none_passes_the_batch_itself() -> None:
    """`none` returns the very sequence it was given; so does `auto` for a single event."""
    batch: list[Event] = [Delta("a"), Delta("b")]
    assert create("none").feed(batch) is batch
    assert create("auto").feed(single := batch[:1]) is single


def test_auto_joins_neighbours() -> None:
    """`auto` joins neighbouring texts of one kind within a batch, and nothing else."""
    call = ToolCall(0, "", "", "{")
    batch: list[Event] = [Delta("a"), Delta("b"), Reasoning("c"), call, call, Delta("d"), Delta("e")]
    assert create("auto").feed(batch) == [Delta("ab"), Reasoning("c"), call, call, Delta("de")]
