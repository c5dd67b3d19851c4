"""How the times of the journal in Redis stand to one another: a change of one must not break what another is for."""

from __future__ import annotations

from app.journal.redis.timing import USUAL
from app.relay import Limits


def test_a_living_process_keeps_its_lease() -> None:
    """A lease outlives a renewal that took as long as one may and failed, and the renewal after it."""
    assert USUAL.lease > 2 * USUAL.renewal + USUAL.pipeline
    assert USUAL.renewal_retry < USUAL.renewal


def test_all_processes_notice_that_redis_is_back() -> None:
    """Before what Redis does not have counts as unknown, each process has had its longest pause and a renewal."""
    assert USUAL.settling > USUAL.last_pause + USUAL.renewal + USUAL.connect
    assert USUAL.first_pause < USUAL.last_pause


def test_a_living_stream_keeps_its_slot() -> None:
    """Slots are renewed with the lease, and outlive the lease of a process that died."""
    assert USUAL.slot > USUAL.lease


def test_a_label_outlives_its_stream() -> None:
    """A label that its process no longer deletes is there for longer than any stream is live, as the limits are."""
    assert USUAL.label > Limits().total


def test_a_claimed_stream_is_looked_for_more_than_once() -> None:
    """A request that repeats an idempotency key looks often, before it takes the key over."""
    assert USUAL.appearing > 10 * USUAL.appearing_pause
