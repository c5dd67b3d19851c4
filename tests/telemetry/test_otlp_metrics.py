"""The metrics as OpenTelemetry has them, up to the SDK's exporter. `test_otlp` has what a collector receives."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest
from opentelemetry.sdk.metrics import export as otel
from opentelemetry.sdk.resources import Resource

from app.meter import Histogram
from app.telemetry import otlp_metrics
from app.telemetry.instruments import Instrument, InstrumentReading
from app.telemetry.otlp_metrics import GEN_AI, MetricSender, in_daemon
from tests.clock import LoopClock
from tests.waiting import until

pytestmark = pytest.mark.anyio

RESOURCE = Resource({"service.name": "s"})
COUNTER = Instrument(
    "gen_ai.client.inference.usage.input_tokens", "counter", "{token}", lambda _: 0, "Tokens.", ("model",)
)
RETRIES = Instrument(
    "chat_sse.upstream.retries", "counter", "{request}", lambda _: 0, "Retries.", ("upstream", "reason")
)
GAUGE = Instrument("chat_sse.draining", "gauge", "1", lambda _: 0, "Draining.")
GAP = Instrument("chat_sse.inter_delta", "histogram", "s", lambda _: 0, "Between two reads.")
INFO = Instrument("chat_sse.build_info", "gauge", "1", lambda _: 0, "What runs.", exported=False)


class Exporter:
    """Stands for the SDK's: keeps what it is given, and fails as it is told."""

    def __init__(self) -> None:
        self.sent: list[otel.MetricsData] = []
        self.error: Exception | None = None
        self.is_shut = False

    def export(self, data: otel.MetricsData) -> None:
        self.sent.append(data)
        if self.error is not None:
            raise self.error

    def shutdown(self) -> None:
        self.is_shut = True


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Exporter:
    exporter = Exporter()
    monkeypatch.setattr(otlp_metrics, "OTLPMetricExporter", lambda: exporter)
    return exporter


def metrics(data: otel.MetricsData) -> list[otel.Metric]:
    """Return the metrics of one sending."""
    (of_resource,) = data.resource_metrics
    assert of_resource.resource is RESOURCE
    (scope,) = of_resource.scope_metrics
    assert scope.scope.name == "chat-sse"
    return list(scope.metrics)


async def sent(exporter: Exporter, *readings: InstrumentReading) -> list[otel.Metric]:
    """Return the metrics that are sent in the end."""
    await MetricSender(RESOURCE, lambda: readings).finish()
    assert exporter.is_shut
    (data,) = exporter.sent
    return metrics(data)


async def test_a_counter(exporter: Exporter) -> None:
    """A counter is a monotonic sum since the start. The conventions' metrics have the conventions' attributes."""
    tokens, retries = await sent(
        exporter, InstrumentReading(COUNTER, [(("m",), 7)]), InstrumentReading(RETRIES, [(("a", "x"), 1)])
    )
    assert (tokens.name, tokens.unit, tokens.description) == (COUNTER.otel, "{token}", "Tokens.")
    assert isinstance(tokens.data, otel.Sum)
    assert (tokens.data.is_monotonic, tokens.data.aggregation_temporality) == (
        True,
        otel.AggregationTemporality.CUMULATIVE,
    )
    (point,) = tokens.data.data_points
    assert (point.value, point.attributes) == (7, {**GEN_AI, "gen_ai.request.model": "m"})
    assert 0 < point.start_time_unix_nano <= point.time_unix_nano
    (other,) = retries.data.data_points
    assert other.attributes == {"chat_sse.upstream": "a", "reason": "x"}


async def test_a_gauge(exporter: Exporter) -> None:
    """A gauge is a number, also where it is a truth value. What the resource says already is left out."""
    (metric,) = await sent(exporter, InstrumentReading(GAUGE, [((), True)]), InstrumentReading(INFO, [((), 1)]))
    assert isinstance(metric.data, otel.Gauge)
    (point,) = metric.data.data_points
    assert isinstance(point, otel.NumberDataPoint)
    assert point.value == 1
    assert type(point.value) is int


async def test_a_histogram(exporter: Exporter) -> None:
    """A histogram has our bounds, and a copy of the counts: what is observed later does not change it."""
    histogram = Histogram((0.01, 1.0))
    histogram.observe(0.01)
    histogram.observe(2.0)
    (metric,) = await sent(exporter, InstrumentReading(GAP, [((), histogram)]))
    histogram.observe(2.0)
    assert isinstance(metric.data, otel.Histogram)
    (point,) = metric.data.data_points
    assert (point.bucket_counts, point.explicit_bounds, point.count, point.sum) == ((1, 0, 1), (0.01, 1.0), 2, 2.01)


@pytest.mark.parametrize(
    ("interval", "seconds"), [("20", 0.02), ("5000", 5), ("", 60), ("0", 60), ("-1", 60), ("often", 60)]
)
async def test_the_interval(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch, loop_clock: LoopClock, interval: str, seconds: float
) -> None:
    """The standard variable is in milliseconds; without a number in it, it is a minute."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", interval)
    reads: list[float] = []

    def read() -> list[InstrumentReading]:
        reads.append(loop_clock.now)
        return []

    sender = MetricSender(RESOURCE, read)
    await loop_clock.let_pass(0)
    await loop_clock.let_pass(seconds * 0.9)
    assert not reads
    await loop_clock.let_pass(seconds * 0.2)
    assert len(reads) == 1
    await sender.finish()


async def test_a_failure_is_logged(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the SDK lets through ends neither the sending nor the thread, and goes where its own log goes."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "1")
    exporter.error = ConnectionError("refused")
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "handle", records.append)
    logger = logging.getLogger("opentelemetry.chat_sse")
    logger.addHandler(handler)
    sender = MetricSender(RESOURCE, list)
    try:
        await until(lambda: len(exporter.sent) >= 2)
        await sender.finish()
    finally:
        logger.removeHandler(handler)
    assert {record.args for record in records} == {(exporter.error,)}


async def test_in_a_daemon() -> None:
    """The work is done in a daemon thread, which is waited for while the loop goes on."""
    done: list[bool] = []
    go_on = threading.Event()

    def work() -> None:
        assert go_on.wait(30)
        done.append(threading.current_thread().daemon)

    working = asyncio.create_task(in_daemon(work))
    await asyncio.sleep(0)
    assert not working.done()
    go_on.set()
    await working
    assert done == [True]
