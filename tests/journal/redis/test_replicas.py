"""Producers that died, or were taken for dead: their streams end for all readers, once, and cannot be written again."""

from __future__ import annotations

import asyncio

import pytest
from redis import Redis
from structlog.testing import LogCapture

from app.errors import ProducerLost
from app.events import Delta, Failure
from app.journal.redis import keys
from app.journal.redis.entries import encode
from app.journal.redis.replicas import Replica
from tests.journal.processes import DONE, FAST, INFO, Machine, acked, ending, entries, opened, text
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.real]


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


async def test_a_paused_producer_is_fenced(machine: Machine, redis: Redis) -> None:
    """A producer that was taken for dead cannot write any more: its own readers get the end that others wrote."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    writer.append([Delta("x")])
    here = asyncio.create_task(opened(a.journal))
    there = asyncio.create_task(opened(b.journal))
    await until(lambda: a.owner.readers.get("s") == 1)
    await a.pause()
    assert ending(await there) == "producer_lost"
    written = entries(redis)
    writer.append([Delta("too late")])
    assert ending(await here) == "producer_lost"
    assert a.owner.stopped == [("s", "producer_lost")]
    writer.append([DONE])  # as the hub does at once
    await writer.drain()
    assert entries(redis) == written


async def test_a_silent_producer_that_was_paused(machine: Machine) -> None:
    """A producer that wakes up learns that its stream was ended, though it has nothing to write."""
    a, b = [await machine.start() for _ in "ab"]
    await a.journal.create("s", INFO)
    here = asyncio.create_task(opened(a.journal))
    there = asyncio.create_task(opened(b.journal))
    await until(lambda: a.owner.readers.get("s") == 1)
    await a.pause()
    assert ending(await there) == "producer_lost"
    awake = asyncio.create_task(a.journal._peers.renew_lease())
    assert ending(await here) == "producer_lost"
    assert a.owner.stopped == [("s", "producer_lost")]
    awake.cancel()


async def test_an_end_that_comes_too_late(machine: Machine, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who would end a stream that has gone on, because its producer lives, reads on instead; its log keeps its time."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    reader = asyncio.create_task(opened(b.journal))
    await until(lambda: a.owner.readers.get("s") == 1)
    copy = b.journal._replicas.get("s")
    assert copy is not None
    catch_up = b.journal._replicas._catch_up

    async def slow(replica: Replica) -> int | None:
        last = await catch_up(copy)
        writer.followers.clear()
        writer.append([Delta("alive")])
        await acked(writer, 1)
        return last

    with monkeypatch.context() as late:
        late.setattr(b.journal._replicas, "_catch_up", slow)
        await b.journal._replicas._end_orphan(copy)
    assert redis.ttl(keys.log("s")) > 3000
    writer.append([DONE])
    assert text(await reader) == "alive"


async def test_nobody_is_buried_for_redis_faults(machine: Machine, redis: Redis) -> None:
    """When Redis has forgotten all leases, everybody has the time to renew before he counts as gone."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    writer.append([Delta("x")])
    reader = asyncio.create_task(opened(b.journal))
    await until(lambda: a.owner.readers.get("s") == 1)
    await a.pause()
    redis.flushall()
    await asyncio.sleep(3 * FAST.renewal)  # longer than two beats, and shorter than a lease
    assert not reader.done()
    awake = asyncio.create_task(a.journal._peers.renew_lease())
    await until(lambda: len(entries(redis)) == 2)  # and its log is there again
    writer.append([DONE])
    assert text(await reader) == "x"
    awake.cancel()


async def test_a_dead_producer_whose_log_is_gone(machine: Machine, redis: Redis) -> None:
    """If both the producer and what Redis kept are gone, whoever reads the stream writes it again, and its end."""
    a, b, c = [await machine.start() for _ in "abc"]
    writer = await a.journal.create("s", INFO)
    writer.append([Delta("x")])
    readers = [asyncio.create_task(opened(each.journal)) for each in (b, c)]
    await until(lambda: all((copy := each.journal._replicas.get("s")) and copy.last for each in (b, c)))
    await a.pause()
    redis.delete(keys.log("s"))
    for events in await asyncio.gather(*readers):
        assert (text(events), ending(events)) == ("x", "producer_lost")
    assert 0 < redis.ttl(keys.log("s")) <= 60
    fresh = await machine.start()
    assert await opened(fresh.journal) == await opened(b.journal)
    assert (await fresh.journal.open("s")).info == INFO


async def test_a_dead_producer_whose_log_lost_records(machine: Machine, redis: Redis) -> None:
    """If Redis came back with less than readers have, and nobody else is left, they write the rest again."""
    a, b, c = [await machine.start() for _ in "abc"]
    writer = await a.journal.create("s", INFO)
    for number in range(3):
        writer.append([Delta(f"{number}")])
        await acked(writer, number + 1)
    readers = [asyncio.create_task(opened(each.journal)) for each in (b, c)]
    await until(lambda: all((copy := each.journal._replicas.get("s")) and copy.last == 3 for each in (b, c)))
    await a.pause()
    kept = entries(redis)[:-1]
    with redis.pipeline() as transaction:  # a deleted entry's number stays taken, so the log is written anew without it
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


async def test_buriers_disagree(machine: Machine, redis: Redis) -> None:
    """Whoever has more of a lost stream than the log that another has ended is told that records are missing."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    for number in range(3):
        writer.append([Delta(f"{number}")])
        await acked(writer, number + 1)
    reader = asyncio.create_task(opened(b.journal))
    await until(lambda: (copy := b.journal._replicas.get("s")) and copy.last == 3)
    await a.pause()
    redis.delete(keys.log("s"))
    redis.xadd(keys.log("s"), {"process": "p", "chunk": "none", "owner": ""}, id="0-1")
    redis.xadd(keys.log("s"), {"e": encode([Delta("0"), Failure.of(ProducerLost())])}, id="1-0")
    events = await reader
    assert (text(events), ending(events)) == ("012", "journal_lost")
