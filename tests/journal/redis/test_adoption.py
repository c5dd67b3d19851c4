"""A process goes on with the stream of another one that is gone: one log, by several writers. On a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.errors import Overloaded
from app.events import Delta
from app.journal.encoding import encode
from app.journal.redis import keys, notes
from app.journal.redis.entries import HEADER
from app.journal.redis.writer import RedisWriter
from app.request import StreamInfo
from tests.journal.processes import (
    DONE,
    FAST,
    INFO,
    Machine,
    Process,
    acked,
    ending,
    entries,
    opened,
    read,
    reading,
    text,
)
from tests.real.redis import RedisServer
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.real]

NOTE = '{"what": "the owner needs"}'
# A busy machine may be slow to answer: that is not what is tested here.
PATIENT = replace(FAST, pipeline=5.0, lease=2.0)


@pytest.fixture
async def machine(redis: Redis, server: RedisServer, log: FilteringBoundLogger) -> AsyncIterator[Machine]:
    async with AsyncExitStack() as held:
        yield Machine(server.url, log, held, PATIENT)


async def noted(process: Process, info: StreamInfo = INFO) -> RedisWriter:
    """Begin a stream with two records and a note."""
    writer = await process.journal.create("s", info)
    writer.append([Delta("0")])
    await acked(writer, 1)
    writer.note(NOTE)
    writer.append([Delta("1")])
    await acked(writer, 2)
    return writer


async def adopter(*processes: Process) -> tuple[Process, Any]:
    """Wait until one of the *processes* has adopted the stream, and return it, and its writer."""
    await until(lambda: any(each.owner.orphans for each in processes))
    [found] = [each for each in processes if each.owner.orphans]
    return found, found.owner.orphans[-1].writer


def ids(redis: Redis) -> list[bytes]:
    return [entry_id for entry_id, _ in entries(redis)]


def dump(redis: Redis) -> dict[bytes, Any]:
    """Return what Redis has of the stream now."""
    return {key: redis.dump(key) for key in (keys.log("s"), keys.note("s"))}


def restore(redis: Redis, dumped: dict[bytes, Any]) -> None:
    """Have Redis lose what it was given since."""
    for key, value in dumped.items():
        redis.delete(key)
        redis.restore(key, 3_600_000, value)


async def test_one_whole_answer(machine: Machine, redis: Redis, logs: LogCapture) -> None:
    """The readers of a dead process's stream read on what the adopter writes; what belongs to it goes with it."""
    a, b, c = [await machine.start() for _ in "abc"]
    info = StreamInfo("none", "ann", 3, "l")
    assert await a.journal.registry.claim("ann", "k", b"1", "s") is None
    await noted(a, info)
    readers = [await reading(each.journal) for each in (b, b, c)]
    await a.pause()
    adopting, writer = await adopter(b, c)
    [orphan] = adopting.owner.orphans
    assert (orphan.stream_id, orphan.log.last, orphan.log.info, orphan.note) == ("s", 2, info, NOTE)
    await until(lambda: adopting.owner.readers.get("s") == 2)  # its own readers, and those of the other process
    assert await c.journal.registry.keyed("ann", "k") == await c.journal.registry.labelled("ann", "l") == "s"
    writer.append([Delta("2")])
    writer.append([Delta("3"), DONE])
    assert [text(events) for events in await asyncio.gather(*readers)] == ["0123"] * 3
    assert ids(redis)[:4] == [HEADER, b"1-0", b"2-0", b"3-1"]
    assert {entry_id.partition(b"-")[2] for entry_id in ids(redis)[4:]} == {b"2"}
    await until(lambda: not redis.exists(keys.note("s")))
    await until(lambda: not redis.exists(keys.label("ann", "l")))
    assert 0 < redis.ttl(keys.log("s")) <= 60
    assert 0 < redis.ttl(keys.claim("ann", "k")) <= 60
    assert not [entry for entry in logs.entries if entry["event"] == "stream.producer_lost"]
    fresh = await machine.start()
    assert text(await opened(fresh.journal)) == "0123"


async def test_without_a_reader(machine: Machine, redis: Redis) -> None:
    """A stream that has no reader when its process dies is adopted, too, and the lists in Redis are empty then."""
    a, b = [await machine.start() for _ in "ab"]
    await noted(a)
    await a.pause()
    redis.sadd(keys.noted(a.journal._process), "gone")  # it was removed, or is not kept any more
    adopting, writer = await adopter(b)
    assert redis.smembers(keys.noted(b.journal._process)) == {b"s"}
    assert adopting.owner.readers == {}
    await until(lambda: redis.zrange(keys.processes(), 0, -1) == [b.journal._process.encode()])
    writer.append([DONE])
    assert text(await opened(b.journal)) == "01"
    await until(lambda: not redis.keys("chat-sse:noted:*"))


async def test_no_room_at_first(machine: Machine, logs: LogCapture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without a reader is adopted once there is room for it in a process."""
    a, b = [await machine.start() for _ in "ab"]
    await noted(a)

    async def full(stream_id: str) -> None:
        raise Overloaded

    with monkeypatch.context() as crowded:
        crowded.setattr(b.journal._peers, "_find", full)
        await a.pause()
        await until(lambda: sum(entry["event"] == "peer.gone" for entry in logs.entries) >= 2)
    await adopter(b)


async def test_who_is_on_the_list(machine: Machine, redis: Redis) -> None:
    """A process that ends takes itself off the list of processes, unless it leaves streams that others can adopt."""
    a, b, c = [await machine.start() for _ in "abc"]
    await noted(b)
    await until(lambda: redis.zcard(keys.processes()) == 3)
    for each in (a, b):
        await each.held.aclose()
    assert not redis.exists(a.lease, b.lease)
    assert redis.zscore(keys.processes(), a.journal._process) is None
    await adopter(c)


async def test_lists_that_are_something_else(machine: Machine, redis: Redis, logs: LogCapture) -> None:
    """Something else at the keys of the lists stops nothing: what has a reader is adopted."""
    a, b = [await machine.start() for _ in "ab"]
    redis.set(keys.processes(), "x")
    for each in (a, b):
        redis.set(keys.noted(each.journal._process), "x")
    await noted(a)
    reader = await reading(b.journal)
    await a.pause()
    _, writer = await adopter(b)
    writer.append([DONE])
    assert text(await reader) == "01"
    assert not [entry for entry in logs.entries if entry["event"] == "journal.away"]


async def test_the_first_reader_comes_later(machine: Machine, redis: Redis) -> None:
    """A stream without a reader that is on no list is adopted once a reader comes."""
    a, b = [await machine.start() for _ in "ab"]
    await noted(a)
    redis.delete(keys.noted(a.journal._process))
    await a.pause()
    await until(lambda: redis.zrange(keys.processes(), 0, -1) == [b.journal._process.encode()])
    reader = await reading(b.journal)
    _, writer = await adopter(b)
    writer.append([DONE])
    assert text(await reader) == "01"
    assert b.owner.readers == {"s": 1}


@pytest.mark.parametrize("writes", [True, False])
async def test_a_producer_that_wakes_up(machine: Machine, redis: Redis, logs: LogCapture, writes: bool) -> None:
    """A producer that was taken for dead leaves the stream: it writes nothing, and its own readers read on."""
    a, b = [await machine.start() for _ in "ab"]
    assert await a.journal.registry.claim("ann", "k", b"1", "s") is None
    old = await noted(a, StreamInfo("none", "ann", 3, "l"))
    here, there = await reading(a.journal), await reading(b.journal)
    await until(lambda: a.owner.readers.get("s") == 1)
    await a.pause()
    _, writer = await adopter(b)
    written = ids(redis)
    awake = [asyncio.create_task(loop()) for loop in (a.journal._peers.renew_lease, a.journal._peers.listen)]
    if writes:
        old.append([Delta("not this"), DONE])  # it had the rest of the answer, too
    await until(lambda: a.owner.left == ["s"])
    old.append([DONE])
    await old.drain()
    assert a.owner.stopped == []
    assert ids(redis) == written
    assert min(redis.ttl(key) for key in (keys.log("s"), keys.note("s"), keys.claim("ann", "k"))) > 3000
    assert redis.get(keys.label("ann", "l")) == b"s"
    await until(lambda: b.owner.readers.get("s") == 2)
    writer.append([Delta("2"), DONE])
    assert [text(events) for events in await asyncio.gather(here, there)] == ["012", "012"]
    assert [entry["stream_id"] for entry in logs.entries if entry["event"] == "journal.fenced"] == ["s"]
    for task in awake:
        task.cancel()


async def test_two_adopters(machine: Machine, redis: Redis) -> None:
    """Of many processes that could adopt a stream, one does, and the others follow it."""
    a, *others = [await machine.start() for _ in "abcd"]
    await noted(a)
    readers = [await reading(each.journal) for each in others]
    await a.pause()
    adopting, writer = await adopter(*others)
    await until(lambda: adopting.owner.readers.get("s") == 3)
    writer.append([Delta("2"), DONE])
    assert [text(events) for events in await asyncio.gather(*readers)] == ["012"] * 3
    assert sum(len(each.owner.orphans) for each in others) == 1
    assert ids(redis)[3:] == [b"3-1", b"3-2"]


async def test_a_late_word_of_the_former_producer(machine: Machine) -> None:
    """That the former producer has left the stream is no reason to claim it from the process that adopted it."""
    a, b, c = [await machine.start() for _ in "abc"]
    await noted(a)
    readers = [await reading(each.journal) for each in (b, c)]
    await a.pause()
    adopting, writer = await adopter(b, c)
    other = c if adopting is b else b
    await until(lambda: adopting.owner.readers.get("s") == 2)
    await until(lambda: not other.journal._replicas.checks)
    other.journal._replicas.on_position("s", -1)
    await until(lambda: not other.journal._replicas.checks)
    assert (adopting.owner.left, other.owner.orphans) == ([], [])
    writer.append([DONE])
    assert [text(events) for events in await asyncio.gather(*readers)] == ["01", "01"]


@pytest.mark.parametrize("wrote", [True, False])
async def test_an_adopter_that_dies(machine: Machine, redis: Redis, wrote: bool) -> None:
    """A stream is adopted as often as its process dies, whether or not that one has written anything."""
    a, b = [await machine.start() for _ in "ab"]
    await noted(a)
    (await reading(b.journal)).add_done_callback(lambda _: None)
    await a.pause()
    _, second = await adopter(b)
    if wrote:
        second.append([Delta("2")])
        await acked(second, 3)
    c = await machine.start()
    reader = await reading(c.journal)
    await b.pause()
    _, third = await adopter(c)
    assert c.owner.orphans[0].note == NOTE
    second.append([Delta("too late")])
    await until(lambda: b.owner.left == ["s"])
    third.append([Delta("3"), DONE])
    assert text(await reader) == ("0123" if wrote else "013")
    own = [entry_id for entry_id in ids(redis)[3:] if int(entry_id[2:]) % 2 == 0]
    assert [entry_id[:1] for entry_id in own] == ([b"3", b"4"] if wrote else [b"3"])


async def test_redis_lost_all(machine: Machine, redis: Redis) -> None:
    """What Redis has lost of an adopted stream is written again, with who produces it now."""
    a, b = [await machine.start() for _ in "ab"]
    await noted(a)
    reader = await reading(b.journal)
    await a.pause()
    _, writer = await adopter(b)
    writer.append([Delta("2")])
    await acked(writer, 3)
    redis.flushall()
    await until(lambda: redis.exists(keys.note("s")))
    c = await machine.start()
    other = await reading(c.journal)
    await until(lambda: b.owner.readers.get("s") == 2)
    writer.append([Delta("3"), DONE])
    assert [text(events) for events in await asyncio.gather(reader, other)] == ["0123", "0123"]


async def test_redis_lost_the_claim(machine: Machine, redis: Redis) -> None:
    """An adopter whose claim Redis has lost claims the stream again; its former producer stays out."""
    a, b = [await machine.start() for _ in "ab"]
    old = await noted(a)
    reader = await reading(b.journal)
    before = dump(redis)
    await a.pause()
    _, writer = await adopter(b)
    writer.append([Delta("2")])
    await acked(writer, 3)
    restore(redis, before)
    b.journal._committer.require_reconcile()  # as after every failure
    await until(lambda: ids(redis)[-2:] == [b"3-1", b"3-2"])
    old.append([Delta("too late")])
    await until(lambda: a.owner.left == ["s"])
    writer.append([Delta("3"), DONE])
    assert text(await reader) == "0123"
    awake = asyncio.create_task(a.journal._peers.listen())  # otherwise it may never hear of the last two
    assert text(await opened(a.journal)) == "0123"
    awake.cancel()


async def test_redis_lost_the_claim_and_has_other_records(machine: Machine, redis: Redis) -> None:
    """If the former producer has written on where Redis lost a claim, what the adopter's readers have is lost."""
    a, b = [await machine.start() for _ in "ab"]
    await noted(a)
    reader = await reading(b.journal)
    before = dump(redis)
    await a.pause()
    _, writer = await adopter(b)
    writer.append([Delta("2")])
    await acked(writer, 3)
    restore(redis, before)
    redis.xadd(keys.log("s"), {"e": encode([Delta("other"), Delta("records")])}, id="3-0")
    b.journal._committer.require_reconcile()
    events = await reader
    assert (text(events), ending(events)) == ("012", "journal_lost")
    assert (b.owner.left, b.owner.stopped) == (["s"], [])


async def test_redis_lost_the_note(machine: Machine, redis: Redis) -> None:
    """A note that Redis has lost is written again as its records are."""
    a, b = [await machine.start() for _ in "ab"]
    await noted(a)
    redis.delete(keys.note("s"))
    a.journal._committer.require_reconcile()
    await until(lambda: redis.exists(keys.note("s")))
    reader = await reading(b.journal)
    await a.pause()
    _, writer = await adopter(b)
    writer.append([DONE])
    assert text(await reader) == "01"


async def test_redis_has_fewer_records_than_the_adopter(machine: Machine, redis: Redis) -> None:
    """What Redis has lost of a dead process's stream is written again by the adopter, out of its copy."""
    a, b = [await machine.start() for _ in "ab"]
    old = await noted(a)
    reader = await reading(b.journal)
    await until(lambda: old.followers)
    before = dump(redis)
    old.append([Delta("2"), Delta("3")])
    log = await b.journal.open("s")
    await until(lambda: log.last == 4)
    await a.pause()
    restore(redis, before)
    _, writer = await adopter(b)
    await until(lambda: ids(redis)[3:] == [b"3-1", b"3-2"])
    writer.append([Delta("4"), DONE])
    assert text(await reader) == "01234"
    assert text(await opened((await machine.start()).journal)) == "01234"


async def test_a_draining_process_adopts_nothing(machine: Machine) -> None:
    """A process that is about to end leaves the streams of a dead one to the others."""
    a, b = [await machine.start() for _ in "ab"]
    await noted(a)
    (await reading(b.journal)).add_done_callback(lambda _: None)
    b.journal.drain()
    await a.pause()
    await until(lambda: a.journal._process in b.journal._peers._missing)
    c = await machine.start()
    reader = await reading(c.journal)
    _, writer = await adopter(c)
    assert not b.owner.orphans
    writer.append([DONE])
    assert text(await reader) == "01"


async def test_stopped_while_no_process_produces_it(machine: Machine) -> None:
    """A client's stop that comes while the producer is dead reaches the adopter, whichever process that is."""
    a, b, c = [await machine.start() for _ in "abc"]
    await noted(a)
    for each in (b, c):
        (await reading(each.journal)).add_done_callback(lambda _: None)
    await a.pause()
    b.journal.stop("s")
    adopting, _ = await adopter(b, c)
    await until(lambda: ("s", None) in adopting.owner.stopped)


async def test_a_claim_without_an_answer(machine: Machine, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does not know whether it has claimed a stream claims it again."""
    a, b = [await machine.start() for _ in "ab"]
    await noted(a)
    reader = await reading(b.journal)
    adoption = b.journal._replicas._adoption
    claim = adoption.claim
    lost = 0

    async def unanswered(*arguments: Any) -> Any:
        nonlocal lost
        found = await claim(*arguments)
        if not lost:
            lost += 1
            raise RedisConnectionError
        return found

    monkeypatch.setattr(adoption, "claim", unanswered)
    await a.pause()
    _, writer = await adopter(b)
    writer.append([DONE])
    assert text(await reader) == "01"
    assert ids(redis)[3:5] == [b"3-1", b"3-3"]


async def test_a_producer_that_is_alive_after_all(
    machine: Machine, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream is not claimed if its producer has written since it was looked at."""
    a, b = [await machine.start() for _ in "ab"]
    old = await noted(a)
    reader = await reading(b.journal)
    await until(lambda: old.followers)
    [replica] = b.journal._replicas.followed
    await a.pause()
    redis.delete(a.lease)
    note_of = b.journal._replicas._adoption.note_of

    async def slow(stream_id: str) -> notes.Note | None:
        old.append([Delta("alive")])
        await acked(old, 3)
        return await note_of(stream_id)

    with monkeypatch.context() as late:
        late.setattr(b.journal._replicas._adoption, "note_of", slow)
        await b.journal._replicas._end_orphan(replica)
    assert not b.owner.orphans
    old.append([DONE])
    assert text(await reader) == "01alive"
    assert a.owner.left == []


async def test_ended_while_it_is_claimed(machine: Machine, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose end comes just before the claim has that end, once."""
    a, b = [await machine.start() for _ in "ab"]
    old = await noted(a)
    reader = await reading(b.journal)
    await until(lambda: old.followers)
    [replica] = b.journal._replicas.followed
    await a.pause()
    redis.delete(a.lease)
    claim = b.journal._replicas._adoption.claim

    async def slow(*arguments: Any) -> Any:
        old.followers.clear()
        old.append([DONE])
        await acked(old, 3)
        return await claim(*arguments)

    monkeypatch.setattr(b.journal._replicas._adoption, "claim", slow)
    await b.journal._replicas._end_orphan(replica)
    assert ending(await reader) == "done"
    assert not b.owner.orphans


async def test_readers_come_and_go(machine: Machine) -> None:
    """The adopter's own readers count as those of one process, also those that were there before it adopted."""
    a, b = [await machine.start() for _ in "ab"]
    await noted(a)
    log = await b.journal.open("s")
    first, second = [asyncio.create_task(read(log)) for _ in range(2)]
    await a.pause()
    _, writer = await adopter(b)
    assert b.owner.readers == {"s": 1}
    for task in (first, second):
        task.cancel()
        await asyncio.wait([task])
    assert b.owner.readers == {"s": 0}
    third = await reading(b.journal)
    await until(lambda: b.owner.readers == {"s": 1})
    writer.append([DONE])
    assert text(await third) == "01"
