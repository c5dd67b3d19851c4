"""The metrics in OpenTelemetry's form, sent at intervals."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import export as otel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from app import __version__
from app.meter import Histogram
from app.telemetry.instruments import Instrument, InstrumentReading, Labels, Value

Attributes = dict[str, str | bool | int | float | Sequence[str]]

_logger = logging.getLogger("opentelemetry.chat_sse")  # goes where the SDK's own go: see `otlp_log`

# In the conventions, the provider is the owner of the protocol. Which upstream it was is in an attribute of ours.
GEN_AI: Attributes = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"}

_ATTRIBUTES = {"model": "gen_ai.request.model", "upstream": "chat_sse.upstream"}
_INTERVAL_MS = 60_000
# Not counted. The protocol and the SDK's encoder do without them; only the SDK's types ask for them.
_UNKNOWN = cast(float, None)


class MetricSender:
    """Sends readings at intervals. They are cumulative, so the next one makes up for one that is lost."""

    def __init__(self, resource: Resource, read: Callable[[], Sequence[InstrumentReading]]) -> None:
        self._resource = resource
        self._read = read
        self._exporter = OTLPMetricExporter()
        self._began = time.time_ns()
        self._stop = asyncio.Event()
        self._sending = asyncio.create_task(self._send_at_intervals(), name="otlp metrics")

    async def finish(self) -> None:
        """Send a last reading, after the one that may be under way, and close the connection."""
        self._stop.set()
        await self._sending
        self.shutdown()

    def shutdown(self) -> None:
        """Close the connection, and try nothing again."""
        self._exporter.shutdown()

    async def _send_at_intervals(self) -> None:
        interval = _interval()
        last = False
        while not last:
            with suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self._stop.wait()
            last = self._stop.is_set()
            await in_daemon(partial(self._export, self._data()))

    def _export(self, data: otel.MetricsData) -> None:
        try:
            self._exporter.export(data)
        except Exception as error:  # some releases let the errors of `requests` through, and this is a thread's top
            _logger.warning("Failed to export metrics batch: %s", error)

    def _data(self) -> otel.MetricsData:
        """Read in the loop, where states are whole. The result shares nothing with the live counts."""
        now = time.time_ns()
        metrics = [_metric(reading, self._began, now) for reading in self._read() if reading.instrument.exported]
        scope = otel.ScopeMetrics(InstrumentationScope("chat-sse", __version__), metrics, "")
        return otel.MetricsData([otel.ResourceMetrics(self._resource, [scope], "")])


async def in_daemon(work: Callable[[], object]) -> None:
    """Do *work* in a daemon thread, and wait. The end of the process would wait for the loop's own executor."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def run() -> None:
        try:
            work()
        finally:
            with suppress(RuntimeError):  # the loop is closed, so nothing waits any more
                loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=run, name="otlp", daemon=True).start()
    await ended.wait()


def _interval() -> float:
    """Return the standard variable's interval in seconds."""
    text = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "")
    return (int(text) if text.isdecimal() and int(text) else _INTERVAL_MS) / 1000


def _metric(reading: InstrumentReading, began: int, now: int) -> otel.Metric:
    """Return *reading* as the SDK's own collection would, with times in Unix nanoseconds."""
    instrument = reading.instrument
    points: list[Any] = [_point(_attributes(instrument, labels), value, began, now) for labels, value in reading.values]
    cumulative = otel.AggregationTemporality.CUMULATIVE
    data: otel.Histogram | otel.Sum | otel.Gauge
    match instrument.kind:
        case "histogram":
            data = otel.Histogram(points, cumulative)
        case "counter":
            data = otel.Sum(points, cumulative, True)
        case "gauge":
            data = otel.Gauge(points)
    return otel.Metric(instrument.otel, instrument.meaning, instrument.unit, data)


def _point(
    attributes: Attributes, value: Value, began: int, now: int
) -> otel.HistogramDataPoint | otel.NumberDataPoint:
    if not isinstance(value, Histogram):
        return otel.NumberDataPoint(attributes, began, now, +value)  # a number, also of a bool
    counts = tuple(value.counts)
    return otel.HistogramDataPoint(
        attributes, began, now, value.count, value.total, counts, value.bounds, min=_UNKNOWN, max=_UNKNOWN
    )


def _attributes(instrument: Instrument, values: Labels) -> Attributes:
    named = {_ATTRIBUTES.get(name, name): value for name, value in zip(instrument.labels, values, strict=True)}
    return {**GEN_AI, **named} if instrument.otel.startswith("gen_ai.") else dict(named)
