"""Every metric: its public name, its meaning, and where its value comes from.

Names follow OpenTelemetry's conventions for generative AI where those have one that fits. The conventions still change,
so the names stand here and nowhere else. (`gen_ai.server.time_per_output_token` would not fit: a network read may carry
many tokens, and time is taken once per read.) All other names begin with `chat_sse`.

Labels are bounded: the models and upstreams of the settings, codes of ours, and HTTP statuses.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, NamedTuple

from app import __version__
from app.errors import Misaddressed, StreamError, Unauthorized, Unpaid, UpstreamError, raised
from app.hub import Hub
from app.journal import Journal
from app.meter import OTHER, Histogram, Meter

Labels = tuple[str, ...]
Value = float | Histogram

_UNITS = {"s": "_seconds", "By": "_bytes"}


class Ceilings(NamedTuple):
    """What the settings allow at most: live streams, attached readers, bytes of all logs together."""

    streams: int
    readers: int
    journal: int


class Measured(NamedTuple):
    """Where all values come from."""

    meter: Meter
    hub: Hub
    journal: Journal
    ceilings: Ceilings

    def read(self) -> Sequence[InstrumentReading]:
        """Return a reading of each instrument. Called in the event loop."""
        return [InstrumentReading(instrument, _values(instrument.read(self))) for instrument in INSTRUMENTS]


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric. *otel* is OpenTelemetry's name for it, *unit* is UCUM's.

    *read* returns its value; or, if it has *labels*, its values by the values of the labels (a tuple, or a string if
    there is one label). One that is not *exported* over OTLP says what OpenTelemetry's resource says as well.
    """

    otel: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    read: Callable[[Measured], Value | Mapping[Any, Value]]
    meaning: str
    labels: Labels = ()
    exported: bool = True

    @property
    def name(self) -> str:
        """Prometheus's name, by OpenTelemetry's rules for translating names."""
        name = self.otel.replace(".", "_")
        unit = _UNITS.get(self.unit, "")
        if not name.endswith(unit):
            name += unit
        return f"{name}_total" if self.kind == "counter" else name


class InstrumentReading(NamedTuple):
    """The values of one instrument, by label values. A histogram is the live one: copy what is to be kept."""

    instrument: Instrument
    values: Iterable[tuple[Labels, Value]]


def _values(found: Value | Mapping[Any, Value]) -> list[tuple[Labels, Value]]:
    if not isinstance(found, Mapping):
        return [((), found)]
    return [(labels if isinstance(labels, tuple) else (labels,), value) for labels, value in found.items()]


def _from_zero(counts: Mapping[Any, Value], *known: Iterable[str]) -> Mapping[Any, Value]:
    """Return *counts*, with a zero where nothing was counted for one of the *known* labels, or combinations of them.

    A series that an alert asks for has to be there before it counts anything, because a rate takes no notice of a
    series' first value.
    """
    keys: Iterable[Any] = product(*known) if len(known) > 1 else known[0]
    return {**dict.fromkeys(keys, 0), **counts}


_EVICTED = ("time", "count", "memory")
_HOPELESS = (Unauthorized.code, Unpaid.code, Misaddressed.code)
# An upstream's error refuses no request: it ends a stream.
_REFUSALS = tuple(dict.fromkeys(kind.code for kind in raised(StreamError) if not issubclass(kind, UpstreamError)))
_STATUSES = ("200", "401", "402", "403", "429", "500", "502", "503")


# The formatter would make seven lines of each row.
# fmt: off
INSTRUMENTS = (
    Instrument("gen_ai.server.request.duration", "histogram", "s", lambda of: of.meter.duration,
               "From a stream's opening to its end, however it ended."),
    Instrument("gen_ai.server.time_to_first_token", "histogram", "s", lambda of: of.meter.first_token,
               "From a stream's opening to its first content, retries and fallbacks included."),
    Instrument("chat_sse.inter_delta", "histogram", "s", lambda of: of.meter.gap,
               "Between two network reads from the upstream that brought content."),
    Instrument("gen_ai.client.inference.usage.input_tokens", "counter", "{token}", lambda of: of.meter.input_tokens,
               "Prompt tokens of ended streams: the upstream's count, else an estimate.", ("model",)),
    Instrument("gen_ai.client.inference.usage.output_tokens", "counter", "{token}", lambda of: of.meter.output_tokens,
               "Answer tokens of ended streams: the upstream's count, else an estimate.", ("model",)),
    Instrument("chat_sse.streams", "counter", "{stream}",
               lambda of: _from_zero(of.meter.ended, (OTHER,), of.meter.upstreams, _HOPELESS),
               "Ended streams, by finish reason or error code; no upstream if none was asked.",
               ("model", "upstream", "reason")),
    Instrument("chat_sse.streams.opened", "counter", "{stream}", lambda of: of.meter.opened,
               "Streams opened."),
    Instrument("chat_sse.streams.adopted", "counter", "{stream}", lambda of: of.meter.adopted,
               "Streams that another process opened, and that this one goes on with, since that one is gone."),
    Instrument("chat_sse.streams.live", "gauge", "{stream}", lambda of: of.hub.live,
               "Streams that are being answered."),
    Instrument("chat_sse.streams.max", "gauge", "{stream}", lambda of: of.ceilings.streams,
               "The most streams that may be live."),
    Instrument("chat_sse.subscribers", "counter", "{subscriber}", lambda of: of.meter.attached,
               "Readers that have attached."),
    Instrument("chat_sse.subscribers.live", "gauge", "{subscriber}", lambda of: of.hub.reading,
               "Readers that are attached."),
    Instrument("chat_sse.subscribers.max", "gauge", "{subscriber}", lambda of: of.ceilings.readers,
               "The most readers that may be attached."),
    Instrument("chat_sse.resumes", "counter", "{subscriber}", lambda of: of.meter.resumed,
               "Readers that have attached after a position."),
    Instrument("chat_sse.subscriber.lag_records", "gauge", "{record}", lambda of: of.hub.records_behind,
               "Records that the slowest attached reader is behind."),
    Instrument("chat_sse.journal.bytes", "gauge", "By", lambda of: of.journal.size,
               "Memory that the streams' logs take."),
    Instrument("chat_sse.journal.max_bytes", "gauge", "By", lambda of: of.ceilings.journal,
               "The most memory that they may take."),
    Instrument("chat_sse.journal.streams", "gauge", "{stream}", lambda of: len(of.journal),
               "Streams kept, live ones included."),
    Instrument("chat_sse.journal.away", "gauge", "1", lambda of: not of.journal.ready,
               "1 while no new streams are taken, because Redis or the disk cannot be used."),
    Instrument("chat_sse.evictions", "counter", "{stream}", lambda of: _from_zero(of.meter.evicted, _EVICTED),
               "Ended streams that are no longer kept, by what ran out: time, count or memory.", ("reason",)),
    Instrument("chat_sse.upstream.responses", "counter", "{request}",
               lambda of: _from_zero(of.meter.answers, of.meter.upstreams, _STATUSES),
               "Requests to upstreams, by the HTTP status that came, or the error code if none did.",
               ("upstream", "status")),
    Instrument("chat_sse.upstream.retries", "counter", "{request}",
               lambda of: _from_zero(of.meter.retries, of.meter.upstreams),
               "Requests that asked the same upstream again for the same stream.", ("upstream",)),
    Instrument("chat_sse.fallbacks", "counter", "{stream}",
               lambda of: _from_zero(of.meter.fallbacks, of.meter.upstreams),
               "Ended streams whose last upstream was not the first choice.", ("upstream",)),
    Instrument("chat_sse.requests.refused", "counter", "{request}", lambda of: _from_zero(of.meter.refused, _REFUSALS),
               "Requests that were answered with an error of ours, by its code.", ("reason",)),
    Instrument("chat_sse.event_loop.lag", "histogram", "s", lambda of: of.meter.loop_delay,
               "How late the event loop runs what is due, sampled twice a second."),
    Instrument("chat_sse.draining", "gauge", "1", lambda of: of.hub.draining,
               "1 while no new streams are taken, because it shuts down."),
    Instrument("chat_sse.build_info", "gauge", "1", lambda of: {(__version__, platform.python_version()): 1},
               "Always 1; what runs.", ("version", "python"), exported=False),
)
# fmt: on
