"""`none`, which leaves the upstream's deltas as they are."""

from __future__ import annotations

from app.events import Delta, Event
from app.rechunk import create, merge_after


def test_the_batch_itself() -> None:
    """It returns the very sequence that it was given, and holds nothing."""
    none = create("none")
    batch: list[Event] = [Delta("a"), Delta("b")]
    assert none.feed(batch) is batch
    assert not none.held
    assert none.flush() == ()


def test_never_merged() -> None:
    """A reader that is behind gets one event for each delta, too."""
    assert merge_after("none") is None
