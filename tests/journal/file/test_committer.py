"""Writing for many streams at once: when the disk refuses, is slow, or a record cannot be written."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest
from structlog.testing import LogCapture

from app.errors import JournalDown
from app.events import Delta, Done
from app.journal.file.journal import FileJournal
from app.usage import Usage
from tests.journal.file.disk import FAST, Disk
from tests.journal.processes import DONE, INFO, ending, opened, reading, text
from tests.waiting import until

pytestmark = pytest.mark.anyio


@contextmanager
def refusing(journal: FileJournal) -> Iterator[None]:
    """Have every write of a batch fail, as on a full disk."""
    database: Any = journal._store.database
    commit = database.commit

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    database.commit = fail
    try:
        yield
    finally:
        database.commit = commit


async def test_a_short_outage(disk: Disk, logs: LogCapture) -> None:
    """Live streams wait while the disk refuses, and then go on without a gap; new ones are refused meanwhile."""
    async with disk.start() as journal:
        writer = await journal.create("s", INFO)
        reader = await reading(journal)
        writer.append([Delta("a")])
        await until(lambda: writer.acked == 1)
        with refusing(journal):
            writer.append([Delta("b")])
            await until(lambda: not journal.ready)
            writer.append([Delta("c"), DONE])
            with pytest.raises(JournalDown):
                await journal.create("t", INFO)
            assert writer.log.last == 1
        await until(lambda: journal.ready)
        assert text(await reader) == "abc"
        await journal.create("t", INFO)
    events = [entry["event"] for entry in logs.entries if entry["event"].startswith("journal.")]
    assert events.count("journal.away") == events.count("journal.back") == 1


async def test_a_new_stream_as_the_disk_begins_to_refuse(disk: Disk) -> None:
    """It is refused, and is neither there later nor after a restart."""
    async with disk.start() as journal:
        with refusing(journal), pytest.raises(JournalDown):
            await journal.create("s", INFO)
        await until(lambda: journal.ready)
        assert (len(journal), journal.size) == (0, 0)
    async with disk.start() as journal:
        assert (await journal.streams_of("ann", 9)).streams == []


async def test_a_long_outage(disk: Disk) -> None:
    """After a while live streams end, and that end is what the disk has, too, once it takes it."""
    async with disk.start(patience=1) as journal:
        writer = await journal.create("s", INFO)
        writer.append([Delta("a")])
        await until(lambda: writer.acked == 1)
        with refusing(journal):
            writer.append([Delta("never shown")])
            reader = await reading(journal)
            assert ending(await reader) == "journal_unavailable"
            writer.append([DONE])
        expected = await reader
        await until(lambda: not journal._committer.writers)
    assert [code for _, code in disk.owner.stopped] == ["journal_unavailable"]
    async with disk.start() as journal:
        assert await opened(journal) == expected
        assert text(expected) == "a"


async def test_a_kill_before_the_end_is_written(disk: Disk) -> None:
    """The end that readers were told stays the end after a kill, although the disk does not have it yet."""
    async with disk.start(patience=1) as journal:
        writer = await journal.create("s", INFO)
        writer.append([Delta("a")])
        await until(lambda: writer.acked == 1)
        with refusing(journal):
            writer.append([Delta("never shown")])
            expected = await (await reading(journal))
            left = disk.killed()
        await until(lambda: not journal._committer.writers)
        await until(lambda: not (disk.folder / "given-up").read_bytes().strip(b"\0"))
    async with left.start() as journal:
        assert await opened(journal) == expected
        assert (text(expected), ending(expected)) == ("a", "journal_unavailable")


async def test_a_disk_that_hangs(disk: Disk) -> None:
    """A write that does not come back counts as an outage; if it comes back after all, it was too late."""
    async with disk.start(patience=1) as journal:
        writer = await journal.create("s", INFO)
        database: Any = journal._store.database
        commit = database.commit
        go = threading.Event()

        def hang(*arguments: Any) -> int:
            go.wait(30)
            database.commit = commit
            result: int = commit(*arguments)
            return result

        database.commit = hang
        writer.append([Delta("too late")])
        await until(lambda: not journal.ready)
        with pytest.raises(JournalDown):
            await journal.create("t", INFO)
        expected = await (await reading(journal))
        assert (text(expected), ending(expected)) == ("", "journal_unavailable")
        go.set()
        await until(lambda: journal.ready and not journal._committer.writers)
        left = disk.killed()
    async with left.start() as journal:
        assert await opened(journal) == expected


async def test_notes_that_hang(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the notes of ends are not removed in time, streams are written nevertheless."""
    go = threading.Event()
    async with disk.start(patience=1, timing=replace(FAST, note=0.05)) as journal:
        monkeypatch.setattr(journal._store.given_up, "forget", lambda: go.wait(30))
        writer = await journal.create("s", INFO)
        with refusing(journal):
            writer.append([Delta("never shown")])
            await opened(journal)
        await until(lambda: not journal._committer.writers)
        (await journal.create("t", INFO)).append([Delta("x"), DONE])
        assert text(await opened(journal, "t")) == "x"
        go.set()


@pytest.mark.parametrize("failing", ["note", "tell"])
async def test_all_ends_are_shown(disk: Disk, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    """If an end cannot be noted, or its stream's owner cannot be told, the readers of all streams see it."""

    def fail(*_: object) -> None:
        raise RuntimeError

    async with disk.start(patience=1) as journal:
        writers = [await journal.create(name, INFO) for name in "st"]
        with refusing(journal), monkeypatch.context() as patched:
            if failing == "note":
                patched.setattr(journal._store, "note_ends", fail)
            else:
                patched.setattr(disk.owner, "stop", fail)
            for writer in writers:
                writer.append([Delta("never shown")])
            assert [ending(await opened(journal, name)) for name in "st"] == ["journal_unavailable"] * 2


def too_deep() -> Done:
    """Return an event that cannot be written."""
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"a": deep}
    return Done("stop", None, Usage({"deep": deep}))


async def test_a_record_that_cannot_be_written(disk: Disk) -> None:
    """Its stream ends with an error; those that share the batch go on."""
    async with disk.start() as journal:
        bad = await journal.create("bad", INFO)
        good = await journal.create("good", INFO)
        bad.note("in the same batch")
        bad.append([too_deep()])
        good.append([Delta("x"), DONE])
        assert ending(await opened(journal, "bad")) == "internal_error"
        assert text(await opened(journal, "good")) == "x"
    async with disk.start() as journal:
        assert ending(await opened(journal, "bad")) == "internal_error"


async def test_a_record_that_cannot_be_written_in_an_outage(disk: Disk) -> None:
    """Its stream ends as the others do, if the disk does not take that error in time."""
    async with disk.start(patience=1) as journal:
        writer = await journal.create("s", INFO)
        with refusing(journal):
            writer.append([too_deep()])
            expected = await opened(journal)
        assert ending(expected) == "journal_unavailable"
        await until(lambda: not journal._committer.writers)
    async with disk.start() as journal:
        assert await opened(journal) == expected


async def test_a_request_that_leaves(disk: Disk) -> None:
    """A stream whose request was cancelled while it began does not stay."""
    async with disk.start() as journal:
        creating = asyncio.create_task(journal.create("s", INFO))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        creating.cancel()
        await asyncio.wait([creating])
        await journal._committer.flushed()
        left = disk.killed()
        assert len(journal) == 0
    async with left.start() as journal:
        assert (await journal.streams_of("ann", 9)).streams == []


async def test_much_at_once(disk: Disk) -> None:
    """What many streams have to write takes several batches, so that none of them holds the loop for long."""
    async with disk.start() as journal:
        database: Any = journal._store.database
        commit = database.commit
        batches: list[list[str]] = []

        def note(data: bytes, *more: object) -> object:
            batches.append([stream_id for stream_id, *_ in orjson.loads(data)])
            return commit(data, *more)

        writers = [await journal.create(f"s{number}", INFO) for number in range(5)]
        database.commit = note
        for writer in writers:
            writer.append([Delta("x")] * 600)
        await until(lambda: all(writer.log.last == 600 for writer in writers))
    assert batches == [["s0", "s1"], ["s2", "s3"], ["s4"]]


async def test_backpressure(disk: Disk) -> None:
    """A producer that is far ahead of the disk waits."""
    async with disk.start() as journal:
        writer = await journal.create("s", INFO)
        with refusing(journal):
            writer.append([Delta("x")] * 2000)
            assert writer.full
            draining = asyncio.create_task(writer.drain())
            await until(lambda: not journal.ready)
            assert not draining.done()
        await asyncio.wait_for(draining, 30)
        assert not writer.full


async def test_a_charge_comes_last(disk: Disk) -> None:
    """A charge is on disk no earlier than the end of its stream: that would be charged again if it was gone on with."""
    async with disk.start() as journal:
        database: Any = journal._store.database
        commit = database.commit
        batches: list[tuple[list[str], bool]] = []

        def note(data: bytes, accounts: Sequence[object]) -> object:
            batches.append(([stream_id for stream_id, *_ in orjson.loads(data)], bool(accounts)))
            return commit(data, accounts)

        writers = [await journal.create(f"s{number}", INFO) for number in range(5)]
        await journal.budgets.reserve("ann", "s4", 100, 10, 1)
        database.commit = note
        for writer in writers:
            writer.append([*[Delta("x")] * 600, DONE])
        await journal.budgets.settle("ann", "s4", 5)
        await until(lambda: all(writer.log.ended for writer in writers))
    assert batches == [(["s0", "s1"], False), (["s2", "s3"], False), (["s4"], True)]
