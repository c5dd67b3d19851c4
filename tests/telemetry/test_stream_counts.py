"""What the meter counts of a stream."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.typing import FilteringBoundLogger

from app.events import Done
from app.hub import Outcome
from app.meter import OTHER, Meter
from app.request import StreamRequest
from app.telemetry.stream_counts import StreamCounts
from app.upstream import Attempt

pytestmark = pytest.mark.anyio


def outcome(*answers: tuple[str, str], model: str = "m", fallback: bool = False) -> Outcome:
    """Return the outcome of a stream that the upstreams of *answers* were asked for, in order."""
    facts: dict[str, Any] = {"deltas": 2, "output_bytes": 8, "first_token_ms": 500, "readers": 1, "readers_peak": 1}
    return Outcome(
        stream_id="s",
        owner="",
        account="",
        model=model,
        terminal=Done("stop"),
        duration_ms=2000,
        input_tokens=3,
        output_tokens=5,
        attempt=Attempt(answers[-1][0], fallback=fallback),
        answers=answers,
        requests=len(answers),
        causes=(),
        costs=(),
        **facts,
    )


async def test_a_stream(log: FilteringBoundLogger) -> None:
    """A stream is counted when it is opened, and again when it ends: its end, its answer, its tokens and its time."""
    meter = Meter(["m"])
    counts = StreamCounts(meter)
    assert counts.opened("s", StreamRequest("m", ())) == ""
    assert (meter.opened, meter.ended) == (1, {})
    await counts.ended(outcome(("a", "200")), log)
    assert meter.ended == {("m", "a", "stop"): 1}
    assert meter.answers == {("a", "200"): 1}
    assert (meter.input_tokens, meter.output_tokens) == ({"m": 3}, {"m": 5})
    assert (meter.duration.count, meter.duration.total) == (1, 2.0)
    assert not meter.retries
    assert not meter.fallbacks


async def test_retries_and_fallbacks(log: FilteringBoundLogger) -> None:
    """A second request to the same upstream is a retry; a stream that another upstream answered is a fallback."""
    meter = Meter(["m"])
    answers = (("a", "503"), ("a", "503"), ("b", "500"), ("b", "200"))
    await StreamCounts(meter).ended(outcome(*answers, fallback=True), log)
    assert meter.retries == {"a": 1, "b": 1}
    assert meter.fallbacks == {"b": 1}
    assert meter.answers == {("a", "503"): 2, ("b", "500"): 1, ("b", "200"): 1}


async def test_an_unknown_model(log: FilteringBoundLogger) -> None:
    """A model that the settings do not name is counted as `other`."""
    meter = Meter(["m"])
    await StreamCounts(meter).ended(outcome(("a", "200"), model="strange"), log)
    assert meter.ended == {(OTHER, "a", "stop"): 1}
    assert meter.output_tokens == {OTHER: 5}
