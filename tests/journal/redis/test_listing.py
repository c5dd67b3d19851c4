"""Each owner's index of streams in Redis; `test_journal_contract` lists them through one process's journal."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import Redis

from app.events import Delta
from app.journal import Listed
from app.journal.encoding import encode
from app.journal.redis import keys, listing, replicas
from app.journal.redis.client import Command
from app.request import StreamInfo
from tests.journal.processes import DONE, FAST, Machine, Process, acked, ending, opened
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.real]

KEY = keys.streams("ann")


def made(number: int, owner: str = "ann") -> StreamInfo:
    return StreamInfo("none", owner, model="m", created=1_750_000_000_000_000 + number, metadata='{"a":"b"}')


async def states(process: Process) -> dict[str, str]:
    found = await process.journal.streams_of("ann", 100)
    return {stream.stream_id: stream.state for stream in found.streams}


async def test_another_process_lists_it(machine: Machine) -> None:
    """A stream is listed by every process, live and then ended, though none of them has read it."""
    a, b = await machine.start(), await machine.start()
    writer = await a.journal.create("s", made(0))
    writer.append([Delta("x"), Delta("y")])
    await acked(writer, 2)
    assert (await b.journal.streams_of("ann", 1, live=True)).streams == [Listed("s", made(0), "live", 2)]
    writer.append([DONE])
    await acked(writer, 3)
    assert (await b.journal.streams_of("ann", 1)).streams == [Listed("s", made(0), "done", 3)]
    assert (await b.journal.streams_of("ann", 1, live=True)).streams == []
    assert len(b.journal) == 0  # no log was loaded for that


async def test_the_newest_are_kept(machine: Machine, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index of an owner has a bound, and goes when the owner opens no more streams."""
    monkeypatch.setattr(listing, "MOST", 3)
    a = await machine.start(seconds=60)
    for number in range(5):
        writer = await a.journal.create(f"s{number}", made(number))
        writer.append([DONE])
        await acked(writer, 1)
    assert redis.zrange(KEY, 0, -1) == [b"s2 done 1", b"s3 done 1", b"s4 done 1"]
    left: Any = redis.ttl(KEY)
    assert FAST.live < left <= FAST.live + 60
    assert ("EXPIRE", KEY, FAST.live + 60) not in a.journal._committer.renewals(1e9)
    await a.journal.create("live", made(9))
    assert ("EXPIRE", KEY, FAST.live + 60) in a.journal._committer.renewals(2e9)


async def test_what_is_gone_leaves_the_index(machine: Machine, redis: Redis) -> None:
    """A stream whose log is gone, or is not a log, is not listed; the index has it no more."""
    a, b = await machine.start(), await machine.start()
    for number, stream_id in enumerate(("gone", "other", "odd", "kept")):
        await a.journal.create(stream_id, made(number))
    redis.delete(keys.log("gone"), keys.log("other"), keys.log("odd"))
    redis.set(keys.log("other"), "x")
    redis.xadd(keys.log("odd"), {"x": "y"}, id="0-1")
    assert await states(b) == {"kept": "live"}
    assert redis.zrange(KEY, 0, -1) == [b"kept"]
    assert b.journal.ready


async def test_an_end_that_the_index_lacks(machine: Machine, redis: Redis) -> None:
    """What ended in Redis has ended, although its process did not come to say so in the index."""
    a, b = await machine.start(), await machine.start()
    await a.journal.create("s", made(0))
    redis.xadd(keys.log("s"), {"e": encode([Delta("x"), DONE])}, id="1-0")
    assert (await b.journal.streams_of("ann", 9)).streams == [Listed("s", made(0), "done", 2)]
    assert (await b.journal.streams_of("ann", 9, live=True)).streams == []


async def test_what_is_being_loaded(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that has ended is not live while a process reads its log, in parts, out of Redis."""
    monkeypatch.setattr(replicas, "MOST_ENTRIES", 1)
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", made(0))
    for number in range(2):
        writer.append([Delta("x")])
        await acked(writer, number + 1)
    writer.append([DONE])
    await acked(writer, 3)
    request = b.journal._connection.request
    parts = 0
    looked = asyncio.Event()

    async def slowly(*commands: Command) -> list[Any]:
        nonlocal parts
        if ("XRANGE", keys.log("s"), b"(1-0") in [command[:3] for command in commands]:
            parts += 1
            await looked.wait()
        return await request(*commands)

    monkeypatch.setattr(b.journal._connection, "request", slowly)
    loading = asyncio.create_task(opened(b.journal))
    await until(lambda: parts)
    assert (await b.journal.streams_of("ann", 9)).streams == [Listed("s", made(0), "done", 3)]
    assert (await b.journal.streams_of("ann", 9, live=True)).streams == []
    assert await b.journal.live("s") is None
    looked.set()
    assert await loading == [Delta("x"), Delta("x"), DONE]


async def test_a_producer_that_died(machine: Machine, redis: Redis) -> None:
    """A stream without a reader, whose process is gone, is not live: its next reader finds an error."""
    a, b = await machine.start(), await machine.start()
    for number, stream_id in enumerate(("s", "t")):
        writer = await a.journal.create(stream_id, made(number))
        writer.append([Delta("x")])
        await acked(writer, 1)
    assert await states(b) == {"s": "live", "t": "live"}
    await a.pause()
    redis.delete(a.lease)
    assert await states(b) == {"s": "error", "t": "error"}
    assert (await b.journal.streams_of("ann", 9, live=True)).streams == []
    assert ending(await opened(b.journal, "s")) == "producer_lost"
    assert await states(b) == {"s": "error", "t": "error"}


async def test_a_producer_that_died_and_left_a_note(machine: Machine, redis: Redis) -> None:
    """A stream without a reader that another process can adopt is live."""
    a, b = await machine.start(), await machine.start()
    writer = await a.journal.create("s", made(0))
    writer.note("n")
    writer.append([Delta("x")])
    await acked(writer, 1)
    await a.pause()
    redis.delete(a.lease)
    assert await states(b) == {"s": "live"}


async def test_redis_lost_everything(machine: Machine, redis: Redis) -> None:
    """What is written again is listed again."""
    a, b = await machine.start(), await machine.start()
    writer = await a.journal.create("s", made(0))
    writer.append([Delta("x")])
    await acked(writer, 1)
    redis.flushall()
    a.journal._committer.require_reconcile()
    await until(lambda: redis.exists(KEY, a.lease) == 2)
    assert await states(b) == {"s": "live"}


async def test_something_else_at_the_key(machine: Machine, redis: Redis) -> None:
    """It ends no stream and keeps none from beginning: its owner's list is empty."""
    redis.set(KEY, "x")
    a = await machine.start()
    writer = await a.journal.create("s", made(0))
    writer.append([Delta("x"), DONE])
    await acked(writer, 2)
    assert await states(a) == {}
    assert a.journal.ready


async def test_callers_without_credentials(machine: Machine, redis: Redis) -> None:
    """They have no index: nothing could be listed from it."""
    a = await machine.start()
    writer = await a.journal.create("s", made(0, ""))
    writer.append([DONE])
    await acked(writer, 1)
    assert not redis.exists(keys.streams(""))


async def test_a_header_of_the_first_builds(machine: Machine, redis: Redis) -> None:
    """A stream whose header has its owner's plain name is left out."""
    a = await machine.start()
    writer = await a.journal.create("s", made(1))
    header: dict[Any, Any] = {**writer.header}
    header[b"owner"] = header.pop(b"account")
    redis.xadd(keys.log("t"), header, id="0-1")
    redis.zadd(KEY, {"t": 5})
    assert [each.stream_id for each in (await a.journal.streams_of("ann", 9)).streams] == ["s"]
