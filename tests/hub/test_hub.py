"""The hub: who lives how long, who may attach, who pays, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

import app.hub.hub
from app.errors import Draining, KeyReused, Overloaded, RateLimited, Truncated, UnknownStream
from app.events import Delta, Done, Event, Failure, Start
from app.hub import Capacity, IdempotencyKey, Observer, Outcome, Subscription
from app.journal.memory import MemoryLog
from app.request import ANYONE, Allowance, Principal, StreamInfo, StreamRequest
from app.upstream import Attempt
from tests.clock import LoopClock
from tests.house import House, producers
from tests.script import Script, forever
from tests.waiting import until

pytestmark = pytest.mark.anyio

DONE = (Done("stop"),)
KEY = IdempotencyKey("k", b"body")


def asked(grace: float = 0) -> StreamRequest:
    return StreamRequest("m", ({"role": "user", "content": "hi"},), grace=grace)


async def begun(house: House, grace: float = 0, key: IdempotencyKey | None = None) -> Subscription:
    """Open a stream and attach to it."""
    return await house.hub.attach(await house.hub.open(asked(grace), key=key))


async def read(subscription: Subscription) -> list[Event]:
    async with subscription as batches:
        return [event async for batch in batches for event in batch.events]


async def test_whole(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """A stream is read to its end by its opener and leaves one canonical line."""
    house = House(log, (Delta("a"),), (Delta("é"),), DONE)
    events = await read(await begun(house))
    assert events[1:3] == [Delta("a"), Delta("é")]
    await house.settled()
    (line,) = [entry for entry in logs.entries if entry["event"] == "stream.finished"]
    assert (line["reason"], line["deltas"], line["output_bytes"]) == ("stop", 2, 3)
    assert (line["subscribers_peak"], line["subscribers_total"]) == (1, 1)


async def test_the_source_is_told_the_pause(log: FilteringBoundLogger) -> None:
    """How long not to read after content follows from the cut, and is known when the source is asked."""
    asked_with: list[float | None] = []

    class Asked(Script):
        def stream(self, request: StreamRequest, attempt: Attempt) -> Any:
            asked_with.append(request.pause)
            return super().stream(request, attempt)

    house = House(log, source=Asked((Delta("a"),), DONE))
    for chunk in ("time:80", "auto"):
        await house.read(StreamRequest("m", (), chunk=chunk))
    assert asked_with == [0.08, None]
    await house.settled()


async def test_attach_from_every_position(log: FilteringBoundLogger) -> None:
    """Live or ended, a subscription after record k reads exactly the rest; beyond the end there is nothing."""
    house = House(log, (Delta("a"),), (Delta("b"),), DONE)
    stream_id = await house.hub.open(asked())
    whole = await read(await house.hub.attach(stream_id))
    for after in range(len(whole)):
        subscription = await house.hub.attach(stream_id, after=after)
        assert not subscription.exhausted
        assert await read(subscription) == whole[after:]
    assert (await house.hub.attach(stream_id, after=len(whole))).exhausted
    with pytest.raises(UnknownStream):
        await house.hub.attach(stream_id, after=len(whole) + 1)
    with pytest.raises(UnknownStream):
        await house.hub.attach("unknown")


async def test_many_readers(log: FilteringBoundLogger) -> None:
    """Readers at different paces and from different positions all read the same stream."""
    go = asyncio.Event()
    house = House(log, (Delta("a"),), go.wait, (Delta("b"),), DONE)
    stream_id = await house.hub.open(asked())
    readers = [asyncio.create_task(read(await house.hub.attach(stream_id))) for _ in range(5)]
    async with await house.hub.attach(stream_id) as slow:
        await anext(slow)
        go.set()
        transcripts = await asyncio.gather(*readers)
        rest = [event async for batch in slow for event in batch.events]
    assert all(transcript == transcripts[0] for transcript in transcripts)
    assert rest == transcripts[0][-len(rest) :]


async def test_cancel_policy(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """With `cancel`, the upstream is let go when the last reader leaves, and not when the last but one does."""
    house = House(log, (Delta("a"),), forever)
    subscription = await begun(house, grace=0)
    async with subscription as batches:
        await anext(batches)
        async with await house.hub.attach(subscription.stream_id):
            pass
        assert house.hub.live == 1
    await house.settled()
    assert logs.entries[-1]["reason"] == "cancelled"


async def test_continue_policy(log: FilteringBoundLogger) -> None:
    """With `continue`, the answer is finished without a reader, and kept."""
    go = asyncio.Event()
    house = House(log, (Delta("a"),), go.wait, (Delta("b"),), DONE)
    subscription = await begun(house, grace=math.inf)
    async with subscription as batches:
        await anext(batches)
    go.set()
    await house.settled()
    events = await read(await house.hub.attach(subscription.stream_id))
    assert [event for event in events if isinstance(event, Delta)] == [Delta("a"), Delta("b")]


async def test_grace(log: FilteringBoundLogger, logs: LogCapture, loop_clock: LoopClock) -> None:
    """With `grace`, a reader that is back in time finds the stream alive; else it is cancelled."""
    house = House(log, (Delta("a"),), forever)
    subscription = await begun(house, grace=0.05)
    async with subscription as batches:
        await anext(batches)
    async with await house.hub.attach(subscription.stream_id):
        await loop_clock.let_pass(0.08)  # longer than the grace: that a reader is there is what keeps it
        assert house.hub.live == 1
    await ends_unread(house, logs, loop_clock)
    assert logs.entries[-1]["reason"] == "cancelled"


async def ends_unread(house: House, logs: LogCapture, loop_clock: LoopClock) -> None:
    """Check that the stream ends after a grace of 50 ms without a reader, and that the log has that grace."""
    await loop_clock.let_pass(0.04)
    assert house.hub.live == 1
    await loop_clock.let_pass(0.02)
    assert house.hub.live == 0
    await house.settled()
    assert [entry["grace"] for entry in logs.entries if entry["event"] == "stream.unread"] == [0.05]


async def test_unknown_grace(log: FilteringBoundLogger, logs: LogCapture, loop_clock: LoopClock) -> None:
    """A stream whose reader left before it was told the id has a grace of its own, and the log has that one."""
    house = House(log, (Delta("a"),), forever)
    request = StreamRequest("m", (), grace=3600, unknown_grace=0.05)
    subscription = await house.hub.attach(await house.hub.open(request))
    subscription.knows_id = False
    async with subscription as batches:
        await anext(batches)
    await ends_unread(house, logs, loop_clock)


async def test_first_reader(log: FilteringBoundLogger, logs: LogCapture, loop_clock: LoopClock) -> None:
    """A stream that was started without a reader waits for its first one, whatever its policy, but not for ever."""
    house = House(log, (Delta("a"),), forever, first_reader=0.05)
    await house.hub.open(asked(grace=0))
    await ends_unread(house, logs, loop_clock)


async def test_cancel(log: FilteringBoundLogger) -> None:
    """Cancelling ends the stream for all its readers; again, or after the end, it changes nothing."""
    house = House(log, (Delta("a"),), forever)
    subscription = await begun(house, grace=math.inf)
    reader = asyncio.create_task(read(await house.hub.attach(subscription.stream_id)))
    await asyncio.sleep(0)
    for _ in range(3):
        assert (await house.hub.cancel(subscription.stream_id)).ended
    last = (await reader)[-1]
    assert isinstance(last, Done)
    assert last.finish_reason == "cancelled"
    await house.settled()
    with pytest.raises(UnknownStream):
        await house.hub.cancel("unknown")


async def test_remove(log: FilteringBoundLogger) -> None:
    """A stream that is removed has ended, and is not kept."""
    house = House(log, (Delta("a"),), forever)
    reader = asyncio.create_task(read(subscription := await begun(house, grace=math.inf)))
    await asyncio.sleep(0)
    await house.hub.remove(subscription.stream_id)
    assert isinstance((await reader)[-1], Done)
    with pytest.raises(UnknownStream):
        await house.hub.remove(subscription.stream_id)
    await house.settled()


async def test_what_does_not_end_is_not_removed(log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose upstream cannot be left in time is not removed, and its client is told so."""
    monkeypatch.setattr(app.hub.hub, "_REMOVE_WAIT", 0.01)
    left = asyncio.Event()

    async def reluctant() -> None:
        try:
            await forever()
        finally:
            await left.wait()

    house = House(log, (Delta("a"),), reluctant)
    stream_id = await house.hub.open(asked(math.inf))
    await until(lambda: house.source.started > 0)
    with pytest.raises(Overloaded):
        await house.hub.remove(stream_id)
    assert (await house.hub.log_of(stream_id)).last > 0
    left.set()
    await house.settled()
    await house.hub.remove(stream_id)
    with pytest.raises(UnknownStream):
        await house.hub.log_of(stream_id)


async def test_idempotency(log: FilteringBoundLogger) -> None:
    """The same key with the same body is the same stream, even at once; with another body it is refused."""
    house = House(log, (Delta("a"),), DONE)
    first, second = await asyncio.gather(house.hub.open(asked(), key=KEY), house.hub.open(asked(), key=KEY))
    await read(await house.hub.attach(first))
    assert second == first == await house.hub.open(asked(), key=KEY)
    assert house.source.started == 1
    with pytest.raises(KeyReused):
        await house.hub.open(asked(), key=IdempotencyKey("k", b"other"))
    assert await house.hub.open(asked(), key=IdempotencyKey("k2", b"other")) != first
    await house.settled()


@pytest.mark.parametrize(
    ("end", "kept"), [((Done("length"),), True), ((Done("cancelled"),), False), (RateLimited(), False)]
)
async def test_a_key_of_an_answer_without_content(log: FilteringBoundLogger, end: Any, kept: bool) -> None:
    """An answer that was all hidden reasoning has been paid for, so its key stands for it."""
    house = House(log, end)
    first = await begun(house, key=KEY)
    await read(first)
    await house.settled()
    assert (await house.hub.open(asked(), key=KEY) == first.stream_id) is kept
    await house.settled()


async def test_key_is_released(log: FilteringBoundLogger) -> None:
    """A key may be used again when its stream failed before it answered anything, or is no longer kept."""
    house = House(log, RateLimited())
    first = await begun(house, key=KEY)
    await read(first)
    await house.settled()
    assert (await begun(house, key=KEY)).stream_id != first.stream_id
    house = House(log, (Delta("a"),), DONE, ended=0)
    first = await begun(house, key=KEY)
    await read(first)
    await house.settled()
    assert (await begun(house, key=KEY)).stream_id != first.stream_id
    await house.settled()


async def test_evictions_are_logged_and_counted(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """A stream that had to go for want of room leaves a warning and a count; one whose time was up is counted, too."""
    house = House(log, (Delta("a"),), DONE, ended=1)
    first = await begun(house)
    await read(first)
    await read(await begun(house))
    await house.settled()
    house.hub.evicted("another", "time")
    lines = [entry for entry in logs.entries if entry["event"] == "journal.evicted"]
    assert [(line["stream_id"], line["reason"], line["log_level"]) for line in lines] == [
        (first.stream_id, "count", "warning"),
        ("another", "time", "debug"),
    ]
    assert house.meter.evicted == {"count": 1, "time": 1}


async def test_failure(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """A failed stream's canonical line is a warning with the error's code."""
    house = House(log, (Delta("a"),), Truncated())
    await read(await begun(house))
    await house.settled()
    (line,) = (entry for entry in logs.entries if entry["event"] == "stream.failed")
    assert (line["reason"], line["log_level"]) == ("upstream_truncated", "warning")


async def test_full(log: FilteringBoundLogger) -> None:
    """Over the bound, a new stream is refused; the place is free again when one ends."""
    house = House(log, forever, capacity=Capacity(1))
    async with await begun(house):
        with pytest.raises(Overloaded):
            await house.hub.open(asked(), key=KEY)
    await house.settled()
    async with await begun(house, key=KEY):
        pass
    await house.settled()


async def test_no_room(log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal without room refuses the stream, and its key stays free."""
    house = House(log, DONE)

    async def full(*_: Any) -> Any:
        raise Overloaded

    with monkeypatch.context() as patch:
        patch.setattr(house.journal, "create", full)
        with pytest.raises(Overloaded):
            await house.hub.open(asked(), key=KEY)
    assert isinstance((await read(await begun(house, key=KEY)))[0], Start)


async def test_drain_waits(log: FilteringBoundLogger) -> None:
    """A drain lets live streams finish, and takes no new ones."""
    go = asyncio.Event()
    house = House(log, (Delta("a"),), go.wait, DONE)
    reader = asyncio.create_task(read(await begun(house)))
    drain = asyncio.create_task(house.hub.drain(5))
    await asyncio.sleep(0)
    assert not house.hub.ready
    assert repr(house.hub) == "<Hub draining, 1 live, 1 reading>"
    with pytest.raises(Draining):
        await house.hub.open(asked())
    go.set()
    await drain
    assert isinstance((await reader)[-1], Done)
    await house.settled()


async def test_drain_ends(log: FilteringBoundLogger) -> None:
    """What outlives the grace ends with an error of its own that its readers see."""
    house = House(log, (Delta("a"),), forever)
    reader = asyncio.create_task(read(await begun(house)))
    await asyncio.sleep(0)
    await house.hub.drain(0.01)
    last = (await reader)[-1]
    assert isinstance(last, Failure)
    assert last.code == "shutting_down"
    await house.settled()


async def test_opened_while_the_drain_begins(log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose log is being begun as the process starts to drain is refused, and its log has an end."""
    house = House(log, (Delta("a"),), DONE)
    go_on = asyncio.Event()
    made: list[MemoryLog] = []
    create = house.journal.create

    async def slowly(stream_id: str, info: StreamInfo) -> MemoryLog:
        made.append(await create(stream_id, info))
        await go_on.wait()
        return made[0]

    monkeypatch.setattr(house.journal, "create", slowly)
    opening = asyncio.create_task(house.hub.open(asked(), key=KEY))
    await until(lambda: made)
    await house.hub.drain(0)
    go_on.set()
    with pytest.raises(Draining):
        await opening
    assert (house.hub.live, made[0].ended) == (0, True)
    assert not house.journal.registry._claims


async def test_an_observer_that_fails(log: FilteringBoundLogger) -> None:
    """The others are told all the same, the slot is given back, and the process can end."""
    told: list[str] = []

    class Failing(Observer):
        async def ended(self, outcome: Outcome, log: FilteringBoundLogger) -> None:
            raise ValueError

    class Telling(Observer):
        async def ended(self, outcome: Outcome, log: FilteringBoundLogger) -> None:
            told.append(outcome.stream_id)

    house = House(log, (Delta("a"),), DONE, observers=[Failing(), Telling()])
    ann = Principal("ann", Allowance(streams=1))
    stream_id = await house.hub.open(asked(math.inf), ann)
    [error] = await asyncio.gather(*producers(), return_exceptions=True)
    assert isinstance(error, ValueError)
    assert told == [stream_id]
    assert await house.journal.registry.occupy(ann.counted_as(), "next", 1)
    async with asyncio.timeout(30):
        await house.hub.drain(60)


async def elsewhere(house: House, stream_id: str) -> MemoryLog:
    """Begin a stream that the hub has no producer of, as if another process had."""
    log = await house.journal.create(stream_id, StreamInfo("none", ANYONE.name))
    log.append([Delta("a")])
    return log


async def test_drain_sends_away(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """A drain sends away at once the readers of other processes' streams, and no others; it lets them in no more."""
    house = House(log, (Delta("a"),), forever)
    theirs, ended = await elsewhere(house, "theirs"), await elsewhere(house, "ended")
    ended.append(DONE)
    own = await begun(house, math.inf)
    subscription = await house.hub.attach("theirs")
    async with own, subscription as batches:
        await anext(batches)
        async with await house.hub.attach("ended"):
            drain = asyncio.create_task(house.hub.drain(0.2))
            await asyncio.sleep(0)
            assert (subscription.dismissed, own.dismissed) == (True, False)
            with pytest.raises(Draining):
                await house.hub.attach("theirs")
            assert (await read(await house.hub.attach("ended")))[-1] == DONE[0]
            assert not (await house.hub.attach(own.stream_id)).dismissed
        await house.hub.drain(0)  # again: one dismissal is enough
        theirs.append(DONE)
        assert [batch.events async for batch in batches] == [list(DONE)]  # whether it leaves is the response's to say
    await drain
    assert next(entry for entry in logs.entries if entry["event"] == "hub.draining")["dismissed"] == 1
    await house.settled()


async def test_let_in_just_before_the_drain(log: FilteringBoundLogger) -> None:
    """Who was let in before the drain, and begins to read after, is sent away, too."""
    house = House(log)
    await elsewhere(house, "theirs")
    subscription = await house.hub.attach("theirs")
    await house.hub.drain(0)
    assert not subscription.dismissed
    async with subscription:
        assert subscription.dismissed


def sent_away(*readers: Subscription) -> list[bool]:
    return [reader.dismissed for reader in readers]


async def test_who_cannot_come_back_has_the_grace(log: FilteringBoundLogger) -> None:
    """A reader that cannot resume may read on elsewhere's stream while the drain lasts, and is sent away at its end."""
    house = House(log)
    await elsewhere(house, "short")
    theirs = await elsewhere(house, "long")
    staying, other = await house.hub.attach("short"), await house.hub.attach("long")
    staying.resumable = other.resumable = False
    async with staying:
        async with other as batches:
            drain = asyncio.create_task(house.hub.drain(0.1))
            await asyncio.sleep(0)
            assert sent_away(staying, other) == [False, False]
            theirs.append(DONE)
            assert [batch.events async for batch in batches] == [[Delta("a"), *DONE]]
        async with asyncio.timeout(30):
            while not sent_away(staying)[0]:
                await asyncio.sleep(0.005)
        assert sent_away(other) == [False]
    async with asyncio.timeout(30):
        await drain


async def test_a_drain_waits_no_longer_than_who_cannot_come_back(log: FilteringBoundLogger) -> None:
    """Once the last such reader has left, and nothing is live, the drain is over."""
    house = House(log)
    await elsewhere(house, "theirs")
    staying = await house.hub.attach("theirs")
    staying.resumable = False
    async with staying:
        drain = asyncio.create_task(house.hub.drain(60))
        await asyncio.sleep(0)
        assert not drain.done()
    async with asyncio.timeout(30):
        await drain
    assert not staying.dismissed


@pytest.mark.parametrize("comes_back", ["told", "another reader", "another process", None])
async def test_a_stream_that_no_client_knows(log: FilteringBoundLogger, comes_back: str | None) -> None:
    """A stream has its grace only if a client has its id: by the answer, because it came by it, or elsewhere."""
    house = House(log, (Delta("a"),), forever)
    request = StreamRequest("m", ({"role": "user", "content": "hi"},), grace=60, unknown_grace=0)
    opener = await house.hub.attach(await house.hub.open(request))
    opener.knows_id = False
    async with opener:
        if comes_back == "told":
            opener.told()
        if comes_back == "another reader":
            async with await house.hub.attach(opener.stream_id):
                pass
        if comes_back == "another process":
            house.hub.presence(opener.stream_id, 1)
            house.hub.presence(opener.stream_id, -1)
        assert house.hub.live == 1
    if comes_back is None:
        await house.settled()
    else:
        await asyncio.sleep(0)
        assert house.hub.live == 1
        await house.hub.cancel(opener.stream_id)


async def test_list(log: FilteringBoundLogger) -> None:
    """A principal has a list of its own streams. Callers without credentials and those with a ticket have none."""
    house = House(log, (Delta("a"),), DONE)
    before = time.time_ns() // 1000
    request = StreamRequest("m", (), metadata='{"a":"b"}')
    stream_id = await house.hub.open(request, Principal("ann"))
    anonymous = await house.hub.open(request)
    [listed] = (await house.hub.streams_of(Principal("ann"), 10)).streams
    assert (listed.stream_id, listed.info.model, listed.info.metadata) == (stream_id, "m", '{"a":"b"}')
    assert before <= listed.info.created <= time.time_ns() // 1000
    for other in (Principal("bob"), ANYONE, Principal("ann", stream_id=stream_id), Principal("", stream_id=anonymous)):
        assert await house.hub.streams_of(other, 10) == ([], None)
    await house.hub.drain(0)
