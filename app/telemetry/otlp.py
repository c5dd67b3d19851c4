"""Traces and metrics over OTLP, to the collector that the standard `OTEL_` variables name. Imported only if asked for.

One span per stream, and the same metrics that Prometheus reads. No prompt and no answer: attributes are names, counts,
times and codes. What waits for the collector are daemon threads: neither the loop nor the process's end does.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

from structlog.typing import FilteringBoundLogger

from app import __version__
from app.events import Done, Failure
from app.hub import Stream
from app.hub.stream import tokens
from app.meter import Meter
from app.request import StreamRequest
from app.telemetry.instruments import Reading
from app.telemetry.otlp_log import hush

try:
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    from app.telemetry.otlp_metrics import GEN_AI, Attributes, MetricSender
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"CHAT_SSE_OTLP needs packages that are not installed ({error.name}): pip install '.[otlp]'.",
        name=error.name,
    ) from None

# How long the end of the service may wait for the collector, in seconds.
_LAST_EXPORT = 5.0
# Strings that upstream chose are cut to this length.
_LONGEST = 128


class Exporter:
    """Observes the hub's streams, one span for each, and sends what `measure` was given to read."""

    def __init__(self, meter: Meter, resource: Resource) -> None:
        self._meter = meter
        self._metrics = MetricSender(resource) if _wanted("METRICS") else None
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
            return ""  # upstream joins the caller's trace, and not a span that nobody will see
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

    async def ended(self, stream: Stream) -> None:
        """End the stream's span with what became known of it."""
        span = self._spans.pop(stream.id, None)
        if span is None:
            return
        if span.is_recording():
            span.set_attributes(_facts(stream))
            if isinstance(stream.relay.ended, Failure):
                span.set_status(Status(StatusCode.ERROR, stream.relay.ended.code))
        span.end()

    def measure(self, read: Callable[[], Sequence[Reading]]) -> None:
        """From now on send what *read* returns, every OTEL_METRIC_EXPORT_INTERVAL milliseconds and in the end."""
        if self._metrics is not None:
            self._metrics.start(read)

    async def close(self) -> bool:
        """Send what is left, for a bounded time; return whether all went out or failed, rather than hung."""
        loop = asyncio.get_running_loop()
        ending: dict[asyncio.Future[None], OTLPSpanExporter | MetricSender] = {}
        if self._traces is not None:
            ending[_in_thread(loop, self._provider.shutdown)] = self._traces
        if self._metrics is not None:
            ending[_in_thread(loop, self._metrics.finish())] = self._metrics
        if ending:
            await asyncio.wait(ending, timeout=_LAST_EXPORT)
        hanging = [exporter for done, exporter in ending.items() if not done.done()]
        for exporter in hanging:
            exporter.shutdown()  # it tries nothing again, and its thread is a daemon
        return not hanging


@asynccontextmanager
async def exporting(meter: Meter, log: FilteringBoundLogger) -> AsyncIterator[Exporter]:
    """Export for as long as the block runs. Leaving it takes five seconds at most, whatever the collector does."""
    hush(log)
    exporter = Exporter(meter, _resource())
    try:
        yield exporter
    finally:
        if not await exporter.close():
            log.warning("otlp.unfinished", seconds=_LAST_EXPORT)


def _resource() -> Resource:
    """Who we are, where the environment does not say. The instance keeps apart the sums of several processes."""
    ours = Resource({"service.name": "chat-sse", "service.version": __version__, "service.instance.id": str(uuid4())})
    return Resource.create().merge(ours).merge(OTELResourceDetector().detect())


def _wanted(signal: str) -> bool:
    """Whether the environment leaves a signal on: `TRACES` or `METRICS`."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return os.environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() != "none"


def _in_thread(loop: asyncio.AbstractEventLoop, work: Callable[[], object]) -> asyncio.Future[None]:
    """Do *work* in a daemon thread: the loop's own executor would be waited for at the end."""
    done = loop.create_future()

    def finish() -> None:
        if not done.done():
            done.set_result(None)

    def run() -> None:
        try:
            work()
        finally:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(finish)

    threading.Thread(target=run, name="otlp end", daemon=True).start()
    return done


def _facts(stream: Stream) -> Attributes:
    """Return the attributes of an ended stream's span."""
    relay, trace, ended = stream.relay, stream.relay.trace, stream.relay.ended
    input_tokens, output_tokens = tokens(stream)
    facts: dict[str, str | bool | int | float | Sequence[str] | None] = {
        "gen_ai.usage.input_tokens": input_tokens,
        "gen_ai.usage.output_tokens": output_tokens,
        "gen_ai.response.model": _bounded(trace.model),
        "gen_ai.response.time_to_first_chunk": None if relay.first_token_ms is None else relay.first_token_ms / 1000,
        "gen_ai.response.finish_reasons": [ended.finish_reason] if isinstance(ended, Done) else None,
        "error.type": ended.code if isinstance(ended, Failure) else None,
        "http.response.status_code": trace.status,
        "chat_sse.usage.estimated": ended is not None and ended.usage is not None and ended.usage.estimated,
        "chat_sse.upstream": trace.upstream or None,
        "chat_sse.upstream.attempts": trace.attempts,
        "chat_sse.upstream.fallback": trace.fallback,
        "chat_sse.upstream.request_id": _bounded(trace.request_id),
        "chat_sse.subscribers": stream.attached,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _bounded(text: str | None) -> str | None:
    """Cut what upstream chose, and make it encodable: one lone surrogate would cost the whole batch of spans."""
    return text[:_LONGEST].encode(errors="replace").decode() if text else None
