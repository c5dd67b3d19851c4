"""Traces and metrics over OTLP, to the collector that the standard `OTEL_` variables name. Imported only if asked for.

There is one span per stream, and the metrics are those that Prometheus reads. No prompt and no answer is sent:
attributes are names, counts, times and codes. Only daemon threads wait for the collector, so it can hold up neither the
loop nor the end of the process.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from uuid import uuid4

from structlog.typing import FilteringBoundLogger

from app import __version__
from app.events import Done, Failure
from app.hub import Observer, Outcome
from app.meter import Meter
from app.request import StreamRequest
from app.telemetry.instruments import InstrumentReading
from app.telemetry.otlp_log import hush

try:
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    from app.telemetry.otlp_metrics import GEN_AI, Attributes, MetricSender, in_daemon
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"CHAT_SSE_OTLP needs packages that are not installed ({error.name}): pip install '.[otlp]'.",
        name=error.name,
    ) from None

# How long the end of the service may wait for the collector, in seconds.
_LAST_EXPORT = 5.0
# Strings that the upstream chose are cut to this length.
_LONGEST = 128


class Exporter(Observer):
    """Makes a span of each of the hub's streams, and sends the metrics that `measure` is given."""

    def __init__(self, meter: Meter, resource: Resource) -> None:
        self._meter = meter
        self._resource = resource
        self._metrics: MetricSender | None = None
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._tracer: Tracer = self._provider.get_tracer("chat-sse", __version__)
        self._traces = OTLPSpanExporter() if _wanted("TRACES") else None
        if self._traces is not None:
            self._provider.add_span_processor(BatchSpanProcessor(self._traces))
        self._propagator = TraceContextTextMapPropagator()
        self._spans: dict[str, Span] = {}

    def opened(self, stream_id: str, request: StreamRequest) -> str:
        """Begin the stream's span, below the caller's if it sent one, and return the traceparent of it."""
        if self._traces is None:
            return ""  # the upstream joins the caller's trace, and not a span that is never sent
        model = self._meter.model(request.model)
        span = self._spans[stream_id] = self._tracer.start_span(
            f"chat {model}",
            context=self._propagator.extract({"traceparent": request.traceparent}, Context()),
            kind=SpanKind.CLIENT,
            attributes={
                **GEN_AI,
                "gen_ai.request.model": model,
                "gen_ai.request.stream": True,
                "chat_sse.stream_id": stream_id,
            },
        )
        context = span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    async def ended(self, outcome: Outcome, log: FilteringBoundLogger) -> None:
        """End the stream's span, with all that is known of the stream."""
        span = self._spans.pop(outcome.stream_id, None)
        if span is None:
            return
        if span.is_recording():
            span.set_attributes(_facts(outcome))
            if isinstance(outcome.terminal, Failure):
                span.set_status(Status(StatusCode.ERROR, outcome.terminal.code))
        span.end()

    def left(self, stream_id: str) -> None:
        """End the part of the stream that was here. The process that goes on with it makes a span of its own."""
        span = self._spans.pop(stream_id, None)
        if span is not None:
            span.set_attribute("chat_sse.left", value=True)
            span.end()

    def measure(self, read: Callable[[], Sequence[InstrumentReading]]) -> None:
        """From now on send what *read* returns, every OTEL_METRIC_EXPORT_INTERVAL milliseconds and at the end."""
        if _wanted("METRICS"):
            self._metrics = MetricSender(self._resource, read)

    async def close(self) -> bool:
        """Send what is left, for a bounded time. Return False if an export still hangs after that."""
        ending: dict[asyncio.Task[None], OTLPSpanExporter | MetricSender] = {}
        if self._traces is not None:
            ending[asyncio.create_task(in_daemon(self._provider.shutdown))] = self._traces
        if self._metrics is not None:
            ending[asyncio.create_task(self._metrics.finish())] = self._metrics
        if not ending:
            return True
        _, hanging = await asyncio.wait(ending, timeout=_LAST_EXPORT)
        for task in hanging:
            task.cancel()
            ending[task].shutdown()  # it tries nothing again, and its thread is a daemon
        return not hanging


@asynccontextmanager
async def exporting(meter: Meter, log: FilteringBoundLogger) -> AsyncIterator[Exporter]:
    """Export while the block runs. Leaving it takes at most five seconds, whatever the collector does.

    Raises ValueError, with a sentence that names a variable and not its value, if the environment is wrong.
    """
    hush(log)
    _check_endpoints()
    try:
        exporter = Exporter(meter, _resource())
    except ValueError as error:
        named = re.search("OTEL_[A-Z_]+", str(error))
        raise ValueError(f"{named[0] if named else 'One of the OTEL_ variables'} is not right.") from None
    try:
        yield exporter
    finally:
        if not await exporter.close():
            log.warning("otlp.unfinished", seconds=_LAST_EXPORT)


def _resource() -> Resource:
    """Return the service's name, version and instance, unless the environment does.

    The instance id keeps the sums of several processes apart.
    """
    ours = Resource({"service.name": "chat-sse", "service.version": __version__, "service.instance.id": str(uuid4())})
    return Resource.create().merge(ours).merge(OTELResourceDetector().detect())


def _check_endpoints() -> None:
    for signal in ("", "TRACES_", "METRICS_"):
        name = f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT"
        try:
            parts = urlsplit(os.environ.get(name, "").strip() or "http://localhost")
            right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # of the port, or of an IPv6 address
            right = False
        if not right:
            raise ValueError(f"{name} is not right: it takes the form http://HOST:PORT.")


def _wanted(signal: str) -> bool:
    """Whether the environment leaves a signal on: `TRACES` or `METRICS`."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return os.environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() != "none"


def _facts(outcome: Outcome) -> Attributes:
    """Return the attributes of an ended stream's span."""
    terminal = outcome.terminal
    attempt = outcome.attempt
    first_token = outcome.first_token_ms
    facts: dict[str, str | bool | int | float | Sequence[str] | None] = {
        "gen_ai.usage.input_tokens": outcome.input_tokens,
        "gen_ai.usage.output_tokens": outcome.output_tokens,
        "gen_ai.response.model": _bounded(attempt.model),
        "gen_ai.response.time_to_first_chunk": None if first_token is None else first_token / 1000,
        "gen_ai.response.finish_reasons": [outcome.reason] if isinstance(terminal, Done) else None,
        "error.type": outcome.reason if isinstance(terminal, Failure) else None,
        "http.response.status_code": attempt.status,
        "chat_sse.usage.estimated": terminal.usage is not None and terminal.usage.estimated,
        "chat_sse.upstream": attempt.upstream or None,
        "chat_sse.upstream.attempts": outcome.requests,
        "chat_sse.upstream.fallback": attempt.fallback,
        "chat_sse.upstream.request_id": _bounded(attempt.request_id),
        "chat_sse.subscribers": outcome.readers,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _bounded(text: str | None) -> str | None:
    """Cut what the upstream chose, and make it encodable: one lone surrogate would lose the whole batch of spans."""
    return text[:_LONGEST].encode(errors="replace").decode() if text else None
