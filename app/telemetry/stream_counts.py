"""Streams, as the meter counts them."""

from __future__ import annotations

from itertools import pairwise

from structlog.typing import FilteringBoundLogger

from app.hub import Observer, Outcome
from app.meter import Meter
from app.request import StreamRequest


class StreamCounts(Observer):
    """Counts the streams that are opened and that end."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def opened(self, stream_id: str, request: StreamRequest) -> str:
        self._meter.opened += 1
        return ""

    def adopted(self, stream_id: str, request: StreamRequest) -> str:
        self._meter.adopted += 1
        return ""

    async def ended(self, outcome: Outcome, log: FilteringBoundLogger) -> None:
        meter = self._meter
        model = meter.model(outcome.model)
        upstream = outcome.attempt.upstream
        meter.ended[model, upstream, outcome.reason] += 1
        for answer in outcome.answers:
            meter.answers[answer] += 1
        for (before, _), (again, _) in pairwise(outcome.answers):
            if again == before:
                meter.retries[again] += 1
        if outcome.attempt.fallback:
            meter.fallbacks[upstream] += 1
        meter.duration.observe(outcome.duration_ms / 1000)
        meter.input_tokens[model] += outcome.input_tokens
        meter.output_tokens[model] += outcome.output_tokens
