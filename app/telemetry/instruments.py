"""Every metric: its public names, its meaning, and where its value comes from.

Names follow the OpenTelemetry conventions for generative AI where those have one that is true of us; they still move,
so they stand here and nowhere else. The conventions' `gen_ai.server.time_per_output_token` would not be true: a network
read may carry many tokens, and time is taken once per read. The rest is named `chat_sse`.

Labels are bounded: the models and upstreams of the settings, codes of ours, and HTTP statuses.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Literal, NamedTuple, Protocol

from app import __version__
from app.errors import StreamError, Unauthorized, Unpaid, UpstreamError
from app.hub import Hub
from app.meter import OTHER, Histogram, Meter

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]
Value = float | Histogram


class Instrument(NamedTuple):
    """One metric. *name* is Prometheus's, *otel* OpenTelemetry's, or "" where its resource says the same.

    *unit* is UCUM's. A test holds the two names to each other, by OpenTelemetry's rules for translating them.
    """

    name: str
    otel: str
    kind: Kind
    unit: str
    meaning: str
    labels: Labels = ()


DURATION = Instrument(
    "gen_ai_server_request_duration_seconds",
    "gen_ai.server.request.duration",
    "histogram",
    "s",
    "From a stream's opening to its end, however it ended.",
)
FIRST_TOKEN = Instrument(
    "gen_ai_server_time_to_first_token_seconds",
    "gen_ai.server.time_to_first_token",
    "histogram",
    "s",
    "From a stream's opening to its first content, retries and fallbacks included.",
)
INTER_DELTA = Instrument(
    "chat_sse_inter_delta_seconds",
    "chat_sse.inter_delta",
    "histogram",
    "s",
    "Between two network reads from upstream that brought content.",
)
INPUT_TOKENS = Instrument(
    "gen_ai_client_inference_usage_input_tokens_total",
    "gen_ai.client.inference.usage.input_tokens",
    "counter",
    "{token}",
    "Prompt tokens of ended streams: upstream's count, else an estimate.",
    ("model",),
)
OUTPUT_TOKENS = Instrument(
    "gen_ai_client_inference_usage_output_tokens_total",
    "gen_ai.client.inference.usage.output_tokens",
    "counter",
    "{token}",
    "Answer tokens of ended streams: upstream's count, else an estimate.",
    ("model",),
)
STREAMS = Instrument(
    "chat_sse_streams_total",
    "chat_sse.streams",
    "counter",
    "{stream}",
    "Ended streams, by finish reason or error code; without an upstream if none was asked.",
    ("model", "upstream", "reason"),
)
STREAMS_OPENED = Instrument(
    "chat_sse_streams_opened_total", "chat_sse.streams.opened", "counter", "{stream}", "Streams opened."
)
STREAMS_LIVE = Instrument(
    "chat_sse_streams_live", "chat_sse.streams.live", "gauge", "{stream}", "Streams that upstream is answering."
)
STREAMS_MAX = Instrument(
    "chat_sse_streams_max", "chat_sse.streams.max", "gauge", "{stream}", "Most streams that may be live."
)
SUBSCRIBERS = Instrument(
    "chat_sse_subscribers_total", "chat_sse.subscribers", "counter", "{subscriber}", "Readers that have attached."
)
SUBSCRIBERS_LIVE = Instrument(
    "chat_sse_subscribers_live", "chat_sse.subscribers.live", "gauge", "{subscriber}", "Readers that are attached."
)
SUBSCRIBERS_MAX = Instrument(
    "chat_sse_subscribers_max", "chat_sse.subscribers.max", "gauge", "{subscriber}", "Most readers that may be."
)
RESUMES = Instrument(
    "chat_sse_resumes_total",
    "chat_sse.resumes",
    "counter",
    "{subscriber}",
    "Readers that have attached after a position.",
)
LAG = Instrument(
    "chat_sse_subscriber_lag_records",
    "chat_sse.subscriber.lag_records",
    "gauge",
    "{record}",
    "Records that the slowest attached reader is behind.",
)
JOURNAL_BYTES = Instrument(
    "chat_sse_journal_bytes", "chat_sse.journal.bytes", "gauge", "By", "Memory that the streams' logs take."
)
JOURNAL_MAX = Instrument(
    "chat_sse_journal_max_bytes", "chat_sse.journal.max_bytes", "gauge", "By", "Most memory that they may take."
)
JOURNAL_STREAMS = Instrument(
    "chat_sse_journal_streams", "chat_sse.journal.streams", "gauge", "{stream}", "Streams kept, live ones included."
)
EVICTIONS = Instrument(
    "chat_sse_evictions_total",
    "chat_sse.evictions",
    "counter",
    "{stream}",
    "Ended streams no longer kept: their time was up, or there was no room in count or memory.",
    ("reason",),
)
RESPONSES = Instrument(
    "chat_sse_upstream_responses_total",
    "chat_sse.upstream.responses",
    "counter",
    "{request}",
    "Requests to upstream, by the HTTP status that came, or the error code if none did.",
    ("upstream", "status"),
)
RETRIES = Instrument(
    "chat_sse_upstream_retries_total",
    "chat_sse.upstream.retries",
    "counter",
    "{request}",
    "Requests that asked the same upstream again for the same stream.",
    ("upstream",),
)
FALLBACKS = Instrument(
    "chat_sse_fallbacks_total",
    "chat_sse.fallbacks",
    "counter",
    "{stream}",
    "Ended streams whose last upstream was not the first choice.",
    ("upstream",),
)
REFUSED = Instrument(
    "chat_sse_requests_refused_total",
    "chat_sse.requests.refused",
    "counter",
    "{request}",
    "Requests that were answered with an error of ours, by its code.",
    ("reason",),
)
LOOP_LAG = Instrument(
    "chat_sse_event_loop_lag_seconds",
    "chat_sse.event_loop.lag",
    "histogram",
    "s",
    "How late the event loop runs what is due, sampled twice a second.",
)
DRAINING = Instrument(
    "chat_sse_draining", "chat_sse.draining", "gauge", "1", "1 while no new streams are taken, because it shuts down."
)
BUILD = Instrument("chat_sse_build_info", "", "gauge", "1", "Always 1; what runs.", ("version", "python"))

INSTRUMENTS = tuple(value for value in list(globals().values()) if isinstance(value, Instrument))

_EVICTED = ("time", "count", "memory")
# What an alert asks for has to be there before it has happened: a rate takes no notice of a series' first value.
_STATUSES = ("200", "401", "402", "403", "429", "500", "502", "503")

_HOPELESS = (Unauthorized.code, Unpaid.code)


class Reading(NamedTuple):
    """The value of one instrument, by label values. A histogram is the live one: copy what is to be kept."""

    instrument: Instrument
    values: Iterable[tuple[Labels, Value]]


class Kept(Protocol):
    """What a journal says of itself: how many streams are in it, and how many bytes."""

    @property
    def size(self) -> int: ...

    def __len__(self) -> int: ...


class Ceilings(NamedTuple):
    """What the settings allow at most: live streams, attached readers, bytes of all logs together."""

    streams: int
    readers: int
    journal: int


class Readings:
    """Reads all instruments of one process, in its event loop."""

    def __init__(self, meter: Meter, hub: Hub, journal: Kept, ceilings: Ceilings) -> None:
        self._meter = meter
        self._hub = hub
        self._journal = journal
        self._ceilings = ceilings

    def __call__(self) -> Sequence[Reading]:
        """Return a reading of each instrument."""
        meter, hub, journal, ceilings = self._meter, self._hub, self._journal, self._ceilings
        upstreams = meter.upstreams
        return (
            _one(DURATION, meter.duration),
            _one(FIRST_TOKEN, meter.first_token),
            _one(INTER_DELTA, meter.gap),
            _by_name(INPUT_TOKENS, meter.input_tokens),
            _by_name(OUTPUT_TOKENS, meter.output_tokens),
            Reading(STREAMS, (dict.fromkeys(product((OTHER,), upstreams, _HOPELESS), 0) | meter.ended).items()),
            _one(STREAMS_OPENED, meter.opened),
            _one(STREAMS_LIVE, hub.live),
            _one(STREAMS_MAX, ceilings.streams),
            _one(SUBSCRIBERS, meter.attached),
            _one(SUBSCRIBERS_LIVE, hub.reading),
            _one(SUBSCRIBERS_MAX, ceilings.readers),
            _one(RESUMES, meter.resumed),
            _one(LAG, hub.records_behind),
            _one(JOURNAL_BYTES, journal.size),
            _one(JOURNAL_MAX, ceilings.journal),
            _one(JOURNAL_STREAMS, len(journal)),
            _by_name(EVICTIONS, meter.evicted, _EVICTED),
            Reading(RESPONSES, (dict.fromkeys(product(upstreams, _STATUSES), 0) | meter.answers).items()),
            _by_name(RETRIES, meter.retries, upstreams),
            _by_name(FALLBACKS, meter.fallbacks, upstreams),
            _by_name(REFUSED, meter.refused, _REFUSALS),
            _one(LOOP_LAG, meter.loop_lag),
            _one(DRAINING, not hub.ready),
            Reading(BUILD, [((__version__, platform.python_version()), 1)]),
        )


def _one(instrument: Instrument, value: Value) -> Reading:
    return Reading(instrument, [((), value)])


def _by_name(instrument: Instrument, counts: Counter[str], known: Iterable[str] = ()) -> Reading:
    """Read *counts*; a *known* name is there from the start."""
    return Reading(instrument, [((name,), value) for name, value in (dict.fromkeys(known, 0) | counts).items()])


def _codes(error: type[StreamError]) -> Iterable[str]:
    """Yield the codes that a request may be refused with. What upstream did wrong becomes a stream's end instead."""
    if error is not UpstreamError:
        yield error.code
        for kind in error.__subclasses__():
            yield from _codes(kind)


_REFUSALS = tuple(dict.fromkeys(_codes(StreamError)))
