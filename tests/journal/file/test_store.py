"""The threads of a journal on disk."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing

import pytest
from structlog.testing import LogCapture

from app.errors import JournalDown
from app.journal import JournalRefused
from app.journal.file.store import Worker, reason
from tests.journal.file.disk import Disk
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def test_a_worker() -> None:
    """Calls are made one after the other, in a thread; each caller gets its own result or error."""
    worker = Worker("w")
    calls = [worker.call(lambda number=number: (number, threading.current_thread().name)) for number in range(3)]  # type: ignore[misc]  # mypy infers no default of a lambda
    assert await asyncio.gather(*calls) == [(number, "w") for number in range(3)]
    with pytest.raises(ZeroDivisionError):
        await worker.call(lambda: 1 // 0)
    worker.stop()
    worker.stop()
    assert "w" not in {thread.name for thread in threading.enumerate()}


async def test_a_thread_that_cannot_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that finds no room for a thread says so, and the next one has it."""
    worker = Worker("w")

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="can't start"):
        patched.setattr(threading.Thread, "start", refuse)
        await worker.call(lambda: 1)
    async with asyncio.timeout(30):
        assert await worker.call(lambda: 2) == 2
    worker.stop()


async def test_a_caller_that_leaves() -> None:
    """Its call is made nevertheless, and the thread goes on."""
    worker = Worker("w")
    go = threading.Event()
    made: list[int] = []

    def call() -> None:
        go.wait(30)
        made.append(1)

    task = asyncio.create_task(worker.call(call))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    go.set()
    assert await worker.call(lambda: made) == [1]
    worker.stop()


async def test_a_read_that_fails(disk: Disk, logs: LogCapture) -> None:
    """What cannot be read is a 503, and the log says why without the content."""

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("SELECT secret FROM nowhere")

    async with disk.start() as journal:
        with pytest.raises(JournalDown):
            await journal._store.read(fail)
    [entry] = [entry for entry in logs.entries if entry["event"] == "journal.unreadable"]
    assert (entry["error"], entry["reason"]) == ("OperationalError", "SQLITE_ERROR")


async def test_a_start_that_fails(disk: Disk) -> None:
    """It leaves neither a thread nor a lock behind."""
    disk.folder.mkdir()
    for name in ("lock", "streams.sqlite3"):
        (disk.folder / name).touch()
    before = threading.active_count()
    for _ in range(2):
        with pytest.raises(JournalRefused, match=r"streams\.sqlite3 is not a database"):
            async with disk.start():
                pass
    await until(lambda: threading.active_count() == before)
    disk.database.unlink()
    async with disk.start() as journal:
        assert journal.ready


async def test_a_disk_that_hangs_at_the_end(disk: Disk, logs: LogCapture) -> None:
    """The process does not wait for ever; it ends, and the thread with it."""
    go = threading.Event()
    async with asyncio.timeout(30):
        async with disk.start() as journal:
            hanging = asyncio.create_task(journal._store.write(go.wait, 60))
            await asyncio.sleep(0)
    assert [entry["reason"] for entry in logs.entries if entry["event"] == "journal.not_closed"] == ["the disk hangs"]
    go.set()
    await hanging
    await until(lambda: not any(thread.name.startswith("journal") for thread in threading.enumerate()))


async def test_a_close_that_fails(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread is left."""
    with pytest.raises(OSError, match="broken"):
        async with disk.start() as journal:
            close = journal._store._close

            def fail() -> None:
                close()
                raise OSError("broken")

            monkeypatch.setattr(journal._store, "_close", fail)
    await until(lambda: not any(thread.name.startswith("journal") for thread in threading.enumerate()))


def test_reasons() -> None:
    """The log has a word that can be looked up."""
    assert reason(OSError(28, "No space left on device")) == "No space left on device"
    with pytest.raises(sqlite3.Error) as caught, closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("x")
    assert reason(caught.value) == "SQLITE_ERROR"
    assert reason(TimeoutError()) == ""
