"""Streams of other processes: read, counted, stopped, and ended when their producer has died. On a real Redis."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from redis import Redis
from structlog.testing import LogCapture

from app.events import Delta
from app.journal.redis import keys
from app.journal.redis.client import Command
from app.journal.redis.messages import Cancel, Message
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
    reading,
    text,
)
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.real]


async def test_presence(machine: Machine) -> None:
    """The producer counts each process that has readers once, from its first reader to its last."""
    a, b, c = [await machine.start() for _ in "abc"]
    await a.journal.create("s", INFO)
    readers = [asyncio.create_task(opened(each.journal)) for each in (b, b, c)]
    await until(lambda: a.owner.readers.get("s") == 2)
    for reader, left in zip(readers, (2, 1, 0), strict=True):
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader
        await until(lambda expected=left: a.owner.readers["s"] == expected)  # type: ignore[misc]  # mypy infers no default of a lambda
    again = asyncio.create_task(opened(b.journal))
    await until(lambda: a.owner.readers["s"] == 1)
    again.cancel()
    await until(lambda: a.owner.readers["s"] == 0)


async def test_opening_is_not_reading(machine: Machine) -> None:
    """A process that opens a stream, and looks at its records, does not count as a reader of it."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    writer.append([Delta("x")])
    await acked(writer, 1)
    log = await b.journal.open("s")
    await until(lambda: writer.followers)
    assert log.last == 1
    assert a.owner.readers.get("s", 0) == 0
    await until(lambda: not writer.followers)  # and it is forgotten


async def test_lost_presence_heals(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a producer could not hear of readers is told again: that they came, and that they left."""
    a, b = [await machine.start() for _ in "ab"]
    await a.journal.create("s", INFO)
    log = await b.journal.open("s")
    with monkeypatch.context() as deaf:
        deaf.setattr(a.journal._peers, "_take", lambda body: None)
        reader = asyncio.create_task(read(log))
        await asyncio.sleep(2 * FAST.renewal)
        assert a.owner.readers.get("s", 0) == 0
    await until(lambda: a.owner.readers.get("s") == 1)
    with monkeypatch.context() as deaf:
        deaf.setattr(a.journal._peers, "_take", lambda body: None)
        reader.cancel()
        await until(lambda: not b.journal._replicas.followed)
    await until(lambda: a.owner.readers["s"] == 0)


async def test_a_dead_process_reads_nothing(machine: Machine) -> None:
    """The readers of a process that died are counted out."""
    a, b = [await machine.start() for _ in "ab"]
    await a.journal.create("s", INFO)
    reader = asyncio.create_task(opened(b.journal))
    await until(lambda: a.owner.readers.get("s") == 1)
    await b.pause()
    await until(lambda: a.owner.readers["s"] == 0)
    reader.cancel()


async def test_readers_that_are_sent_away(machine: Machine) -> None:
    """Readers that leave a process that drains are on their way to another one: their producer is not told."""
    a, b = [await machine.start(timing=SELDOM) for _ in "ab"]
    await a.journal.create("s", INFO)
    reader = asyncio.create_task(opened(b.journal))
    await until(lambda: a.owner.readers.get("s") == 1)
    b.journal.drain()
    reader.cancel()
    await asyncio.wait([reader])
    b.journal.stop("s")  # messages come in their order
    await until(lambda: a.owner.stopped)
    assert a.owner.readers["s"] == 1


async def test_remote_stop(machine: Machine) -> None:
    """A stream is stopped from any process that has opened it."""
    a, b = [await machine.start() for _ in "ab"]
    await a.journal.create("s", INFO)
    await b.journal.open("s")
    b.journal.stop("s")
    await until(lambda: a.owner.stopped)
    assert a.owner.stopped == [("s", None)]


async def test_a_stream_that_is_being_created(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other processes tell before the owner knows a stream, of readers and of a stop, reaches it once it does."""
    a, b = [await machine.start() for _ in "ab"]
    named, go = asyncio.Event(), asyncio.Event()
    heard: list[Message] = []
    request, handle = a.journal._connection.request, a.journal._peers._handle

    async def slow(*commands: Command) -> list[Any]:
        replies = await request(*commands)
        if any(keys.label("ann", "l") in command for command in commands):
            named.set()
            await go.wait()
        return replies

    def noting(message: Message) -> None:
        heard.append(message)
        handle(message)

    monkeypatch.setattr(a.journal._connection, "request", slow)
    monkeypatch.setattr(a.journal._peers, "_handle", noting)
    creating = asyncio.create_task(a.journal.create("s", StreamInfo("none", "ann", 0, "l")))
    await named.wait()
    reader = await reading(b.journal)
    b.journal.stop("s")
    await until(lambda: Cancel("s") in heard)
    a.owner.stopped.clear()  # it did not know the stream
    assert a.owner.readers == {}
    go.set()
    writer = await creating
    await until(lambda: a.owner.readers.get("s") == 1)
    await until(lambda: ("s", None) in a.owner.stopped)
    writer.append([DONE])
    assert await reader == [DONE]


async def test_garbage_in_the_inbox(machine: Machine, redis: Redis, logs: LogCapture) -> None:
    """What a process of another version may say is logged, and harms no stream."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    reader = asyncio.create_task(opened(b.journal))
    await until(lambda: a.owner.readers.get("s") == 1)
    for garbage in (
        b"",
        b"x",
        b"\xff \xff",
        b"[]",
        b"{}",
        b"[0]",
        b'[1,["?"]]',
        b'[1,["records","s","x",[]]]',
        b'[1,["records","s",1,[["?"]]]]',
        b'[1,["positions",{"s":"x"}]]',
        b'[1,["following","a"]]',
        b'[1,["following",1,{}]]',
    ):
        redis.publish(keys.inbox(b.journal._process), garbage)
    writer.append([Delta("x"), DONE])
    assert text(await reader) == "x"
    assert {entry["event"] for entry in logs.entries} == {"peer.garbled"}


async def test_flat_in_readers(machine: Machine, redis: Redis) -> None:
    """A record costs Redis one command, and one more for each process that has readers, be they few or many."""
    a, b = [await machine.start(timing=SELDOM) for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    log = await b.journal.open("s")
    logs = await asyncio.gather(*[b.journal.open("s") for _ in range(200)])
    readers = [asyncio.create_task(read(each)) for each in logs]
    await until(lambda: a.owner.readers.get("s") == 1)
    writer.append([Delta("x")])
    await until(lambda: log.last == 1)
    redis.config_resetstat()
    for number in range(20):
        writer.append([Delta(f"{number}")])
        await until(lambda expected=number + 2: log.last == expected)  # type: ignore[misc]  # mypy infers no default of a lambda
    stats = redis.info("commandstats")
    assert {name for name in stats if name not in ("cmdstat_info", "cmdstat_config|resetstat")} == {
        "cmdstat_xadd",
        "cmdstat_publish",
    }
    assert [stats[name]["calls"] for name in ("cmdstat_xadd", "cmdstat_publish")] == [20, 20]
    for reader in readers:
        reader.cancel()


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


async def test_no_process_is_gone_because_redis_forgot(machine: Machine, redis: Redis) -> None:
    """When Redis has forgotten all leases, each process has the time to renew before it counts as gone."""
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
