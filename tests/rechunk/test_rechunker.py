"""What every cut begins with: passing a batch on, and joining neighbours."""

from __future__ import annotations

from app.events import Delta, Event, Logprobs, PlainReasoning, Reasoning
from app.rechunk._rechunker import Merging, Rechunker, merge


def test_defaults() -> None:
    """A rechunker that does nothing of its own holds nothing, needs no timer, and has the upstream read at once."""
    rechunker = Rechunker()
    assert (rechunker.held, rechunker.max_delay, rechunker.pause) == (False, None, None)
    assert rechunker.flush() == ()


def test_a_single_event() -> None:
    """A batch of one event, as most are, is passed on as it is."""
    batch: list[Event] = [Delta("a")]
    assert Merging().feed(batch) is batch


def test_merge() -> None:
    """Texts are joined if nothing stands between them and their kind is the same."""
    beside = Logprobs([{"token": "a"}])
    events: list[Event] = [Delta("a"), Delta("b"), beside, beside, Delta("c"), Reasoning("d"), PlainReasoning("e")]
    assert merge(events) == [Delta("ab"), beside, beside, Delta("c"), Reasoning("d"), PlainReasoning("e")]
