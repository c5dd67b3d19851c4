"""Copies of other processes' logs: they are whole whatever message is lost, and they outlive their producer."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from structlog.testing import LogCapture

from app.errors import JournalLost, ProducerLost, UnknownStream
from app.events import Delta, Failure
from app.journal.encoding import encode
from app.journal.memory import MemoryLog
from app.journal.redis import keys, messages
from app.journal.redis.entries import HEADER, Tail
from app.journal.redis.messages import Positions
from app.journal.redis.replicas import Replica
from app.journal.redis.writer import RedisWriter
from app.request import StreamInfo
from tests.journal.processes import (
    DONE,
    FAST,
    INFO,
    SELDOM,
    Machine,
    acked,
    ending,
    entries,
    opened,
    read,
    text,
)
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.real]


async def test_read_elsewhere(machine: Machine) -> None:
    """A stream is read in other processes from any position, while it is written and afterwards, each record once."""
    a, b, c = [await machine.start() for _ in "abc"]
    writer = await a.journal.create("s", INFO)
    writer.append([Delta("0 "), Delta("1 ")])
    await acked(writer, 2)
    readers = [asyncio.create_task(opened(each.journal, after=after)) for each in (b, c) for after in (0, 1, 2)]
    for number in range(2, 200):
        writer.append([Delta(f"{number} ")])
        await asyncio.sleep(0)
    writer.append([DONE])
    whole = "".join(f"{number} " for number in range(200))
    answers = [text(events) for events in await asyncio.gather(*readers)]
    assert answers == [whole, whole[2:], whole[4:]] * 2
    assert text(await opened(c.journal)) == whole
    assert (await c.journal.open("s")).info == INFO


@pytest.mark.parametrize("info", [StreamInfo("none"), StreamInfo("size:7,80ms", "ann", 1 << 40, "a label")])
async def test_info_elsewhere(machine: Machine, info: StreamInfo) -> None:
    """What a stream was created with is known to every process."""
    a, b = [await machine.start() for _ in "ab"]
    await a.journal.create("s", info)
    assert (await b.journal.open("s")).info == info


async def test_a_log_of_the_first_builds(machine: Machine, redis: Redis) -> None:
    """A log whose header has its owner's plain name is refused as one that cannot be read."""
    a, b = [await machine.start() for _ in "ab"]
    header: dict[Any, Any] = {**(await a.journal.create("s", INFO)).header}
    header[b"owner"] = header.pop(b"account")
    redis.delete(keys.log("s"))
    redis.xadd(keys.log("s"), header, id=HEADER)
    with pytest.raises(JournalLost):
        await b.journal.open("s")


async def test_a_lost_message_heals(machine: Machine, redis: Redis) -> None:
    """Records whose message was lost with a connection are fetched: no reader sees a gap or waits long."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    reader = asyncio.create_task(opened(b.journal))
    for number in range(5):
        writer.append([Delta(f"{number}")])
        await acked(writer, number + 1)
        redis.client_kill_filter(_type="pubsub")
    writer.append([Delta("5"), DONE])
    assert text(await reader) == "012345"


async def test_a_gap_is_seen(machine: Machine) -> None:
    """A message that is missing shows by the next one's number, and the log itself is asked."""
    a, b = [await machine.start(timing=SELDOM) for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    reader = asyncio.create_task(opened(b.journal))
    await until(lambda: a.owner.readers.get("s") == 1)
    followers = {**writer.followers}
    writer.followers.clear()
    writer.append([Delta("lost ")])
    await acked(writer, 1)
    writer.followers.update(followers)
    writer.append([Delta("told")])
    log = await b.journal.open("s")
    await until(lambda: log.last == 2)
    writer.append([DONE])
    assert text(await reader) == "lost told"


async def test_a_lost_end_heals(machine: Machine) -> None:
    """If the last message of a stream is lost, the next renewal brings the end."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    reader = asyncio.create_task(opened(b.journal))
    await until(lambda: a.owner.readers.get("s") == 1)
    writer.followers.clear()
    writer.append([Delta("x"), DONE])
    assert text(await reader) == "x"


async def test_a_reader_comes_as_the_last_leaves(machine: Machine) -> None:
    """A reader that opened a stream before its replica was dropped, and reads only afterwards, reads on live."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    log = await b.journal.open("s")
    first = asyncio.create_task(read(log))
    await until(lambda: a.owner.readers.get("s") == 1)
    first.cancel()
    await until(lambda: not b.journal._replicas.followed and len(b.journal) == 0)
    second = asyncio.create_task(read(log))
    await until(lambda: a.owner.readers.get("s") == 1)
    third = asyncio.create_task(opened(b.journal))
    writer.append([Delta("x"), DONE])
    assert text(await second) == text(await third) == "x"
    assert b.journal.size == log.size


async def test_one_replica(machine: Machine) -> None:
    """A replica that was dropped, and is still held, is the only one: all that open the stream get it."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    held = await b.journal.open("s")
    await until(lambda: not b.journal._replicas.followed)
    assert await b.journal.open("s") is held
    reader = asyncio.create_task(opened(b.journal))
    await until(lambda: a.owner.readers.get("s") == 1)
    writer.append([Delta("x"), DONE])
    assert text(await reader) == text(await read(held)) == "x"


async def test_a_log_with_a_gap(machine: Machine, redis: Redis) -> None:
    """A log that lacks records is never shown as if it did not."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    for number in range(3):
        writer.append([Delta(f"{number}")])
        await acked(writer, number + 1)
    redis.xdel(keys.log("s"), "2-0")
    with pytest.raises(JournalLost):
        await b.journal.open("s")
    redis.xadd(keys.log("s"), {"e": b"[[]]"}, id="9-0")
    with pytest.raises(JournalLost):
        await b.journal.open("s")
    assert (len(b.journal), b.journal.size) == (0, 0)


@pytest.mark.parametrize(
    ("damage", "held"), [("gap", False), ("garbage", False), ("gap", True), ("garbage", True), ("early end", True)]
)
async def test_whose_a_lost_log_is(machine: Machine, redis: Redis, damage: str, held: bool) -> None:
    """Of a log that lacks records it is known whose it is: to others there is no such stream."""
    a, b = [await machine.start(timing=SELDOM) for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    writer.append([Delta("0"), Delta("1")])
    await acked(writer, 2)
    replica = await b.journal.open("s") if held else None  # for a request that has not begun to read
    for _ in range(2):
        b.journal._replicas.drop_unread()
    match damage:
        case "gap":
            redis.xadd(keys.log("s"), {"e": encode([Delta("x")])}, id="9-0")
        case "garbage":
            redis.xadd(keys.log("s"), {"e": b"[[]]"}, id="3-0")
        case "early end":
            header = entries(redis)[0][1]
            redis.delete(keys.log("s"))
            redis.xadd(keys.log("s"), header, id=HEADER)
            redis.xadd(keys.log("s"), {"e": encode([Failure.of(ProducerLost())])}, id="1-0")
    with pytest.raises(JournalLost) as lost:
        await b.journal.open("s")
    assert lost.value.info == INFO
    assert replica is None or replica.last == 2


async def test_an_expired_log_of_a_living_producer(machine: Machine, redis: Redis) -> None:
    """A reader that missed the end of a stream which is kept no longer is told so, and does not wait for ever."""
    a, b = [await machine.start(timing=SELDOM) for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    reader = asyncio.create_task(opened(b.journal))
    await until(lambda: a.owner.readers.get("s") == 1)
    writer.followers.clear()
    writer.append([Delta("x"), DONE])
    await acked(writer, 2)
    redis.delete(keys.log("s"))
    a.journal._outbox.tell(b.journal._process, messages.pack(Positions({"s": -1})))
    assert ending(await reader) == "journal_lost"


async def test_a_herd(machine: Machine, redis: Redis) -> None:
    """Many readers of many streams, at once and one after another, cost one load for each stream."""
    patient = replace(FAST, pipeline=5.0)  # a busy machine may be slow to answer so many
    a, b = [await machine.start(ended=200, timing=patient) for _ in "ab"]
    writers = [await a.journal.create(f"s{number}", INFO) for number in range(150)]
    for writer in writers:
        writer.append([Delta("x" * 100), DONE])
    await until(lambda: not a.journal._committer._live)
    redis.config_resetstat()
    answers = await asyncio.gather(*[opened(b.journal, f"s{number % 150}") for number in range(600)])
    answers += [await opened(b.journal, "s0") for _ in range(50)]
    assert answers == [[Delta("x" * 100), DONE]] * 650
    assert int(redis.info("commandstats")["cmdstat_xrange"]["calls"]) == 150
    assert b.journal.size == sum(log.size for log in b.journal._memory._logs.values()) > 0
    assert not b.journal._connection.away
    assert int(redis.info("clients")["connected_clients"]) < 40


async def test_a_removal_during_a_load(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that comes first does not get a stream that is removed meanwhile, and nothing of it stays counted."""
    a, b = await machine.start(), await machine.start()
    writer = await a.journal.create("s", INFO)
    writer.append([DONE])
    await acked(writer, 1)
    adopt = b.journal._memory.adopt

    def adopt_and_drop(log: MemoryLog) -> None:
        adopt(log)
        b.journal._memory.drop(log)

    monkeypatch.setattr(b.journal._memory, "adopt", adopt_and_drop)
    with pytest.raises(UnknownStream):
        await b.journal.open("s")
    assert b.journal.size == 0


async def test_unknown_after_a_delete(machine: Machine, redis: Redis) -> None:
    """A key that is not a log of ours, or has no beginning, is an unknown stream."""
    a = await machine.start()
    redis.xadd(keys.log("s"), {"e": encode([DONE])}, id="1-0")
    with pytest.raises(UnknownStream):
        await a.journal.open("s")


async def test_a_slow_reader_elsewhere(machine: Machine) -> None:
    """A reader that is behind holds no other up, and misses nothing though its stream was dropped from memory."""
    a, b = [await machine.start(ended=0) for _ in "ab"]
    writer: RedisWriter = await a.journal.create("s", INFO)
    writer.append([Delta("0")])
    log = await b.journal.open("s")
    async with aclosing(log.read()) as cursor:
        await until(lambda: log.last == 1)
        assert (await anext(cursor)).events == [Delta("0")]
        for number in range(1, 50):
            writer.append([Delta(f"{number}")])
        writer.append([DONE])
        await until(lambda: log.ended)
        rest = [event async for batch in cursor for event in batch.events]
    assert rest == [*[Delta(f"{number}") for number in range(1, 50)], DONE]
    assert b.journal.size == 0


async def test_a_dead_producer(machine: Machine, redis: Redis, logs: LogCapture) -> None:
    """A dead process's streams end for all readers with `producer_lost`, once, at the same number; ended ones stay."""
    a, b, c = [await machine.start(seconds=60) for _ in "abc"]
    (await a.journal.create("whole", INFO)).append([Delta("x"), DONE])
    writer = await a.journal.create("s", INFO)
    writer.append([Delta("0"), Delta("1")])
    await acked(writer, 2)
    readers = [asyncio.create_task(opened(each.journal)) for each in (b, b, c)]
    await until(lambda: a.owner.readers.get("s") == 2)
    await a.pause()
    answers = await asyncio.gather(*readers)
    assert [(text(events), ending(events)) for events in answers] == [("01", "producer_lost")] * 3
    assert [entry for entry, _ in entries(redis)] == [b"0-1", b"1-0", b"3-0"]
    assert 0 < redis.ttl(keys.log("s")) <= 60
    assert len([entry for entry in logs.entries if entry["event"] == "stream.producer_lost"]) == 1
    assert ending(await opened(b.journal, "whole")) == "done"


async def test_an_end_that_comes_too_late(machine: Machine, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who would end a stream that has gone on, because its producer lives, reads on instead; its log keeps its time."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    reader = asyncio.create_task(opened(b.journal))
    await until(lambda: a.owner.readers.get("s") == 1)
    [replica] = b.journal._replicas.followed
    catch_up = b.journal._replicas._catch_up

    async def slow(replica: Replica) -> Tail | None:
        tail = await catch_up(replica)
        writer.followers.clear()
        writer.append([Delta("alive")])
        await acked(writer, 1)
        return tail

    with monkeypatch.context() as late:
        late.setattr(b.journal._replicas, "_catch_up", slow)
        await b.journal._replicas._end_orphan(replica)
    assert redis.ttl(keys.log("s")) > 3000
    writer.append([DONE])
    assert text(await reader) == "alive"


async def test_a_dead_producer_whose_log_is_gone(machine: Machine, redis: Redis) -> None:
    """If both the producer and what Redis kept are gone, the processes that read the stream write it again."""
    a, b, c = [await machine.start() for _ in "abc"]
    writer = await a.journal.create("s", INFO)
    writer.append([Delta("x")])
    readers = [asyncio.create_task(opened(each.journal)) for each in (b, c)]
    await until(lambda: all(any(replica.last for replica in each.journal._replicas.followed) for each in (b, c)))
    await a.pause()
    redis.delete(keys.log("s"))
    for events in await asyncio.gather(*readers):
        assert (text(events), ending(events)) == ("x", "producer_lost")
    assert 0 < redis.ttl(keys.log("s")) <= 60
    fresh = await machine.start()
    assert await opened(fresh.journal) == await opened(b.journal)
    assert (await fresh.journal.open("s")).info == INFO


async def test_a_dead_producer_whose_log_lost_records(machine: Machine, redis: Redis) -> None:
    """If Redis came back with less than a dead producer's readers have, their processes write the rest again."""
    a, b, c = [await machine.start() for _ in "abc"]
    writer = await a.journal.create("s", INFO)
    for number in range(3):
        writer.append([Delta(f"{number}")])
        await acked(writer, number + 1)
    readers = [asyncio.create_task(opened(each.journal)) for each in (b, c)]
    await until(lambda: all(any(replica.last == 3 for replica in each.journal._replicas.followed) for each in (b, c)))
    await a.pause()
    kept = entries(redis)[:-1]
    with redis.pipeline() as transaction:  # Redis refuses a deleted entry's number, so the log is written again
        transaction.delete(keys.log("s"))
        for entry_id, fields in kept:
            transaction.xadd(keys.log("s"), fields, id=entry_id)
        transaction.execute()
    for events in await asyncio.gather(*readers):
        assert (text(events), ending(events)) == ("012", "producer_lost")
    fresh = await machine.start()
    assert text(await opened(fresh.journal)) == "012"
    writer.append([Delta("too late")])
    redis.client_kill_filter(_type="normal", skipme=True)  # as Redis' own restart does
    await until(lambda: a.owner.stopped)
    assert len(entries(redis)) == 4


async def test_two_ends_that_disagree(machine: Machine, redis: Redis) -> None:
    """A reader that has more of a lost stream than another process ended learns that records are missing."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    for number in range(3):
        writer.append([Delta(f"{number}")])
        await acked(writer, number + 1)
    reader = asyncio.create_task(opened(b.journal))
    await until(lambda: any(replica.last == 3 for replica in b.journal._replicas.followed))
    await a.pause()
    redis.delete(keys.log("s"))
    redis.xadd(keys.log("s"), {"process": "p", "chunk": "none", "owner": ""}, id="0-1")
    redis.xadd(keys.log("s"), {"e": encode([Delta("0"), Failure.of(ProducerLost())])}, id="1-0")
    events = await reader
    assert (text(events), ending(events)) == ("012", "journal_lost")


async def test_live_elsewhere(machine: Machine, redis: Redis) -> None:
    """Whether a stream is live is known to every process, which does not copy its log for that."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    assert await b.journal.live("s") == INFO
    writer.append([Delta("x")])
    await acked(writer, 1)
    assert await b.journal.live("s") == INFO
    writer.append([DONE])
    await acked(writer, 2)
    assert await b.journal.live("s") is None
    assert await b.journal.live("unknown") is None
    redis.xadd(keys.log("foreign"), {"a": "b"}, id="0-1")
    assert await b.journal.live("foreign") is None
    assert len(b.journal) == 0
