"""Streams of other processes: read, counted, stopped, and ended when their producer has died. On a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from structlog.testing import LogCapture

from app.errors import JournalLost, UnknownStream
from app.events import Delta
from app.journal.redis import keys, messages
from app.journal.redis.client import Command
from app.journal.redis.entries import HEADER, encode
from app.journal.redis.messages import Positions
from app.journal.redis.writer import RedisWriter
from app.request import StreamInfo
from tests.journal.processes import DONE, FAST, INFO, Machine, acked, ending, opened, read, text
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.real]

# With so long between two renewals, none of them tells again what was lost.
SELDOM = replace(FAST, renewal=30, lease=60)


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


@pytest.mark.parametrize(
    "info", [StreamInfo("none"), StreamInfo("size:7,80ms", "\udcff \0 \u00e9\n", 1 << 40, "\udcfe")]
)
async def test_info_elsewhere(machine: Machine, info: StreamInfo) -> None:
    """What a stream was created with is known to every process, whatever its owner is called."""
    a, b = [await machine.start() for _ in "ab"]
    await a.journal.create("s", info)
    assert (await b.journal.open("s")).info == info


async def test_info_of_an_earlier_version(machine: Machine, redis: Redis) -> None:
    """A stream of a process that says nothing of its owner's limit, or of a label, is read without them."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    header: dict[Any, Any] = {name: writer.header[name] for name in (b"chunk", b"owner", b"process")}
    redis.delete(keys.log("s"))
    redis.xadd(keys.log("s"), header, id=HEADER)
    assert (await b.journal.open("s")).info == INFO._replace(readers=0)


async def test_a_lost_message_heals(machine: Machine, redis: Redis) -> None:
    """Records that were told to nobody, because a connection broke, are fetched: no reader sees a gap or waits long."""
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
    """If the last message of a stream is lost, the next beat brings the end."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    reader = asyncio.create_task(opened(b.journal))
    await until(lambda: a.owner.readers.get("s") == 1)
    writer.followers.clear()
    writer.append([Delta("x"), DONE])
    assert text(await reader) == "x"


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


async def test_a_look_is_no_reader(machine: Machine) -> None:
    """To open a stream, and to look at what there is, makes nobody a reader of it."""
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
    """What was told of readers while nobody listened is told again: that they came, and that they left."""
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
        await until(lambda: b.journal._replicas.get("s") is None)
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


async def test_a_reader_comes_as_the_last_leaves(machine: Machine) -> None:
    """Whoever opened a stream before its copy was dropped, and reads only afterwards, reads on live."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    log = await b.journal.open("s")
    first = asyncio.create_task(read(log))
    await until(lambda: a.owner.readers.get("s") == 1)
    first.cancel()
    await until(lambda: b.journal._replicas.get("s") is None and len(b.journal) == 0)
    second = asyncio.create_task(read(log))
    await until(lambda: a.owner.readers.get("s") == 1)
    third = asyncio.create_task(opened(b.journal))
    writer.append([Delta("x"), DONE])
    assert text(await second) == text(await third) == "x"
    assert b.journal.size == log.size


async def test_one_copy(machine: Machine) -> None:
    """As long as somebody holds a copy that was dropped, it is the only one: all who open the stream get that."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    held = await b.journal.open("s")
    await until(lambda: b.journal._replicas.get("s") is None)
    assert await b.journal.open("s") is held
    reader = asyncio.create_task(opened(b.journal))
    await until(lambda: a.owner.readers.get("s") == 1)
    writer.append([Delta("x"), DONE])
    assert text(await reader) == text(await read(held)) == "x"


async def test_remote_stop(machine: Machine) -> None:
    """A stream is stopped from any process that has opened it."""
    a, b = [await machine.start() for _ in "ab"]
    await a.journal.create("s", INFO)
    await b.journal.open("s")
    b.journal.stop("s")
    await until(lambda: a.owner.stopped)
    assert a.owner.stopped == [("s", None)]


async def test_garbage_in_the_inbox(machine: Machine, redis: Redis, logs: LogCapture) -> None:
    """What a process of another version may say is not understood, logged, and harms nobody."""
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
        b'[1,["unfollowing",1,"s"]]',
    ):
        redis.publish(keys.inbox(b.journal._process), garbage)
    writer.append([Delta("x"), DONE])
    assert text(await reader) == "x"
    assert {entry["event"] for entry in logs.entries} == {"peer.garbled"}


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
    """Many readers that come at once, one after another or for many streams, cost one copy each stream, few trips."""
    a, b = [await machine.start(ended=200) for _ in "ab"]
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


async def test_flat_in_readers(machine: Machine, redis: Redis) -> None:
    """A record costs Redis one command, and one more for each process that has readers, however many those are."""
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


async def test_one_trip_for_all_streams(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What many streams have at the same time goes in one trip, over one connection."""
    a = await machine.start(timing=SELDOM)
    writers = [await a.journal.create(f"s{number}", INFO) for number in range(300)]
    trips = 0
    send = a.journal._records.send

    async def counted(commands: Sequence[Command]) -> list[Any]:
        nonlocal trips
        trips += 1
        return await send(commands)

    monkeypatch.setattr(a.journal._records, "send", counted)
    for writer in writers:
        writer.append([Delta("x")])
    await until(lambda: all(writer.acked for writer in writers))
    assert trips == 1


async def test_unknown_after_a_delete(machine: Machine, redis: Redis) -> None:
    """A key that is not a log of ours, or has no beginning, is an unknown stream."""
    a = await machine.start()
    redis.xadd(keys.log("s"), {"e": encode([DONE])}, id="1-0")
    with pytest.raises(UnknownStream):
        await a.journal.open("s")


async def test_leaving(machine: Machine, redis: Redis) -> None:
    """A process that ends has sent all, told all, gives its lease back, and leaves no connection and no task."""
    b = await machine.start()
    before = asyncio.all_tasks()
    a = await machine.start()
    writer = await a.journal.create("s", INFO)
    reader = asyncio.create_task(opened(b.journal))
    await until(lambda: a.owner.readers.get("s") == 1)
    lease, start = a.lease, asyncio.get_running_loop().time()
    writer.append([Delta("last"), DONE])
    await a.held.aclose()
    assert text(await reader) == "last"
    assert asyncio.get_running_loop().time() - start < FAST.renewal
    assert not redis.exists(lease)
    await until(lambda: len(redis.client_list()) == b.connections + 1)
    assert {task for task in asyncio.all_tasks() if "journal" in task.get_name()} <= before


async def test_many_leave_while_looking(machine: Machine) -> None:
    """A process may end in the middle of loads and looks."""
    a, b = [await machine.start() for _ in "ab"]
    for number in range(50):
        (await a.journal.create(f"s{number}", INFO)).append([Delta("x")])
    logs = [asyncio.create_task(b.journal.open(f"s{number}")) for number in range(50)]
    await logs[0]
    for copy in b.journal._replicas.followed:
        b.journal._replicas.check(copy)
    await b.held.aclose()
    await asyncio.wait(logs)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(("load", "check"))]


async def test_a_slow_reader_elsewhere(machine: Machine) -> None:
    """A reader that is behind holds nobody up, and misses nothing though its stream was dropped from memory."""
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


async def test_labels_end_with_their_streams(machine: Machine, redis: Redis) -> None:
    """Every process finds a live stream by its label; at its end that is taken away, unless it is another's by then."""
    a, b = await machine.start(), await machine.start()
    first = await a.journal.create("s", StreamInfo("auto", "o", 0, "l"))
    assert await b.journal.registry.labelled("o", "l") == "s"
    second = await b.journal.create("t", StreamInfo("auto", "o", 0, "l"))
    first.append([DONE])
    await until(lambda: redis.ttl(b"chat-sse:{s}:log") < 3000)
    assert await a.journal.registry.labelled("o", "l") == "t"
    second.append([DONE])
    await until(lambda: not redis.keys("chat-sse:label:*"))
    assert await a.journal.registry.labelled("o", "l") is None
