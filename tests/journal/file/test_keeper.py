"""What is kept on disk, for how long, and that nothing is left of what is not."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import LogCapture

from app.errors import JournalDown, UnknownStream
from app.events import Delta, Event
from app.journal.file.journal import FileJournal
from app.journal.file.reserve import NAME as RESERVE
from app.journal.file.writer import FileWriter
from app.request import StreamInfo
from tests.journal.file.disk import FAST, Disk
from tests.journal.processes import DONE, INFO, opened, text
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def ended(journal: FileJournal, stream_id: str, *texts: str, info: StreamInfo = INFO) -> None:
    """Write a stream to its end, and wait until it was moved."""
    writer = await journal.create(stream_id, info)
    events: list[Event] = [*map(Delta, texts), DONE]
    writer.append(events)
    await until(lambda: journal._committer.writer(stream_id) is None)


async def kept(journal: FileJournal, *stream_ids: str) -> str:
    """Return which of the streams are kept."""
    found = ""
    for stream_id in stream_ids:
        try:
            await journal.open(stream_id)
        except UnknownStream:
            continue
        found += stream_id
    return found


async def test_time(disk: Disk) -> None:
    """A stream goes when its time is up, in this process or in the next, and its content is nowhere in the files."""
    async with disk.start(seconds=60) as journal:
        await ended(journal, "a", "the-secret-of-a ", "more")
        await ended(journal, "b", "the-secret-of-b", info=replace_keep(10))
        assert disk.has("the-secret-of-a") and disk.has("the-secret-of-b")
        disk.now += 11
        await until(lambda: disk.gone == [("b", "time")])
        await until(lambda: not disk.has("the-secret-of-b"))
        assert await kept(journal, "a", "b") == "a"
        assert disk.has("the-secret-of-a")
    disk.now += 50
    async with disk.start(seconds=60) as journal:
        assert await kept(journal, "a", "b") == ""
        await until(lambda: disk.gone == [("b", "time"), ("a", "time")])
        await until(lambda: not disk.has("the-secret-of-a"))


def replace_keep(seconds: float) -> StreamInfo:
    return INFO._replace(keep=seconds)


async def test_removal(disk: Disk) -> None:
    """Nothing is left of a stream that was removed, and it does not come back after a kill."""
    async with disk.start() as journal:
        await ended(journal, "a", "the-secret-of-a")
        writer = await journal.create("b", INFO)
        writer.append([Delta("the-secret-of-b")])
        await until(lambda: writer.log.last == 1)
        await journal.remove("a")
        await journal.remove("b")
        assert await kept(journal, "a", "b") == ""
        left = disk.killed()
        writer.append([DONE])
        await until(lambda: not disk.has("the-secret-of"))
    async with left.start() as journal:
        assert await kept(journal, "a", "b") == ""
        await until(lambda: not left.has("the-secret-of"))


@pytest.mark.parametrize("partly", [True, False])
async def test_a_removal_that_fails(disk: Disk, monkeypatch: pytest.MonkeyPatch, partly: bool) -> None:
    """A stream that the disk would not delete is deleted once it does, and does not come back with the next process."""

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    # What is not moved while it is live stays in the batches.
    async with disk.start(timing=replace(FAST, moved=0.05 if partly else 1000)) as journal:
        writer = await journal.create("a", INFO)
        writer.note("n")
        writer.append([Delta("the-secret-of-a")])
        await until(lambda: writer.log.last == 1 and (writer.moved == 1 or not partly))
        monkeypatch.setattr(journal._store.database, "move", fail)
        monkeypatch.setattr(journal._store.database, "remove", fail)
        writer.append([DONE])
        await until(lambda: writer.ended_at)
        with pytest.raises(JournalDown):
            await journal.remove("a")
        assert await kept(journal, "a") == "a"
        monkeypatch.undo()
        await until(lambda: not journal._committer.writers)
        left = disk.killed()
        assert await kept(journal, "a") == ""
        await until(lambda: not disk.has("the-secret-of-a"))
    async with left.start() as journal:
        assert left.owner.orphans == []
        assert await kept(journal, "a") == ""
        await until(lambda: not left.has("the-secret-of-a"))
    assert disk.gone == []  # it was deleted, and not dropped for a lack of room or time


@pytest.mark.parametrize(
    ("bounds", "streams", "left", "reason"),
    [
        ({"ended": 2}, "a1 b1 a2 a3", "b1a3", "count"),
        ({"total": 70_000}, "a1 b1 a2 a3", "b1a3", "memory"),
        ({"owner": 70_000}, "a1 b1 a2 a3", "b1a2a3", "memory"),
        ({"owner": 40_000}, "-1 -2 -3", "-1-2-3", ""),
    ],
)
async def test_bounds(disk: Disk, bounds: dict[str, Any], streams: str, left: str, reason: str) -> None:
    """Above a bound the owner that has most loses what ended first; callers without credentials have no bound."""
    names = streams.split()
    for restarted in (False, True):
        async with disk.start(**bounds if restarted else {}) as journal:
            if not restarted:
                for name in names[:-1]:
                    await ended(journal, name, "x" * 30_000, info=StreamInfo("none", name[0].strip("-")))
            else:
                await ended(journal, names[-1], "x" * 30_000, info=StreamInfo("none", names[-1][0].strip("-")))
                assert await kept(journal, *names) == left
    assert {why for _, why in disk.gone} == ({reason} if reason else set())
    assert {name for name, _ in disk.gone} == set(names) - {left[at : at + 2] for at in range(0, len(left), 2)}


async def test_a_clock_that_was_put_back(disk: Disk) -> None:
    """A stream is kept for no longer than its time from then on."""
    async with disk.start(seconds=60) as journal:
        await ended(journal, "a")
    disk.now -= 1_000_000
    async with disk.start(seconds=60) as journal:
        assert await kept(journal, "a") == "a"
        disk.now += 61
        assert await kept(journal, "a") == "a"  # in memory, for a moment
        await until(lambda: disk.gone == [("a", "time")])


async def test_a_shorter_time(disk: Disk) -> None:
    """A setting that is shorter than before holds for what is kept already."""
    async with disk.start(seconds=60) as journal:
        await ended(journal, "a")
    disk.now += 20
    async with disk.start(seconds=10):
        await until(lambda: disk.gone == [("a", "time")])


async def test_batches_go(disk: Disk) -> None:
    """Batches of which everything was moved are deleted, and SQLite's log does not grow without bound."""
    async with disk.start() as journal:
        for number in range(20):
            await ended(journal, f"s{number}", "x" * 1000)
        await until(lambda: journal._store.database._first == journal._store.database.last)
        [(count,)] = await journal._store.read(
            lambda connection: connection.execute("SELECT count(*) FROM batches").fetchall()
        )
        assert count == 1
        await until(lambda: not disk.log_file.stat().st_size)


async def test_a_move_that_fails(disk: Disk, logs: LogCapture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that cannot be moved is readable all the same, is tried again, and is there after a kill."""
    async with disk.start() as journal:
        await ended(journal, "a")
        database = journal._store.database
        move = database.move

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(database, "move", fail)
        writer = await journal.create("b", INFO)
        writer.append([Delta("x"), DONE])
        await until(lambda: any(entry["event"] == "journal.not_moved" for entry in logs.entries))
        assert text(await opened(journal, "b")) == "x"
        left = disk.killed()
        monkeypatch.setattr(database, "move", move)
        await until(lambda: not journal._committer.writers)
        assert text(await opened(journal, "b")) == "x"
    async with left.start() as journal:
        assert text(await opened(journal, "b")) == "x"
    assert sum(entry["event"] == "journal.not_moved" for entry in logs.entries) == 1


async def test_what_expires_unmoved(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk too full to move a stream, its time passes nevertheless; nothing is left of it, also after a kill."""

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async with disk.start(seconds=60) as journal:
        monkeypatch.setattr(journal._store.database, "move", fail)
        writer = await journal.create("a", INFO)
        writer.append([Delta("the-secret-of-a"), DONE])
        await until(lambda: writer.ended_at)
        disk.now += 61
        await until(lambda: disk.gone == [("a", "time")])
        await until(lambda: not disk.has("the-secret-of-a"))
        assert await kept(journal, "a") == ""
        left = disk.killed()
    async with left.start() as journal:
        assert await kept(journal, "a") == ""


@pytest.mark.parametrize("seconds", [0, 60])
@pytest.mark.parametrize("adopted", [False, True])
async def test_what_expires_partly_moved(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, adopted: bool, seconds: float
) -> None:
    """Nothing is left of a stream of which a part was moved while it was live, even if the disk refuses at first."""
    async with AsyncExitStack() as held:
        journal = await held.enter_async_context(disk.start(seconds=seconds))
        writer = await journal.create("a", INFO)
        writer.note("n")
        writer.append([Delta("the-secret-of-a")])
        await until(lambda: writer.moved == 1)
        if adopted:
            await held.aclose()
            journal = await held.enter_async_context(disk.start(seconds=seconds))
            [orphan] = disk.owner.orphans
            assert isinstance(orphan.writer, FileWriter)
            writer = orphan.writer
        refused: list[str] = []

        def fail(stream_id: str) -> None:
            refused.append(stream_id)
            monkeypatch.undo()
            raise sqlite3.OperationalError("database or disk is full")

        def fail_to_move(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(journal._store.database, "move", fail_to_move)
        monkeypatch.setattr(journal._store.database, "remove", fail)
        writer.append([DONE])
        await until(lambda: writer.ended_at)
        disk.now += seconds
        await until(lambda: disk.gone == [("a", "time")])
        await until(lambda: not disk.has("the-secret-of-a"))
        assert refused == ["a"]
        query = "SELECT count(*) FROM streams"
        assert await journal._store.read(lambda connection: connection.execute(query).fetchone()) == (0,)


async def test_the_reserve_comes_back(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What there was no room to set aside is set aside once there is."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    async with disk.start() as journal:
        reserve = disk.folder / RESERVE
        assert reserve.stat().st_size == 0
        monkeypatch.undo()
        await until(lambda: reserve.stat().st_size == journal._store._reserve.size)


async def test_the_loop_looks_at_no_file(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """How large SQLite's log is, is asked for in a thread: a disk that hangs does not hold the event loop."""
    threads: set[str] = set()
    stat = Path.stat

    def noted(path: Path, **how: bool) -> os.stat_result:
        threads.add(threading.current_thread().name)
        return stat(path, **how)

    async with disk.start():
        monkeypatch.setattr(Path, "stat", noted)
        await until(lambda: threads)
        monkeypatch.undo()
    assert threads == {"journal writes"}


async def test_what_leaves_memory(disk: Disk) -> None:
    """An ended stream leaves memory soon, and is loaded when a reader comes for it, once for all that come."""
    async with disk.start(timing=replace(FAST, ended_nearby=0.02)) as journal:
        await ended(journal, "a", *["word "] * 3000)
        await until(lambda: not len(journal))
        assert journal.size == 0
        logs = [await journal.open("a") for _ in range(2)]
        assert logs[0] is logs[1]
        assert text(await opened(journal, "a")) == "word " * 3000
