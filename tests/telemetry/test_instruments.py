"""Metrics: what is counted, what is shown of it, under which names, and at what cost."""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.typing import FilteringBoundLogger

from app import __version__
from app.errors import RateLimited, Truncated
from app.events import Delta, Done
from app.hub import Capacity
from app.meter import Meter
from app.request import StreamRequest
from app.telemetry.instruments import INSTRUMENTS, Ceilings, Measured
from app.telemetry.prometheus import Exposition
from app.upstream import Attempt, first_content
from app.usage import Usage
from tests.house import House
from tests.script import Script, forever
from tests.waiting import until

pytestmark = pytest.mark.anyio

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Answered(Script):
    """A `Script` that was asked of named upstreams, in order, each with the status it answered."""

    def __init__(self, *steps: Any, answers: tuple[tuple[str, str], ...] = (("a", "200"),), first: str = "a") -> None:
        super().__init__(*steps)
        self.answers = answers
        self.first = first

    async def begin(self, request: StreamRequest, attempts: list[Attempt], changed: Any, afford: Any) -> Any:
        attempts += [
            Attempt(upstream, fallback=upstream != self.first, answers=[answer]) for upstream, answer in self.answers
        ]
        batches = self.stream(request, Attempt())
        return await first_content(batches, attempts[-1], changed), batches


class Shown(House):
    """A hub, and what is shown of it."""

    def __init__(self, log: FilteringBoundLogger, source: Script, *, max_streams: int = 10) -> None:
        meter = Meter(["m"], ["a", "b"])
        super().__init__(log, source=source, meter=meter, capacity=Capacity(max_streams), ended=1)
        self.readings = Measured(meter, self.hub, self.journal, Ceilings(max_streams, 100, 1 << 30)).read
        self.exposition = Exposition(self.readings)

    async def whole(self, model: str = "m", after: int = 0) -> None:
        """Open a stream and read it to its end, and again from *after* on if that is given."""
        await self.read(StreamRequest(model, ()), after)
        await self.settled()

    def scrape(self) -> Samples:
        return samples(self.exposition()[0].decode())


def samples(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


async def test_names() -> None:
    """Prometheus's names are what OpenTelemetry's rules make of OpenTelemetry's, and all are known to be ours."""
    units = {"s": "_seconds", "By": "_bytes"}
    for instrument in INSTRUMENTS:
        assert instrument.meaning.endswith("."), instrument
        if instrument.otel:
            name = instrument.otel.replace(".", "_")
            unit = units.get(instrument.unit, "")
            name += "" if name.endswith(unit) else unit
            assert instrument.name == name + ("_total" if instrument.kind == "counter" else "")
        assert instrument.name.startswith(("chat_sse_", "gen_ai_"))
    assert len({instrument.name for instrument in INSTRUMENTS}) == len(INSTRUMENTS)


async def test_every_instrument_is_read(log: FilteringBoundLogger) -> None:
    """A reading has each instrument once, with as many values for labels as it has labels."""
    house = Shown(log, Answered((Delta("a"),), (Done("stop"),)))
    await house.whole()
    readings = house.readings()
    assert Counter(reading.instrument for reading in readings) == Counter(INSTRUMENTS)
    assert all(len(labels) == len(it.instrument.labels) for it in readings for labels, _ in it.values)


async def test_a_whole_stream(log: FilteringBoundLogger) -> None:
    """A stream that was answered is counted under its model, upstream and reason, with its tokens and its times."""
    usage = Usage({"prompt_tokens": 7, "completion_tokens": 11})
    house = Shown(log, Answered((Delta("a"),), (Delta("b"),), (Delta("c"),), (Done("stop", usage=usage),)))
    await house.whole(after=1)
    found = house.scrape()
    assert found[key("chat_sse_streams_total", model="m", upstream="a", reason="stop")] == 1
    assert found[key("gen_ai_client_inference_usage_input_tokens_total", model="m")] == 7
    assert found[key("gen_ai_client_inference_usage_output_tokens_total", model="m")] == 11
    assert found[key("chat_sse_upstream_responses_total", upstream="a", status="200")] == 1
    for name, count in {
        "chat_sse_streams_opened_total": 1,
        "chat_sse_streams_adopted_total": 0,
        "chat_sse_streams_live": 0,
        "chat_sse_streams_max": 10,
        "chat_sse_subscribers_total": 2,
        "chat_sse_subscribers_live": 0,
        "chat_sse_subscribers_max": 100,
        "chat_sse_resumes_total": 1,
        "chat_sse_subscriber_lag_records": 0,
        "chat_sse_journal_streams": 1,
        "chat_sse_journal_bytes": house.journal.size,
        "chat_sse_journal_max_bytes": 1 << 30,
        "chat_sse_journal_away": 0,
        "chat_sse_draining": 0,
        "gen_ai_server_request_duration_seconds_count": 1,
        "gen_ai_server_time_to_first_token_seconds_count": 1,
        "chat_sse_inter_delta_seconds_count": 2,
    }.items():
        assert found[key(name)] == count, name
    python = next(dict(labels)["python"] for name, labels in found if name == "chat_sse_build_info")
    assert found[key("chat_sse_build_info", version=__version__, python=python)] == 1


async def test_what_is_live(log: FilteringBoundLogger) -> None:
    """Live streams and readers are gauges, and so is how far behind the slowest reader is."""
    house = Shown(log, Answered((Delta("a"),), (Delta("b"),), forever))
    stream_id = await house.hub.open(StreamRequest("m", ()))
    async with await house.hub.attach(stream_id), await house.hub.attach(stream_id):
        log_of_it = await house.hub.log_of(stream_id)
        await until(lambda: log_of_it.last == 3)
        found = house.scrape()
        assert found[key("chat_sse_streams_live")] == found[key("chat_sse_streams_opened_total")] == 1
        assert found[key("chat_sse_subscribers_live")] == 2
        assert found[key("chat_sse_subscriber_lag_records")] == 3
    await house.hub.drain(0)
    found = house.scrape()
    assert found[key("chat_sse_draining")] == 1
    assert found[key("chat_sse_streams_live")] == 0
    assert found[key("chat_sse_streams_opened_total")] == 1


async def test_an_outage(log: FilteringBoundLogger) -> None:
    """While the journal is away, a gauge says so; a process that cannot take new streams for that does not drain."""
    house = Shown(log, Answered())
    house.journal.ready = False
    found = house.scrape()
    assert found[key("chat_sse_journal_away")] == 1
    assert found[key("chat_sse_draining")] == 0
    assert repr(house.hub) == "<Hub open, 0 live, 0 reading>"


async def test_upstream_trouble(log: FilteringBoundLogger) -> None:
    """Each answer is counted by upstream; a second one of the same is a retry, another's is a fallback."""
    answers = (("a", "503"), ("a", "503"), ("a", "upstream_unreachable"), ("b", "200"))
    house = Shown(log, Answered((Delta("a"),), Truncated(), answers=answers))
    await house.whole()
    found = house.scrape()
    assert found[key("chat_sse_streams_total", model="m", upstream="b", reason="upstream_truncated")] == 1
    assert found[key("chat_sse_upstream_responses_total", upstream="a", status="503")] == 2
    assert found[key("chat_sse_upstream_responses_total", upstream="a", status="upstream_unreachable")] == 1
    assert found[key("chat_sse_upstream_retries_total", upstream="a")] == 2
    assert found[key("chat_sse_upstream_retries_total", upstream="b")] == 0
    assert found[key("chat_sse_fallbacks_total", upstream="a")] == 0
    assert found[key("chat_sse_fallbacks_total", upstream="b")] == 1


async def test_zeros(log: FilteringBoundLogger) -> None:
    """What alerts ask for is there before it has happened: refusals, evictions, and each upstream's bad answers."""
    found = Shown(log, Answered()).scrape()
    for reason in ("unauthenticated", "rate_limited", "overloaded", "shutting_down", "not_found", "bad_request"):
        assert found[key("chat_sse_requests_refused_total", reason=reason)] == 0
    for upstream in ("a", "b"):
        hopeless = {"model": "other", "upstream": upstream, "reason": "upstream_quota"}
        assert found[key("chat_sse_streams_total", **hopeless)] == 0
    for reason in ("time", "count", "memory"):
        assert found[key("chat_sse_evictions_total", reason=reason)] == 0
    for upstream in ("a", "b"):
        assert found[key("chat_sse_upstream_responses_total", upstream=upstream, status="401")] == 0
        assert found[key("chat_sse_upstream_retries_total", upstream=upstream)] == 0


async def test_evictions(log: FilteringBoundLogger) -> None:
    """A stream that had to go for want of room is counted with the reason."""
    house = Shown(log, Answered((Delta("a"),), (Done("stop"),)))
    await house.whole()
    await house.whole()
    assert house.scrape()[key("chat_sse_evictions_total", reason="count")] == 1


async def test_labels_are_bounded(log: FilteringBoundLogger) -> None:
    """A model that the settings do not name is `other`, however many of them are asked for."""
    house = Shown(log, Answered((Delta("a"),), (Done("stop"),)))
    for model in ("m", 'x"} 1\nevil 1', "\x00", *map(str, range(1000))):
        await house.whole(model)
    found = house.scrape()
    models = {dict(labels)["model"] for name, labels in found if "model" in dict(labels)}
    assert models == {"m", "other"}
    assert found[key("chat_sse_streams_total", model="other", upstream="a", reason="stop")] == 1002


@pytest.mark.parametrize("tokens", [-1, 1 << 31, 10**18, 1.5, "7", None, [7]])
async def test_tokens_that_cannot_be(log: FilteringBoundLogger, tokens: object) -> None:
    """What the upstream says of usage is not counted if it is no count of tokens; the sums stay good."""
    usage = Usage({"prompt_tokens": tokens, "completion_tokens": 3})
    house = Shown(log, Answered((Delta("a"),), (Done("stop", usage=usage),)))
    await house.whole()
    found = house.scrape()
    assert found[key("gen_ai_client_inference_usage_input_tokens_total", model="m")] == 0
    assert found[key("gen_ai_client_inference_usage_output_tokens_total", model="m")] == 3


async def test_a_refused_stream_is_no_stream(log: FilteringBoundLogger) -> None:
    """A stream that failed before its first event counts as one that ended, with the upstream's code."""
    house = Shown(log, Answered(RateLimited(), answers=(("a", "429"),)))
    await house.whole()
    found = house.scrape()
    assert found[key("chat_sse_streams_total", model="m", upstream="a", reason="upstream_rate_limited")] == 1
    assert found[key("gen_ai_server_time_to_first_token_seconds_count")] == 0
    assert found[key("gen_ai_server_request_duration_seconds_count")] == 1


async def test_cost(log: FilteringBoundLogger) -> None:
    """A live stream and its reader cost a scrape a look at each and no more: four calls, or five."""

    async def steps(streams: int) -> int:
        """Count the calls that a scrape makes beside so many live streams, each with its reader."""
        house = Shown(log, Answered((Delta("a"),), forever), max_streams=1000)
        for _ in range(streams):
            subscription = await house.hub.attach(await house.hub.open(StreamRequest("m", ())))
            await subscription.__aenter__()
        count = 0

        def counted(frame: FrameType, event: str, argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(counted)
        try:
            body, _ = house.exposition()
        finally:
            sys.setprofile(None)
        assert samples(body.decode())[key("chat_sse_subscribers_live")] == streams
        await house.hub.drain(0)
        return count

    assert await steps(1000) - await steps(10) < 5 * 990
