"""The metrics in Prometheus's text format, or as OpenMetrics if the scraper asks for that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from app.meter import Histogram
from app.telemetry.instruments import InstrumentReading

_OPENMETRICS = "application/openmetrics-text"
# The library's classes, whose `add_metric` takes what fits the kind.
_FAMILIES: dict[str, Any] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


class Exposition(Collector):
    """Renders what *read* returns, and CPU, memory, open files and garbage collections of the process beside it."""

    def __init__(self, read: Callable[[], Sequence[InstrumentReading]]) -> None:
        self._read = read
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def __call__(self, accept: str = "") -> tuple[bytes, str]:
        """Return a scrape and its content type. *accept* is the header of that name."""
        # The library's own choice fails on a version that is not a number, and echoes any other. This choice gives real
        # scrapers the same, because none of our names needs the escaping that newer versions are for.
        encode, content_type = choose_encoder(_OPENMETRICS if _OPENMETRICS in accept else "")
        return encode(self._registry), content_type

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: the registry would read once, to learn the names."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the readings as the library's metrics."""
        return map(_family, self._read())


def _family(reading: InstrumentReading) -> Any:
    instrument = reading.instrument
    family = _FAMILIES[instrument.kind](instrument.name, instrument.meaning, labels=instrument.labels)
    for labels, value in reading.values:
        if isinstance(value, Histogram):
            family.add_metric(labels, _buckets(value), value.total)
        else:
            family.add_metric(labels, value)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return the bounds as the format spells them, each with the count of the values up to it."""
    bounds = (*map(floatToGoString, histogram.bounds), "+Inf")
    return list(zip(bounds, accumulate(histogram.counts), strict=True))
