"""OTLP: what a collector receives, what the upstream is told of the trace, and that a dead collector does no harm."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.errors import Truncated
from app.events import Delta, Done
from app.meter import Meter
from app.request import StreamRequest
from app.telemetry.instruments import Ceilings, Measured
from app.telemetry.otlp import Exporter, exporting
from app.upstream import Attempt
from app.usage import Usage
from tests.house import House
from tests.script import Script

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent.parent
PARENT = f"00-{'a' * 32}-{'b' * 16}-01"
PROMPT = "a prompt that stays here"
ANSWER = "an answer that stays here"


class Collector:
    """A collector that keeps what it is sent. While it is *silent*, it answers nothing until it is closed."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.metrics: list[dict[str, Metric]] = []
        self.resources: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.raw = b""
        self.silent = False
        self.status = 200
        self.asked = threading.Event()
        self._closing = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self.path, self.rfile.read(int(self.headers["content-length"])))
                collector.headers.append(self.headers)
                collector.asked.set()
                if collector.silent:
                    collector._closing.wait()
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def take(self, path: str, body: bytes) -> None:
        self.raw += body
        if path == "/v1/traces":
            for traces in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append(attributes(traces.resource.attributes))
                self.spans += [span for scope in traces.scope_spans for span in scope.spans]
        else:
            assert path == "/v1/metrics"
            for metrics in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.resources.append(attributes(metrics.resource.attributes))
                self.metrics.append(
                    {metric.name: metric for scope in metrics.scope_metrics for metric in scope.metrics}
                )

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    yield collector
    collector.close()


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """The SDK's loggers are the process's own: leave them as they were."""
    logger = logging.getLogger("opentelemetry")
    before = logger.handlers, logger.propagate
    yield
    logger.handlers, logger.propagate = before


class Listening(Script):
    """A `Script` that keeps the requests it was asked, and says of the upstream what a real one would."""

    def __init__(self, *steps: Any) -> None:
        super().__init__(*steps)
        self.asked: list[StreamRequest] = []

    def stream(self, request: StreamRequest, attempt: Attempt) -> Any:
        self.asked.append(request)
        attempt.upstream, attempt.model, attempt.request_id = "a", "gpt-\ud800" + "x" * 500, "req_1"
        return super().stream(request, attempt)


class Observed(House):
    """A hub whose streams are exported."""

    source: Listening

    def __init__(self, log: FilteringBoundLogger, meter: Meter, exporter: Exporter, *steps: Any) -> None:
        super().__init__(log, source=Listening(*steps), meter=meter, observers=[exporter])
        exporter.measure(Measured(meter, self.hub, self.journal, Ceilings(10, 10, 1 << 30)).read)

    async def whole(self, model: str = "m", traceparent: str = "") -> str:
        """Open a stream, read it to its end, and return its id."""
        stream_id = await self.read(
            StreamRequest(model, ({"role": "user", "content": PROMPT},), traceparent=traceparent)
        )
        await self.hub.drain(5)
        return stream_id


ANSWERED = (
    (Delta(ANSWER),),
    (Delta(ANSWER),),
    (Done("stop", usage=Usage({"prompt_tokens": 7, "completion_tokens": 11})),),
)


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> Any:
    kind = pair.value.WhichOneof("value")
    assert kind is not None
    value = getattr(pair.value, kind)
    return [item.string_value for item in value.values] if kind == "array_value" else value


def traceparent(span: Span) -> str:
    return f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"


async def test_a_span_of_a_stream_that_is_left(collector: Collector, log: FilteringBoundLogger) -> None:
    """It ends where the stream is left to another process, and says so; it is no error."""
    meter = Meter(["m"])
    async with exporting(meter, log) as exporter:
        exporter.opened("s", StreamRequest("m", ()))
        exporter.left("s")
        exporter.left("another")  # which has none
    (span,) = collector.spans
    assert attributes(span.attributes)["chat_sse.left"] is True
    assert span.status.code == Status.STATUS_CODE_UNSET


async def test_a_span_for_a_stream(collector: Collector, log: FilteringBoundLogger) -> None:
    """A stream is one span below the caller's, the upstream's is below it, and neither prompt nor answer is in it."""
    meter = Meter(["m"])
    async with exporting(meter, log) as exporter:
        house = Observed(log, meter, exporter, *ANSWERED)
        stream_id = await house.whole(traceparent=PARENT)
    (span,) = collector.spans
    assert (span.name, span.kind) == ("chat m", Span.SpanKind.SPAN_KIND_CLIENT)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == ("a" * 32, "b" * 16)
    (asked,) = house.source.asked
    assert asked.traceparent == traceparent(span) != PARENT
    found = attributes(span.attributes)
    assert found.pop("gen_ai.response.time_to_first_chunk") >= 0
    assert found.pop("gen_ai.response.model") == "gpt-?" + "x" * 123
    assert found == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 11,
        "http.response.status_code": 200,
        "chat_sse.stream_id": stream_id,
        "chat_sse.subscribers": 1,
        "chat_sse.upstream": "a",
        "chat_sse.upstream.attempts": 1,
        "chat_sse.upstream.fallback": False,
        "chat_sse.upstream.request_id": "req_1",
        "chat_sse.usage.estimated": False,
    }
    assert PROMPT.encode() not in collector.raw
    assert ANSWER.encode() not in collector.raw


async def test_a_failed_stream(collector: Collector, log: FilteringBoundLogger) -> None:
    """A failed stream's span has the error's code; a model that the settings do not name is not named here either."""
    meter = Meter(["m"])
    async with exporting(meter, log) as exporter:
        await Observed(log, meter, exporter, (Delta("a"),), Truncated()).whole("somebody's own")
    (span,) = collector.spans
    assert span.name == "chat other"
    assert not span.parent_span_id
    assert span.status.code == span.status.STATUS_CODE_ERROR
    assert span.status.message == "upstream_truncated"
    found = attributes(span.attributes)
    assert found["error.type"] == "upstream_truncated"
    assert found["chat_sse.usage.estimated"] is True
    assert "gen_ai.response.finish_reasons" not in found
    assert b"somebody" not in collector.raw


async def test_an_unsampled_caller(collector: Collector, log: FilteringBoundLogger) -> None:
    """If the caller does not sample, we do not, and the upstream is told the same."""
    meter = Meter()
    async with exporting(meter, log) as exporter:
        house = Observed(log, meter, exporter, *ANSWERED)
        await house.whole(traceparent=f"{PARENT[:-1]}0")
    assert not collector.spans
    (asked,) = house.source.asked
    assert asked.traceparent.startswith(f"00-{'a' * 32}-")
    assert asked.traceparent.endswith("-00")


async def test_metrics(collector: Collector, log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics are sent at intervals and in the end, cumulative, with our buckets and the conventions' attributes."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    meter = Meter(["m"], ["a"])
    async with exporting(meter, log) as exporter:
        house = Observed(log, meter, exporter, *ANSWERED)
        async with asyncio.timeout(30):
            while len(collector.metrics) < 2:
                await asyncio.sleep(0.01)
        await house.whole()
    assert sum_of(collector.metrics[0]["chat_sse.streams.opened"]) == 0
    last = collector.metrics[-1]
    (ended,) = [point for point in last["chat_sse.streams"].sum.data_points if point.as_int]
    assert ended.as_int == 1
    assert attributes(ended.attributes) == {
        "gen_ai.request.model": "m",
        "chat_sse.upstream": "a",
        "reason": "stop",
    }
    assert last["chat_sse.streams"].sum.is_monotonic
    (tokens,) = last["gen_ai.client.inference.usage.output_tokens"].sum.data_points
    assert tokens.as_int == 11
    assert attributes(tokens.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
    }
    duration = last["gen_ai.server.request.duration"]
    (point,) = duration.histogram.data_points
    assert (duration.unit, point.count, sum(point.bucket_counts)) == ("s", 1, 1)
    assert list(point.explicit_bounds) == list(meter.duration.bounds)
    assert point.sum == pytest.approx(meter.duration.total)
    assert not point.HasField("min")
    assert 0 < point.start_time_unix_nano < point.time_unix_nano
    (gap,) = last["chat_sse.inter_delta"].histogram.data_points
    assert gap.count == 1
    (draining,) = last["chat_sse.draining"].gauge.data_points
    assert draining.as_int == 1


def sum_of(metric: Metric) -> int:
    return sum(int(point.as_int) for point in metric.sum.data_points)


async def test_the_environment(
    collector: Collector, log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standard variables say who we are, what is sent along, and which of the two signals is sent at all."""
    meter = Meter()
    async with exporting(meter, log) as exporter:
        await Observed(log, meter, exporter, *ANSWERED).whole()
    assert {resource["service.name"] for resource in collector.resources} == {"chat-sse"}
    assert len({resource["service.instance.id"] for resource in collector.resources}) == 1
    collector.resources.clear()
    collector.metrics.clear()
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    async with exporting(meter, log) as exporter:
        await Observed(log, meter, exporter, *ANSWERED).whole()
    (resource,) = collector.resources
    assert resource["service.name"] == "mine"
    assert collector.headers[-1]["x-key"] == "k"
    assert not collector.metrics


async def test_a_disabled_sdk(collector: Collector, log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch) -> None:
    """With OTEL_SDK_DISABLED the caller's traceparent goes upstream as it came, and nothing is sent."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    meter = Meter()
    async with exporting(meter, log) as exporter:
        house = Observed(log, meter, exporter, *ANSWERED)
        await house.whole(traceparent=PARENT)
        assert [asked.traceparent for asked in house.source.asked] == [PARENT]
    assert not collector.raw


async def test_nothing_is_kept_of_an_ended_stream(collector: Collector, log: FilteringBoundLogger) -> None:
    """A span is held for as long as its stream is live, and its end is taken note of once."""
    meter = Meter()
    async with exporting(meter, log) as exporter:
        for _ in range(3):
            await Observed(log, meter, exporter, *ANSWERED).whole()
        assert not exporter._spans
    assert len(collector.spans) == 3


async def test_a_silent_collector(
    collector: Collector, log: FilteringBoundLogger, logs: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collector that takes and does not answer holds neither the loop nor, for more than its time, the end."""
    monkeypatch.setattr("app.telemetry.otlp._LAST_EXPORT", 1)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "10")
    collector.silent = True
    meter = Meter()
    async with exporting(meter, log) as exporter:
        house = Observed(log, meter, exporter, *ANSWERED)
        assert await asyncio.to_thread(collector.asked.wait, 30)
        began = time.monotonic()
        await house.whole()
        await asyncio.sleep(0.1)  # ten intervals, in which nothing piles up behind the one that hangs
        assert len([it for it in threading.enumerate() if it.name == "otlp"]) == 1
        ending = time.monotonic()
    assert time.monotonic() - ending >= 1
    assert time.monotonic() - began < 60, "something waited for the export, which hangs for ten minutes"
    assert [entry for entry in logs.entries if entry["event"] == "otlp.unfinished"]


async def test_a_dead_collector(log: FilteringBoundLogger, logs: LogCapture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that is not there costs a log line or two, however often it is tried, and they tell no secret."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://user:hunter2@127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.05")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "10")
    meter = Meter()
    async with exporting(meter, log) as exporter:
        for _ in range(5):
            await Observed(log, meter, exporter, *ANSWERED).whole()
        async with asyncio.timeout(30):
            while not troubles(logs):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # thirty intervals more
    lines = troubles(logs)
    modules = {line["module"] for line in lines}
    assert len(lines) == len({(line["module"], line["message"]) for line in lines}) <= 2 * len(modules)
    assert all(module.startswith("opentelemetry.") for module in modules)
    assert "hunter2" not in str(logs.entries)
    assert "127.0.0.1" not in str(lines)


def troubles(logs: LogCapture) -> list[Any]:
    return [entry for entry in logs.entries if entry["event"] == "otlp.trouble"]


async def test_a_refusing_collector(collector: Collector, log: FilteringBoundLogger, logs: LogCapture) -> None:
    """A collector that refuses us is logged with the status it gave."""
    collector.status = 401
    meter = Meter()
    async with exporting(meter, log) as exporter:
        await Observed(log, meter, exporter, *ANSWERED).whole()
    assert any("401" in line["because"] for line in troubles(logs))


def test_without_the_packages() -> None:
    """Without the extra's packages, importing it says what to install."""
    code = "import sys; sys.modules['opentelemetry.exporter'] = None; import app.telemetry.otlp"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "ModuleNotFoundError: CHAT_SSE_OTLP needs packages" in ended.stderr
    assert "pip install '.[otlp]'" in ended.stderr


def test_it_is_an_extra() -> None:
    """Nothing of OpenTelemetry is imported by the service unless it is asked for."""
    modules = "[it for it in sys.modules if 'opentelemetry' in it]"
    code = f"import sys, app.composition.service, app.telemetry.prometheus; print({modules})"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
