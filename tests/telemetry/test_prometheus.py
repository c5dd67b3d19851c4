"""The metrics in Prometheus's text format, and as OpenMetrics: what two parsers read in it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from app.meter import Histogram
from app.telemetry.instruments import Instrument, InstrumentReading, Labels, Value
from app.telemetry.prometheus import Exposition

COUNTER = Instrument("chat_sse.streams", "counter", "{stream}", lambda _: 0, "Ended streams.", ("model", "reason"))
GAUGE = Instrument("chat_sse.journal.bytes", "gauge", "By", lambda _: 0, "Memory.")
GAP = Instrument("chat_sse.inter_delta", "histogram", "s", lambda _: 0, "Between two reads.")


def exposition(instrument: Instrument, values: Iterable[tuple[Labels, Value]]) -> Exposition:
    return Exposition(lambda: [InstrumentReading(instrument, values)])


def scrape(instrument: Instrument, *values: tuple[Labels, Value]) -> dict[tuple[str, str], float]:
    """Return the samples by their names and the values of their labels, without those of the process."""
    body, _ = exposition(instrument, values)()
    return {
        (sample.name, " ".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.name.startswith("chat_sse")
    }


def test_counters_and_gauges() -> None:
    """Each value stands under the instrument's name with its labels."""
    assert scrape(COUNTER, (("m", "stop"), 3), (("m", "length"), 0)) == {
        ("chat_sse_streams_total", "m stop"): 3,
        ("chat_sse_streams_total", "m length"): 0,
    }
    assert scrape(GAUGE, ((), 7)) == {("chat_sse_journal_bytes", ""): 7}
    assert scrape(COUNTER) == {}


def test_a_strange_label_is_escaped() -> None:
    """A name from the settings comes back from the parser as it was, whatever is in it."""
    name = 'a "quoted"\\\nname 流'
    assert scrape(COUNTER, ((name, "stop"), 1)) == {("chat_sse_streams_total", f"{name} stop"): 1}


def test_buckets() -> None:
    """A histogram's buckets are cumulative, a value at a bound is in it, and the last one holds all."""
    histogram = Histogram((0.01, 0.025, 2.5))
    for value in (0.005, 0.01, 0.011, 3.0):
        histogram.observe(value)
    name = "chat_sse_inter_delta_seconds"
    assert scrape(GAP, ((), histogram)) == {
        (f"{name}_bucket", "0.01"): 2,
        (f"{name}_bucket", "0.025"): 3,
        (f"{name}_bucket", "2.5"): 3,
        (f"{name}_bucket", "+Inf"): 4,
        (f"{name}_count", ""): 4,
        (f"{name}_sum", ""): pytest.approx(3.026),
    }


def test_each_scrape_reads_once() -> None:
    """The values are those of the moment, and nothing is read before somebody asks."""
    reads = []

    def read() -> list[InstrumentReading]:
        reads.append(1)
        return [InstrumentReading(GAUGE, [((), len(reads))])]

    shown = Exposition(read)
    assert reads == []
    for count in (1, 2):
        assert f"chat_sse_journal_bytes {count}.0\n" in shown()[0].decode()


@pytest.mark.parametrize(
    ("accept", "is_openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain;version=0.0.4", False),
        ("text/plain; version=nonsense", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=\xff", True),
        ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5", True),
    ],
)
def test_content_negotiation(accept: str, is_openmetrics: bool) -> None:
    """OpenMetrics goes to those who ask for it, text to all others, both with our names and the process's own."""
    body, content_type = exposition(COUNTER, [(("m", "stop"), 3)])(accept)
    if is_openmetrics:
        assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        families = list(openmetrics.text_string_to_metric_families(body.decode()))  # type: ignore[no-untyped-call]  # untyped in prometheus-client
    else:
        assert content_type.startswith("text/plain; version=0.0.4")
        families = list(text_string_to_metric_families(body.decode()))
    names = {sample.name for family in families for sample in family.samples}
    assert "chat_sse_streams_total" in names
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"} <= names
    assert "python_gc_collections_total" in names
