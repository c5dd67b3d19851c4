"""One live stream: its producer, who reads it, and what is told of it when it has ended."""

from __future__ import annotations

import asyncio
import math
import re
from itertools import pairwise
from typing import Any

from structlog.typing import FilteringBoundLogger

from app.events import Done, Failure
from app.meter import Meter
from app.relay import Relay
from app.request import Principal, StreamRequest
from app.usage import Usage, estimate_tokens

_CANCELLED = Done("cancelled")
_POLICY = re.compile(r"cancel|continue|grace:(\d{1,6}(?:\.\d{1,3})?)", re.ASCII)


def parse_policy(text: str) -> float:
    """Return how many seconds a stream goes on without a reader: `cancel` 0, `grace:S` S, `continue` infinity.

    Raises ValueError, with a sentence.
    """
    match = _POLICY.fullmatch(text)
    if match is None:
        raise ValueError("is one of: cancel; continue; grace:SECONDS")
    return float(match[1]) if match[1] else 0.0 if text == "cancel" else math.inf


class Stream:
    """One producer of this process, and the count of those who read it."""

    __slots__ = (
        "attached",
        "grace",
        "id",
        "limited",
        "log",
        "model",
        "orphaned",
        "owner",
        "peak",
        "relay",
        "subscribers",
        "task",
    )

    def __init__(
        self, stream_id: str, principal: Principal, request: StreamRequest, relay: Relay, log: FilteringBoundLogger
    ) -> None:
        self.id = stream_id
        self.owner = principal.name
        self.limited = principal.allowance.streams > 0
        self.model = request.model
        self.grace = request.grace
        self.relay = relay
        self.log = log
        self.task: asyncio.Task[None] | None = None
        self.orphaned: asyncio.TimerHandle | None = None
        self.subscribers = 0
        self.attached = 0
        self.peak = 0

    def __repr__(self) -> str:
        return f"<Stream {self.id} {'ended' if self.relay.ended else 'live'}, {self.subscribers} reading>"

    def cancel(self) -> None:
        """End it as its clients' wish, and abort upstream. Harmless once it has ended."""
        self.relay.stop(_CANCELLED)

    def entered(self) -> None:
        """Count a subscriber in."""
        self.subscribers += 1
        self.attached += 1
        self.peak = max(self.peak, self.subscribers)
        self.claim()

    def left(self) -> None:
        """Count a subscriber out; the last one's leaving starts the grace."""
        self.subscribers -= 1
        if not self.subscribers and self.relay.ended is None:
            self.abandon(self.grace)

    def abandon(self, grace: float) -> None:
        """Let it go on for *grace* seconds without a reader."""
        if grace == 0:
            self.cancel()
        elif grace < math.inf:
            self.orphaned = asyncio.get_running_loop().call_later(grace, self._orphan)

    def claim(self) -> None:
        """Forget the grace: there is a reader, or an end."""
        if self.orphaned is not None:
            self.orphaned.cancel()
            self.orphaned = None

    def _orphan(self) -> None:
        self.orphaned = None
        self.log.info("stream.orphaned", grace=self.grace)
        self.cancel()


def log_end(stream: Stream) -> None:
    """Write the canonical line of *stream*: all there is to know of it but its content."""
    relay, trace = stream.relay, stream.relay.trace
    facts: dict[str, Any] = {
        "deltas": relay.deltas,
        "output_bytes": relay.output_bytes,
        "first_token_ms": relay.first_token_ms,
        "duration_ms": relay.duration_ms,
        "upstream": trace.upstream,
        "upstream_fallback": trace.fallback,
        "upstream_answers": [f"{upstream} {answer}" for upstream, answer in trace.answers],
        "upstream_status": trace.status,
        "upstream_attempts": trace.attempts,
        "upstream_request_id": trace.request_id,
        "upstream_model": trace.model,
        "cut_after_finish": trace.cut_after_finish,
        "replaced_bytes": trace.replaced_bytes,
        "subscribers_peak": stream.peak,
        "subscribers_total": stream.attached,
    }
    match relay.ended:
        case Done(finish_reason=reason, usage=usage):
            stream.log.info("stream.finished", reason=reason, **_usage(usage), **facts)
        case Failure(code=code, usage=usage):
            stream.log.warning("stream.failed", reason=code, **_usage(usage), **facts)


def _usage(usage: Usage | None) -> dict[str, Any]:
    if usage is None:
        return {}
    fields = usage.fields
    return {
        "prompt_tokens": fields.get("prompt_tokens"),
        "completion_tokens": fields.get("completion_tokens"),
        "usage_estimated": usage.estimated,
    }


def count_end(stream: Stream, meter: Meter) -> None:
    """Count *stream* where dashboards look."""
    relay, trace = stream.relay, stream.relay.trace
    model = meter.model(stream.model)
    ended = relay.ended
    reason = ended.finish_reason if isinstance(ended, Done) else ended.code if ended is not None else "lost"
    meter.ended[model, trace.upstream, reason] += 1
    meter.answers.update(trace.answers)
    meter.retries.update(again for (before, _), (again, _) in pairwise(trace.answers) if again == before)
    if trace.fallback:
        meter.fallbacks[trace.upstream] += 1
    meter.duration.observe(relay.duration_ms / 1000)
    input_tokens, output_tokens = tokens(stream)
    meter.input_tokens[model] += input_tokens
    meter.output_tokens[model] += output_tokens


def tokens(stream: Stream) -> tuple[int, int]:
    """Return how many tokens *stream* took in and gave out, as far as upstream's word for it can be believed.

    Nought for an answer that has text is not to be believed: what came is estimated then, as the relay does. Of one
    that has none, hidden reasoning may have taken many.
    """
    ended = stream.relay.ended
    usage = None if ended is None else ended.usage
    estimated = estimate_tokens(stream.relay.output_bytes)
    return (usage.input_tokens, usage.output_tokens or estimated) if usage else (0, estimated)
