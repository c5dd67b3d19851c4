"""The metrics in OpenTelemetry's form, sent at intervals."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import cast

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import export as otel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from app import __version__
from app.meter import Histogram
from app.telemetry.instruments import Instrument, Labels, Reading, Value

Attributes = dict[str, str | bool | int | float | Sequence[str]]

_logger = logging.getLogger("opentelemetry.chat_sse")  # goes where the SDK's own go: see `otlp_log`

# In the conventions, the provider is the owner of the protocol. Which upstream it was is in an attribute of ours.
GEN_AI: Attributes = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"}

_ATTRIBUTES = {"model": "gen_ai.request.model", "upstream": "chat_sse.upstream"}
_INTERVAL_MS = 60_000
# Not counted. The protocol and the SDK's encoder do without them; only the SDK's types ask for them.
_UNKNOWN = cast(float, None)


class MetricSender:
    """Sends readings at intervals. They are cumulative, so the next one makes up for one that is skipped or lost."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self._exporter = OTLPMetricExporter()
        self._interval = _interval()
        self._began = time.time_ns()
        self._read: Callable[[], Sequence[Reading]] = tuple
        self._timer: asyncio.TimerHandle | None = None
        self._sending = threading.Lock()

    def start(self, read: Callable[[], Sequence[Reading]]) -> None:
        """Send what *read* returns, after one interval and then after each."""
        self._read = read
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._beat)

    def finish(self) -> Callable[[], None]:
        """Stop, take a last reading, and return the function that sends it."""
        if self._timer is not None:
            self._timer.cancel()
        last = self._data()

        def send() -> None:
            with self._sending:
                if last is not None:
                    self._export(last)
            self.shutdown()

        return send

    def shutdown(self) -> None:
        """Close the connection, and try nothing again."""
        self._exporter.shutdown()

    def _beat(self) -> None:
        self.start(self._read)
        data = self._data()
        if data is not None and self._sending.acquire(blocking=False):
            threading.Thread(target=self._send, args=(data,), name="otlp metrics", daemon=True).start()

    def _send(self, data: otel.MetricsData) -> None:
        try:
            self._export(data)
        finally:
            self._sending.release()

    def _export(self, data: otel.MetricsData) -> None:
        try:
            self._exporter.export(data)
        except Exception as error:  # some releases let the errors of `requests` through, and this is a thread's top
            _logger.warning("Failed to export metrics batch: %s", error)

    def _data(self) -> otel.MetricsData | None:
        """Read in the loop, where states are whole. The result shares nothing with the live counts."""
        readings, now = self._read(), time.time_ns()
        if not readings:
            return None
        metrics = [_metric(reading, self._began, now) for reading in readings if reading.instrument.exported]
        scope = otel.ScopeMetrics(InstrumentationScope("chat-sse", __version__), metrics, "")
        return otel.MetricsData([otel.ResourceMetrics(self._resource, [scope], "")])


def _interval() -> float:
    text = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "")
    return (int(text) if text.isdecimal() and int(text) else _INTERVAL_MS) / 1000


def _metric(reading: Reading, began: int, now: int) -> otel.Metric:
    """Return *reading* as the SDK's own collection would, with times in Unix nanoseconds."""
    instrument = reading.instrument
    cumulative = otel.AggregationTemporality.CUMULATIVE
    data: otel.Histogram | otel.Sum | otel.Gauge
    if instrument.kind == "histogram":
        points = [
            otel.HistogramDataPoint(
                attributes=_attributes(instrument, labels),
                start_time_unix_nano=began,
                time_unix_nano=now,
                count=value.count,
                sum=value.total,
                bucket_counts=tuple(value.counts),
                explicit_bounds=value.bounds,
                min=_UNKNOWN,
                max=_UNKNOWN,
            )
            for labels, value in reading.values
            if isinstance(value, Histogram)
        ]
        data = otel.Histogram(points, cumulative)
    else:
        numbers = [_number(instrument, labels, value, began, now) for labels, value in reading.values]
        data = otel.Sum(numbers, cumulative, True) if instrument.kind == "counter" else otel.Gauge(numbers)
    return otel.Metric(instrument.otel, instrument.meaning, instrument.unit, data)


def _number(instrument: Instrument, labels: Labels, value: Value, began: int, now: int) -> otel.NumberDataPoint:
    number = value.count if isinstance(value, Histogram) else +value
    return otel.NumberDataPoint(_attributes(instrument, labels), began, now, number)


def _attributes(instrument: Instrument, values: Labels) -> Attributes:
    named = {_ATTRIBUTES.get(name, name): value for name, value in zip(instrument.labels, values, strict=True)}
    return {**GEN_AI, **named} if instrument.otel.startswith("gen_ai.") else dict(named)
