"""Redis restarted, stalled, full, read-only, loading, emptied: streams go on without a gap, or end honestly."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from structlog.testing import LogCapture

from app.errors import JournalDown
from app.events import Delta, Failure
from app.journal.redis import keys
from app.journal.redis.committer import Committer
from tests.journal.processes import (
    DONE,
    FAST,
    INFO,
    ROOMY,
    SELDOM,
    Machine,
    Process,
    acked,
    entries,
    opened,
    read,
    reading,
    text,
)
from tests.ports import free_port
from tests.real.redis import PERSISTENT, RedisServer, launch_redis
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.real]


def said(logs: LogCapture, event: str = "journal.away") -> list[str]:
    """Return the reasons that were logged by the first process that logged any."""
    found = [entry for entry in logs.entries if entry["event"] == event]
    return [entry.get("reason", "") for entry in found if entry["process"] == found[0]["process"]]


@pytest.fixture
def persistent(tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server that keeps its data, and takes its time to load them."""
    server = launch_redis(tmp_path, *PERSISTENT, "--key-load-delay", "100")  # microseconds
    yield server
    server.stop()


async def through(machine: Machine, server: RedisServer, number: signal.Signals) -> tuple[Process, Process]:
    """Write and read streams while Redis is restarted; return the two processes."""
    a, b = [await machine.start(server.url) for _ in "ab"]
    assert await a.journal.registry.claim("ann", "k", b"1", "s0") is None
    writers = [await a.journal.create(f"s{number}", INFO) for number in range(20)]
    readers = [await reading(each.journal, w.id, timeout=60) for w in writers for each in (a, b)]
    silent = await a.journal.create("silent", INFO)
    silent.append([Delta("before ")])
    readers += [await reading(each.journal, "silent", timeout=60) for each in (a, b)]
    restarted = False

    async def write() -> int:
        count = 0
        while not restarted or count < 100:
            for writer in writers:
                writer.append([Delta(f"{count} ")])
            count += 1
            await asyncio.sleep(0.002)
        return count

    writing = asyncio.create_task(write())
    await acked(writers[-1], 10)
    await asyncio.to_thread(server.restart, number)
    await until(lambda: a.journal.ready and b.journal.ready)
    restarted = True
    whole = "".join(f"{number} " for number in range(await writing))
    with server.client() as redis:
        await until(lambda: len(entries(redis, "silent")) >= 2)
        assert redis.ttl(keys.log("silent")) > 3000
    for writer in (*writers, silent):
        writer.append([DONE])
    answers = [text(events) for events in await asyncio.gather(*readers)]
    assert answers == [whole] * 40 + ["before "] * 2
    fresh = await machine.start(server.url)
    assert text(await opened(fresh.journal, "s7")) == whole
    assert await fresh.journal.registry.claim("ann", "k", b"1", "t") == "s0"
    assert (a.owner.stopped, b.owner.stopped) == ([], [])
    return a, b


async def test_restart_without_persistence(machine: Machine, server: RedisServer) -> None:
    """Live streams go on without a gap, for all readers; their logs and claims are written again, with their times."""
    await through(machine, server, signal.SIGTERM)


async def test_restart_with_persistence(machine: Machine, persistent: RedisServer, logs: LogCapture) -> None:
    """Live streams go on without a gap though the last second of their logs is lost; ended ones are still there."""
    a = await machine.start(persistent.url)
    with persistent.client() as redis, redis.pipeline(transaction=False) as pipeline:
        for number in range(5000):
            pipeline.set(f"filler{number}", "x")
        pipeline.execute()
    (await a.journal.create("ended", INFO)).append([Delta("x"), DONE])
    await opened(a.journal, "ended")
    await through(machine, persistent, signal.SIGKILL)
    fresh = await machine.start(persistent.url)
    assert text(await opened(fresh.journal, "ended")) == "x"
    assert "LOADING" in said(logs)


async def test_an_older_redis(machine: Machine, tmp_path: Path) -> None:
    """If Redis comes back with less than it had acknowledged, what is missing is written before anything else."""
    server = launch_redis(tmp_path)
    try:
        a = await machine.start(server.url)
        writer = await a.journal.create("s", INFO)
        writer.append([Delta("0")])
        await acked(writer, 1)
        with server.client() as redis:
            redis.save()
            for number in range(1, 5):
                writer.append([Delta(f"{number}")])
                await acked(writer, number + 1)
            server.restart(signal.SIGKILL)  # the event loop does not run meanwhile
            assert len(entries(redis)) == 2
            writer.append([Delta("5"), DONE])
            await until(lambda: writer.log.ended)
            b = await machine.start(server.url)
            assert text(await opened(b.journal)) == text(await opened(a.journal)) == "012345"
        for process in (b, a):
            await process.held.aclose()
    finally:
        server.stop()


async def test_an_older_redis_without_an_end(machine: Machine, tmp_path: Path) -> None:
    """If Redis comes back without the end of a stream that ended shortly before, it is written again.

    A log that Redis does not have at all stays away: it may have been deleted.
    """
    server = launch_redis(tmp_path)
    try:
        a = await machine.start(server.url)
        writer = await a.journal.create("s", INFO)
        writer.append([Delta("0")])
        await acked(writer, 1)
        with server.client() as redis:
            redis.save()
            writer.append([Delta("1")])
            await acked(writer, 2)
            writer.append([Delta("2"), DONE])
            (await a.journal.create("t", INFO)).append([Delta("x"), DONE])
            assert [text(await opened(a.journal, name)) for name in "st"] == ["012", "x"]
            server.restart(signal.SIGKILL)
            assert (len(entries(redis)), redis.ttl(keys.log("s")) > 3000) == (2, True)
            await until(lambda: len(entries(redis)) == 3)
            await until(lambda: 0 < redis.ttl(keys.log("s")) <= ROOMY.seconds)
            b = await machine.start(server.url)
            assert await opened(b.journal) == await opened(a.journal)
            assert redis.exists(keys.log("t")) == 0
        for process in (b, a):
            await process.held.aclose()
    finally:
        server.stop()


async def test_a_stall(machine: Machine, server: RedisServer, logs: LogCapture) -> None:
    """While Redis is stopped, for longer than a lease lasts, nothing is lost and no process is taken for dead."""
    a, b = [await machine.start() for _ in "ab"]
    writer = await a.journal.create("s", INFO)
    readers = [await reading(each.journal) for each in (a, b)]
    writer.append([Delta("0 ")])
    await acked(writer, 1)
    await until(lambda: a.owner.readers.get("s") == 1)
    server.send(signal.SIGSTOP)
    try:
        for number in range(1, 150):
            writer.append([Delta(f"{number} ")])
            await asyncio.sleep(0.01)
        assert not a.journal.ready
        assert not b.journal.ready
        with pytest.raises(JournalDown):
            await a.journal.create("t", INFO)
    finally:
        server.send(signal.SIGCONT)
    await until(lambda: a.journal.ready and b.journal.ready)
    writer.append([DONE])
    whole = "".join(f"{number} " for number in range(150))
    assert [text(events) for events in await asyncio.gather(*readers)] == [whole] * 2
    assert said(logs) == [""]  # one line, however many tries
    assert not any(entry["event"] in ("peer.gone", "stream.producer_lost") for entry in logs.entries)
    await a.journal.create("t", INFO)


async def test_emptied(machine: Machine, redis: Redis) -> None:
    """After FLUSHALL, live streams are written again, silent ones with the next renewal, and go on without a gap.

    Their labels stand for them again.
    """
    a, b = [await machine.start() for _ in "ab"]
    busy, silent = [await a.journal.create(name, INFO._replace(label=name)) for name in ("busy", "silent")]
    readers = [await reading(each.journal, name) for name in ("busy", "silent") for each in (a, b)]
    for writer in (busy, silent):
        writer.append([Delta("before ")])
        await acked(writer, 1)
    await until(lambda: sum(a.owner.readers.values()) == 2)
    redis.flushall()
    busy.append([Delta("after")])
    await until(lambda: len(entries(redis, "busy")) == 3 and len(entries(redis, "silent")) == 2)
    for name, writer in (("busy", busy), ("silent", silent)):
        assert await b.journal.registry.labelled("ann", name) == name
        writer.append([DONE])
    answers = [text(events) for events in await asyncio.gather(*readers)]
    assert answers == ["before after"] * 2 + ["before "] * 2


@pytest.mark.parametrize("reason", ["OOM", "READONLY", "MISCONF"])
async def test_refused(machine: Machine, logs: LogCapture, tmp_path: Path, reason: str) -> None:
    """While Redis is full, read-only or cannot save, it is away, and why is logged once; then live streams go on."""
    directory = tmp_path / "data"
    directory.mkdir()
    server = launch_redis(directory)
    try:
        a, b = [await machine.start(server.url) for _ in "ab"]
        writer = await a.journal.create("s", INFO)
        readers = [await reading(each.journal) for each in (a, b)]
        with server.client() as redis:
            _break(redis, reason, directory)
            writer.append([Delta("x")])
            await until(lambda: not a.journal.ready and not b.journal.ready)
            with pytest.raises(JournalDown):
                await a.journal.create("t", INFO)
            with pytest.raises(JournalDown):
                await b.journal.registry.claim("ann", "k", b"1", "t")
            await asyncio.sleep(3 * FAST.renewal)
            assert (a.journal.ready, b.journal.ready) == (False, False)
            _mend(redis, reason, directory)
        await until(lambda: a.journal.ready and b.journal.ready)
        writer.append([DONE])
        assert [text(events) for events in await asyncio.gather(*readers)] == ["x", "x"]
        # Not once for each try. A refusal from before it was mended may be read after an answer from afterwards.
        assert {word for word in said(logs) if word} == {reason}
        assert len(said(logs)) <= 3
        assert 1 <= len(said(logs, "journal.back")) <= 2
        for process in (b, a):
            await process.held.aclose()
    finally:
        server.stop()


def _break(redis: Redis, reason: str, directory: Path) -> None:
    if reason == "OOM":
        redis.config_set("maxmemory", 1)
    elif reason == "READONLY":
        redis.config_set("replica-read-only", "yes")
        redis.config_set("replica-serve-stale-data", "yes")
        redis.replicaof("127.0.0.1", free_port())
    else:
        redis.config_set("save", "3600 1000000")
        shutil.rmtree(directory)
        redis.bgsave()
        while redis.info("persistence")["rdb_last_bgsave_status"] == "ok":
            pass


def _mend(redis: Redis, reason: str, directory: Path) -> None:
    if reason == "OOM":
        redis.config_set("maxmemory", 0)
    elif reason == "READONLY":
        redis.replicaof("NO", "ONE")
    else:
        redis.config_set("stop-writes-on-bgsave-error", "no")
        redis.config_set("save", "")  # else it would not end without having saved


async def test_patience(machine: Machine, server: RedisServer, redis: Redis, logs: LogCapture) -> None:
    """Streams that have waited too long end with `journal_unavailable`, silent ones too; Redis hears of it later."""
    a, b = [await machine.start(patience=0.7) for _ in "ab"]
    busy, silent = [await a.journal.create(name, INFO) for name in ("busy", "silent")]
    for writer in (busy, silent):
        writer.append([Delta("x")])
        await acked(writer, 1)
    here = [await a.journal.open(name) for name in ("busy", "silent")]
    there = [await b.journal.open(name) for name in ("busy", "silent")]
    readers = [asyncio.create_task(read(log)) for log in (*here, *there)]
    await until(lambda: sum(a.owner.readers.values()) == 2)
    server.send(signal.SIGSTOP)
    try:
        busy.append([Delta("never seen")])
        answers = await asyncio.gather(*readers)
        for events in answers:
            assert text(events) == "x"
            assert isinstance(events[-1], Failure)
            assert events[-1].code == "journal_unavailable"
        assert sorted(a.owner.stopped) == [("busy", "journal_unavailable"), ("silent", "journal_unavailable")]
        for question in (
            a.journal.create("t", INFO),
            a.journal.open("unheard of"),
            a.journal.registry.claim("ann", "k", b"1", "t"),
            a.journal.registry.occupy("ann", "t", 1),
        ):
            with pytest.raises(JournalDown):
                await question
        await a.journal.registry.vacate("ann", "t")
        await a.journal.registry.release("t")
    finally:
        server.send(signal.SIGCONT)
    await until(lambda: not a.journal._committer._live and b.journal.ready)
    fresh = await machine.start()
    for name in ("busy", "silent"):
        events = await opened(fresh.journal, name)
        assert isinstance(events[-1], Failure)
        assert events[-1].code == "journal_unavailable"
        assert 0 < redis.ttl(keys.log(name)) <= 60
    assert len(said(logs)) == 1
    again = await a.journal.create("t", INFO)
    again.append([DONE])
    assert await opened(b.journal, "t") == [DONE]
    assert len(await opened(a.journal, "busy")) in (2, 3)


async def test_not_there_yet(machine: Machine, server: RedisServer, logs: LogCapture) -> None:
    """A process may start before Redis does: it is not ready, says so, and is ready by itself later."""
    server.send(signal.SIGTERM)
    server.ended()
    a = await machine.start()
    assert not a.journal.ready
    with pytest.raises(JournalDown):
        await a.journal.create("s", INFO)
    await asyncio.to_thread(server._begin)
    await until(lambda: a.journal.ready)
    writer = await a.journal.create("s", INFO)
    writer.append([DONE])
    assert await opened(a.journal) == [DONE]
    assert [entry["event"] for entry in logs.entries] == ["journal.away", "journal.back"]


async def test_leaving_while_redis_is_away(machine: Machine, server: RedisServer) -> None:
    """A process that ends while Redis is away does not wait for it."""
    a = await machine.start(timing=replace(FAST, flush=60))
    writer = await a.journal.create("s", INFO)
    server.send(signal.SIGSTOP)
    try:
        writer.append([Delta("x"), DONE])
        await until(lambda: not a.journal.ready)
        async with asyncio.timeout(30):
            await a.held.aclose()
    finally:
        server.send(signal.SIGCONT)


async def test_nothing_is_left(machine: Machine, redis: Redis) -> None:
    """After broken connections and readers that left, no task, no connection, no memory and no key is left over."""
    a, b = [await machine.start(ended=0, seconds=0) for _ in "ab"]
    for turn in range(5):
        writers = [await a.journal.create(f"{turn}-{number}", INFO) for number in range(20)]
        readers = [await reading(b.journal, writer.id) for writer in writers]
        await until(lambda: sum(a.owner.readers.values()) == 20)
        for kind in ("normal", "pubsub"):
            redis.client_kill_filter(_type=kind, skipme=True)
        for reader in readers[::2]:
            reader.cancel()
        for writer in writers:
            writer.append([Delta("x"), DONE])
        assert [text(events) for events in await asyncio.gather(*readers[1::2])] == ["x"] * 10
        await until(lambda: not a.journal._committer._live and not b.journal._replicas.followed)
        a.owner.readers.clear()
    await until(lambda: not len(a.journal) and not len(b.journal))
    assert (a.journal.size, b.journal.size) == (0, 0)
    await until(lambda: not redis.keys("*:log"))
    assert (a.journal._committer._unreconciled, a.journal._outbox.empty) == ({}, True)
    await until(lambda: len(redis.client_list()) <= a.connections + b.connections + 1)
    assert a.connections + b.connections < 40
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(("load", "check"))]


async def test_a_crash(machine: Machine, monkeypatch: pytest.MonkeyPatch, logs: LogCapture) -> None:
    """A bug that meets the committer once is logged without any value, and costs no stream anything."""
    a = await machine.start(timing=replace(FAST, restart=0.01))
    stream = await a.journal.create("s", INFO)
    acknowledge = Committer._acknowledge

    def crash(*_: object) -> None:
        monkeypatch.setattr(Committer, "_acknowledge", acknowledge)
        raise RuntimeError("secret")

    monkeypatch.setattr(Committer, "_acknowledge", crash)
    stream.append([Delta("x")])
    await acked(stream, 1)
    stream.append([DONE])
    assert text(await opened(a.journal)) == "x"
    [entry] = [entry for entry in logs.entries if entry["event"] == "journal.crashed"]
    assert (entry["loop"], entry["error"]) == ("run", "RuntimeError")
    assert "secret" not in str(logs.entries)


async def test_leaving(machine: Machine, redis: Redis) -> None:
    """A process that ends has sent all, told all, gives its lease back, and leaves no connection and no task."""
    b = await machine.start(timing=SELDOM)
    before = asyncio.all_tasks()
    a = await machine.start(timing=SELDOM)
    writer = await a.journal.create("s", INFO)
    reader = asyncio.create_task(opened(b.journal))
    await until(lambda: a.owner.readers.get("s") == 1)
    lease, start = a.lease, asyncio.get_running_loop().time()
    writer.append([Delta("last"), DONE])
    await a.held.aclose()
    assert text(await reader) == "last"
    assert asyncio.get_running_loop().time() - start < SELDOM.renewal
    assert not redis.exists(lease)
    await until(lambda: len(redis.client_list()) == b.connections + 1)
    assert {task for task in asyncio.all_tasks() if "journal" in task.get_name()} <= before


async def test_leaving_during_loads_and_checks(machine: Machine) -> None:
    """A process may end in the middle of loads and checks."""
    patient = replace(FAST, pipeline=5.0)  # a busy machine may be slow to answer so many
    a, b = [await machine.start(timing=patient) for _ in "ab"]
    for number in range(50):
        (await a.journal.create(f"s{number}", INFO)).append([Delta("x")])
    logs = [asyncio.create_task(b.journal.open(f"s{number}")) for number in range(50)]
    await logs[0]
    for replica in b.journal._replicas.followed:
        b.journal._replicas.check(replica)
    await b.held.aclose()
    await asyncio.wait(logs)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(("load", "check"))]


async def test_what_cannot_be_left(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is another process's now, and that the owner cannot leave to it, is stopped: nothing reads it."""
    a = await machine.start()
    for left, stopped in ((True, []), (False, [("s", "journal_unavailable")])):
        monkeypatch.setattr(a.owner, "leave", lambda stream_id, left=left: left)
        a.journal._leave("s")
        assert a.owner.stopped == stopped
