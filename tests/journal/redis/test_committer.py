"""Writing to Redis: nothing is readable before it is there, nothing is there twice, and nothing outlives its time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from app.errors import JournalDown
from app.events import Delta, Done, Event, Failure
from app.journal.encoding import decode, encode
from app.journal.redis import keys
from app.journal.redis.client import Command
from app.journal.redis.writer import RedisWriter
from app.journal.writer import BEHIND
from app.usage import Usage
from tests.journal.processes import (
    DONE,
    FAST,
    INFO,
    SELDOM,
    Machine,
    Process,
    acked,
    ending,
    entries,
    opened,
    reading,
    text,
)
from tests.real.proxy import Proxy
from tests.real.redis import url_behind
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.real]


async def begun(process: Process) -> RedisWriter:
    """Begin a stream, with one record."""
    writer = await process.journal.create("s", INFO)
    writer.append([Delta("0")])
    await acked(writer, 1)  # the connection that carries records is there
    return writer


async def test_journal_before_wire(machine: Machine, redis: Redis) -> None:
    """A record that Redis has and has not acknowledged yet is not readable, here or elsewhere."""
    with Proxy(machine.url) as proxy:
        a, b = await machine.start(url_behind(proxy)), await machine.start()
        writer = await begun(a)
        here, there = await a.journal.open("s"), await b.journal.open("s")
        reader = asyncio.create_task(opened(a.journal))
        proxy.pause()
        writer.append([Delta("x")])
        await until(lambda: len(entries(redis)) == 3)
        assert (here.last, there.last) == (1, 1)
        proxy.resume()
        await until(lambda: here.last == 2)
        writer.append([DONE])
        assert text(await reader) == "0x"


@pytest.mark.parametrize("more", ["", "more"])
async def test_a_lost_answer(machine: Machine, redis: Redis, more: str) -> None:
    """If a connection breaks after a batch has arrived, and before that is known, it is written and read once."""
    with Proxy(machine.url) as proxy:
        a, b = await machine.start(url_behind(proxy)), await machine.start()
        writer = await begun(a)
        readers = [asyncio.create_task(opened(each.journal)) for each in (a, b)]
        proxy.pause()
        writer.append([Delta("x"), Delta("y")])
        await until(lambda: len(entries(redis)) == 3)
        if more:
            writer.append([Delta(more)])
        proxy.cut(reset=True)
        proxy.resume()
        await acked(writer, 3)
        writer.append([DONE])
        assert [text(events) for events in await asyncio.gather(*readers)] == [f"0xy{more}"] * 2
        assert a.owner.stopped == []


async def test_a_lost_answer_to_the_end(machine: Machine, redis: Redis) -> None:
    """If what was lost is the answer to the last record, the stream ends as it did, and its log is kept as long."""
    with Proxy(machine.url) as proxy:
        a = await machine.start(url_behind(proxy))
        writer = await begun(a)
        reader = asyncio.create_task(opened(a.journal))
        proxy.pause()
        writer.append([Delta("x"), DONE])
        await until(lambda: len(entries(redis)) == 3)
        redis.persist(keys.log("s"))  # as if the connection had been cut between the two commands
        proxy.cut()
        proxy.resume()
        assert await reader == [Delta("0"), Delta("x"), DONE]
        assert 0 < redis.ttl(keys.log("s")) <= 60
        assert repr(a.journal._committer) == "<Committer 0 live, 0 to be compared>"


@pytest.mark.parametrize("fails", ["before", "after"])
async def test_an_end_and_what_belongs_to_it(
    machine: Machine, redis: Redis, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """If Redis fails just after it was given the end of a stream with a note, nothing of the stream stays too long."""
    a = await machine.start()
    writer = await begun(a)
    writer.note("n")
    writer.append([Delta("1")])
    await acked(writer, 2)
    assert redis.exists(keys.note("s"), keys.noted(a.journal._process)) == 2
    pipeline = a.journal._connection.pipeline

    async def failing(commands: Sequence[Command]) -> list[Any]:
        if ("DEL", keys.note("s")) not in commands:
            return await pipeline(commands)
        monkeypatch.undo()
        if fails == "after":
            await pipeline(commands)
        raise ConnectionResetError

    monkeypatch.setattr(a.journal._connection, "pipeline", failing)
    writer.append([DONE])
    assert await opened(a.journal) == [Delta("0"), Delta("1"), DONE]
    await until(lambda: not a.journal._committer.writers and a.journal.ready)
    assert not redis.exists(keys.note("s"), keys.noted(a.journal._process))
    assert 0 < redis.ttl(keys.log("s")) <= 60
    [listed] = redis.zrange(keys.streams("ann"), 0, -1)
    assert listed == b"s done 3"
    assert (a.owner.stopped, a.owner.left) == ([], [])


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_lost_answer_to_the_beginning(machine: Machine, redis: Redis, cancelled: bool) -> None:
    """A log that Redis began without this process knowing gets an end, and its idempotency key may be used again."""
    with Proxy(machine.url) as proxy:
        a, b = await machine.start(url_behind(proxy)), await machine.start()
        assert await a.journal.registry.claim("ann", "k", b"1", "s") is None
        proxy.pause()
        creating = asyncio.create_task(a.journal.create("s", INFO._replace(label="l")))
        await until(lambda: len(entries(redis)) == 1)
        if cancelled:
            creating.cancel()
        else:
            proxy.cut()
        with pytest.raises(asyncio.CancelledError if cancelled else JournalDown):
            await creating
        proxy.resume()
        for each in (a, b):
            [end] = await opened(each.journal)
            assert isinstance(end, Failure)
            assert end.code == ("internal_error" if cancelled else "journal_unavailable")
        await until(lambda: a.journal._committer.writers == [])
        assert await b.journal.registry.claim("ann", "k", b"2", "t") is None
        assert await b.journal.registry.labelled("ann", "l") is None
        assert 0 < redis.ttl(keys.log("s")) <= 60


async def test_a_key_of_an_answer_that_was_given_up(machine: Machine, redis: Redis) -> None:
    """An answer of which Redis has nothing but the end was paid for, so its idempotency key stands for it still."""
    with Proxy(machine.url) as proxy:
        a = await machine.start(url_behind(proxy), timing=replace(FAST, pipeline=5.0))
        assert await a.journal.registry.claim("ann", "k", b"1", "s") is None
        writer = await a.journal.create("s", INFO)
        proxy.pause()
        writer.append([Delta("x")])
        a.journal._committer.give_up()
        proxy.cut(reset=True)
        proxy.resume()
        await until(lambda: a.journal._committer.writers == [] and a.journal.ready)
        assert await a.journal.registry.claim("ann", "k", b"1", "t") == "s"


async def test_a_late_batch(machine: Machine, redis: Redis) -> None:
    """A batch that was taken for lost, and arrives while it is sent again with more, is still the stream's own."""
    a = await machine.start()
    writer = await a.journal.create("s", INFO)
    redis.xadd(keys.log("s"), {"e": encode([Delta("x")])}, id="1-0")  # as out of the buffer of a broken connection
    writer.append([Delta("x"), Delta("y"), DONE])
    assert text(await opened(a.journal)) == "xy"
    assert [entry for entry, _ in entries(redis)] == [b"0-1", b"1-0", b"2-0"]
    assert a.owner.stopped == []


async def test_given_up_under_way(machine: Machine, redis: Redis) -> None:
    """A stream that was given up while a batch of it was under way ends for everybody, that batch before the end."""
    patient = replace(FAST, lease=30)  # with a short lease it would be taken for dead before it gives up
    with Proxy(machine.url) as proxy:
        # A process that says meanwhile that it reads the stream is told the end at once. This one seldom says so.
        a, b = await machine.start(url_behind(proxy), 1, patient), await machine.start(timing=SELDOM)
        writer = await begun(a)
        readers = [asyncio.create_task(opened(each.journal)) for each in (a, b)]
        await until(lambda: a.owner.readers.get("s") == 1)
        await a.journal._committer.flushed()  # what is told of readers would be under way in its place
        proxy.pause()
        writer.append([Delta("x")])
        await until(lambda: len(entries(redis)) == 3)
        here = await readers[0]
        assert [type(event) for event in here] == [Delta, Failure]
        assert a.owner.stopped == [("s", "journal_unavailable")]
        writer.append([DONE])  # what the hub says of it now is too late
        proxy.resume()
        assert await readers[1] == [Delta("0"), Delta("x"), here[-1]]
        await until(lambda: not a.journal._committer._live)


async def test_given_up_with_an_answer_at_last(machine: Machine, redis: Redis) -> None:
    """An answer that comes after a stream was given up counts: the end is written after what it acknowledges."""
    with Proxy(machine.url) as proxy:
        a, b = await machine.start(url_behind(proxy), timing=replace(FAST, pipeline=5.0)), await machine.start()
        writer = await begun(a)
        proxy.pause()
        writer.append([Delta("x")])
        await until(lambda: len(entries(redis)) == 3)
        a.journal._on_outage_timeout()
        proxy.resume()
        here, there = await opened(a.journal), await opened(b.journal)
        assert there == [Delta("0"), Delta("x"), here[-1]]
        await until(lambda: not a.journal._committer._live)


async def test_what_cannot_be_written(machine: Machine) -> None:
    """A record that cannot be written as JSON ends its own stream, and no other."""
    a, b = [await machine.start() for _ in "ab"]
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    writers = [await a.journal.create(name, INFO) for name in "st"]
    writers[0].append([Delta("x")])
    await acked(writers[0], 1)
    writers[0].append([Done("stop", usage=Usage({"deep": deep}))])
    writers[1].append([Delta("y"), DONE])
    for each in (a, b):
        *_, failure = await opened(each.journal, "s")
        assert isinstance(failure, Failure)
        assert failure.code == "internal_error"
        assert await opened(each.journal, "t") == [Delta("y"), DONE]
    assert a.owner.stopped == [("s", "internal_error")]


async def test_a_key_that_is_not_ours(machine: Machine, redis: Redis) -> None:
    """If somebody else puts something at a log's place, that stream is lost, and no other disturbed."""
    a = await machine.start()
    writers = [await a.journal.create(name, INFO) for name in "st"]
    redis.set(keys.log("s"), "x")
    for each in writers:
        each.append([Delta("y"), DONE])
    [failure] = await opened(a.journal, "s")
    assert isinstance(failure, Failure)
    assert failure.code == "journal_lost"
    assert await opened(a.journal, "t") == [Delta("y"), DONE]
    assert a.journal.ready


async def test_drain(machine: Machine) -> None:
    """A producer that is too far ahead of Redis waits, until Redis has caught up or the stream is given up."""
    with Proxy(machine.url) as proxy:
        a = await machine.start(url_behind(proxy), patience=2)
        ahead = await a.journal.create("s", INFO)
        ahead.append([Delta("x")] * BEHIND)
        await asyncio.wait_for(ahead.drain(), 30)
        await acked(ahead, BEHIND)
        proxy.pause()
        ahead.append([Delta("x")] * (BEHIND + 1))
        waiting = [asyncio.create_task(ahead.drain()) for _ in range(3)]
        await asyncio.sleep(0.02)
        assert not any(task.done() for task in waiting)
        waiting[0].cancel()
        proxy.resume()
        await asyncio.gather(*waiting[1:])
        await acked(ahead, 2 * BEHIND + 1)
        proxy.pause()
        ahead.append([Delta("x")] * (BEHIND + 1))
        await ahead.drain()
        assert ahead.given_up
        proxy.resume()


async def test_times(machine: Machine, redis: Redis) -> None:
    """A live log and its claim are kept for an hour; once it has ended, as long as the settings say."""
    a = await machine.start(seconds=20)
    assert await a.journal.registry.claim("ann", "k", b"1", "s") is None
    writer = await a.journal.create("s", INFO)
    both = keys.log("s"), keys.claim("ann", "k")
    assert [3590 < redis.ttl(key) <= 3600 for key in both] == [True, True]
    writer.append([DONE])
    await opened(a.journal)
    assert [10 < redis.ttl(key) <= 20 for key in both] == [True, True]


async def test_kept_for_no_time(machine: Machine, redis: Redis) -> None:
    """With nothing to be kept after its end, a stream is still read to its end by who reads it, and then unknown."""
    a, b = [await machine.start(seconds=0) for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    readers = [asyncio.create_task(opened(each.journal)) for each in (a, b)]
    await until(lambda: a.owner.readers.get("s") == 1)
    writer.append([Delta("x"), DONE])
    assert [text(events) for events in await asyncio.gather(*readers)] == ["x", "x"]
    await until(lambda: not redis.keys("*:log") and not len(a.journal) and not len(b.journal))


async def test_live_logs_are_renewed(machine: Machine, redis: Redis) -> None:
    """A live log is kept as long as its producer lives, however long that is silent; and not much longer."""
    a = await machine.start(timing=replace(FAST, live=3))
    assert await a.journal.registry.claim("ann", "k", b"1", "s") is None
    writer = await a.journal.create("s", INFO)
    await asyncio.sleep(3.3)
    assert redis.exists(keys.log("s"), keys.claim("ann", "k")) == 2
    assert writer.acked == 0
    await a.pause()
    await until(lambda: not redis.exists(keys.log("s")))


async def test_one_pipeline_for_all_streams(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What many streams have at the same time goes in one pipeline."""
    a = await machine.start(timing=SELDOM)
    writers = [await a.journal.create(f"s{number}", INFO) for number in range(300)]
    pipelines = 0
    send = a.journal._records.send

    async def counted(commands: Sequence[Command]) -> list[Any]:
        nonlocal pipelines
        pipelines += 1
        return await send(commands)

    monkeypatch.setattr(a.journal._records, "send", counted)
    for writer in writers:
        writer.append([Delta("x")])
    await until(lambda: all(writer.acked for writer in writers))
    assert pipelines == 1


async def test_much_at_once(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What many streams have to write takes several pipelines, so that none of them holds the loop for long."""
    a = await machine.start(timing=SELDOM)
    writers = [await a.journal.create(f"s{number}", INFO) for number in range(5)]
    send = a.journal._records.send
    sent: list[int] = []

    async def counted(commands: Sequence[Command]) -> list[Any]:
        sent.append(len(commands))
        return await send(commands)

    monkeypatch.setattr(a.journal._records, "send", counted)
    for writer in writers:
        writer.append([Delta("x")] * 600)
    await until(lambda: all(writer.acked == 600 for writer in writers))
    assert sent == [2, 2, 1]


@pytest.mark.parametrize("pieces", [1, 40])
async def test_nearly_full(machine: Machine, redis: Redis, pieces: int) -> None:
    """If Redis takes what is small and refuses a stream's records, the stream ends in time, here and elsewhere."""
    a, b = [await machine.start(patience=1.5) for _ in "ab"]
    writer = await begun(a)
    here, there = await reading(a.journal), await reading(b.journal)
    await until(lambda: writer.followers)
    usage: Any = redis.info("memory")
    redis.config_set("maxmemory", usage["used_memory"] + 700_000)
    writer.append([Delta("x" * (400_000 // pieces))] * pieces)
    assert [ending(await each) for each in (here, there)] == ["journal_unavailable"] * 2
    assert a.owner.stopped == [("s", "journal_unavailable")]
    late = await reading(b.journal)
    redis.config_set("maxmemory", 0)
    assert ending(await late) == "journal_unavailable"
    await until(lambda: ending(read_entries(redis)) == "journal_unavailable")


async def test_only_what_has_waited_ends(machine: Machine) -> None:
    """A stream without a record that waits does not end because another one's has waited for too long."""
    a = await machine.start()
    waiting, other = await begun(a), await a.journal.create("other", INFO)
    before = asyncio.get_running_loop().time()
    waiting.append([Delta("x")])
    a.journal._committer.give_up_waiting(before - 1)
    assert not waiting.given_up
    a.journal._committer.give_up_waiting(asyncio.get_running_loop().time())
    assert (waiting.given_up, other.given_up) == (True, False)
    assert ending(await opened(a.journal)) == "journal_unavailable"
    other.append([DONE])
    assert await opened(a.journal, "other") == [DONE]


@pytest.mark.parametrize("more", [[Delta("1")], [Delta("1"), DONE]], ids=["live", "ended"])
async def test_a_loss_during_a_comparison(
    machine: Machine, redis: Redis, monkeypatch: pytest.MonkeyPatch, more: list[Event]
) -> None:
    """What Redis loses while it is asked what it has is written again, too."""
    a = await machine.start(timing=SELDOM)
    writer = await begun(a)
    older = dumped(redis)
    writer.append(more)
    await acked(writer, 1 + len(more))
    committer = a.journal._committer
    ask = committer._last_entries
    losses = 0

    async def asked(writers: Sequence[RedisWriter]) -> list[Any]:
        nonlocal losses
        found = await ask(writers)
        if not losses:
            losses += 1
            redis.restore(keys.log("s"), 0, older, replace=True)
            committer.require_reconcile()
        return found

    monkeypatch.setattr(committer, "_last_entries", asked)
    committer.require_reconcile()
    await until(lambda: losses and len(entries(redis)) == 3)
    assert read_entries(redis) == [Delta("0"), *more]


async def test_a_deleted_stream_is_not_written_again(machine: Machine, redis: Redis) -> None:
    """If Redis forgets that a stream was deleted, this process does not complete it."""
    a = await machine.start(timing=SELDOM)
    writer = await begun(a)
    older = dumped(redis)
    writer.append([DONE])
    await opened(a.journal)
    await a.journal.remove("s")
    redis.restore(keys.log("s"), 0, older)
    a.journal._committer.require_reconcile()
    other = await a.journal.create("other", INFO)
    other.append([DONE])
    await opened(a.journal, "other")  # which is sent after what has ended was compared
    assert read_entries(redis) == [Delta("0")]


async def test_a_stream_that_could_not_be_deleted(machine: Machine, redis: Redis) -> None:
    """If Redis is away when a stream is to be deleted, and loses the stream's end, the end is written again."""
    a = await machine.start(timing=SELDOM)
    writer = await begun(a)
    older = dumped(redis)
    writer.append([DONE])
    await opened(a.journal)
    a.journal._connection.failed(ConnectionResetError())
    with pytest.raises(JournalDown):
        await a.journal.remove("s")
    redis.restore(keys.log("s"), 0, older, replace=True)
    await until(lambda: read_entries(redis) == [Delta("0"), DONE])


async def test_a_stream_that_is_deleted_before_its_end_is_written(
    machine: Machine, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that was given up, and is deleted before Redis takes its end, does not come back with that."""
    a = await machine.start(timing=SELDOM)
    await begun(a)
    send = a.journal._records.send
    deleted = asyncio.Event()
    replies: list[Any] = []

    async def late(commands: Sequence[Command]) -> list[Any]:
        await deleted.wait()
        replies.extend(await send(commands))
        return replies

    monkeypatch.setattr(a.journal._records, "send", late)
    a.journal._committer.give_up()
    await until(lambda: a.journal._committer._sending)
    await a.journal.remove("s")
    deleted.set()
    await until(lambda: replies)
    monkeypatch.undo()
    other = await a.journal.create("other", INFO)
    other.append([DONE])
    await opened(a.journal, "other")
    assert not redis.exists(keys.log("s"))
    assert a.journal._committer.writer("s") is None


async def test_ended_streams_are_let_go(machine: Machine) -> None:
    """A stream that ended some time ago, or takes too much room, is not kept in case that Redis loses its end."""
    a = await machine.start(timing=replace(FAST, ended_nearby=1))
    for name, stored in (("small", 1), ("large", 20 << 20)):
        writer = await a.journal.create(name, INFO)
        writer.stored = stored
        writer.append([DONE])
        await opened(a.journal, name)
    await until(lambda: not a.journal._committer.writers)
    assert a.journal._committer._ended.get("large") is None
    await until(lambda: not a.journal._committer._ended.writers)
    assert a.journal.ready


def dumped(redis: Redis) -> Any:
    """Return the log as Redis has it now."""
    return redis.dump(keys.log("s"))


def read_entries(redis: Redis) -> list[Event]:
    """Return the events of the log in Redis."""
    return [event for entry_id, fields in entries(redis)[1:] for event in decode(fields[b"e"])]
