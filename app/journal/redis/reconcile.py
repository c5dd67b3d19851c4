"""What to make of a log in Redis that may not have what its producer believes. Pure: no I/O, no clock.

An entry may have arrived though its acknowledgement did not. Redis may have been restarted, and have less than it had
acknowledged. And another process may have ended the stream or adopted it, because it took this one for dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.events import Event
from app.journal.encoding import encode
from app.journal.redis.entries import Tail


@dataclass(frozen=True, slots=True)
class Ours:
    """What the producer knows of its log.

    *acked* is the number of the last record that Redis has acknowledged. *pending* are the records after it, sent or
    not. *given_up* says that the producer has ended the log for its own readers, without Redis. The producer has this
    *epoch*; what it adopted begins with record number *claimed*.
    """

    acked: int
    pending: Sequence[Event]
    given_up: bool = False
    epoch: int = 0
    claimed: int = 0


@dataclass(frozen=True, slots=True)
class Agreed:
    """Redis has the records up to *acked*, and none after it."""

    acked: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """Redis has *events* too, which are the first of the pending ones."""

    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Behind:
    """Redis has lost the records after number *last*; if that is None, it has lost the log."""

    last: int | None


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Another process has written to the log: *events*, with the end that it wrote as the last, or what there is."""

    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Adopted:
    """Another process has adopted the stream, and goes on with it."""


Verdict = Agreed | Arrived | Behind | TakenOver | Adopted


def reconcile(ours: Ours, theirs: Tail | None) -> Verdict:
    """Return how *ours* compares with *theirs*, the log's tail in Redis after `ours.acked`, or None if it is gone."""
    if theirs is None:
        return Behind(None)
    if theirs.epoch > ours.epoch:
        return Adopted()
    if theirs.epoch < ours.epoch:  # Redis has lost our claim
        if theirs.ending is None and theirs.last < ours.claimed:
            return Behind(theirs.last)
        return TakenOver([] if theirs.ending is None else [theirs.ending])
    if theirs.last > ours.acked:
        if theirs.newer and _same(theirs.newer, ours.pending[: len(theirs.newer)]):
            return Arrived(theirs.newer)
        if theirs.ending is not None or not ours.given_up:
            return TakenOver(theirs.newer)
        return Agreed(theirs.last)  # the records were under way when the producer gave up
    if theirs.ending is not None:  # of a log that has lost records since
        return TakenOver([theirs.ending])
    if theirs.last < ours.acked:
        return Behind(theirs.last)
    return Agreed(ours.acked)


def _same(theirs: Sequence[Event], ours: Sequence[Event]) -> bool:
    """Whether both are the same in Redis: a tuple comes back as a list."""
    try:
        return encode(theirs) == encode(ours)
    except TypeError:  # what cannot be encoded cannot have been written
        return False
