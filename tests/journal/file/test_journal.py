"""A journal on disk: what the next process finds, and what is told to readers when something is missing."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import LogCapture

from app.errors import JournalLost, UnknownStream
from app.events import Delta, Event
from app.journal import JournalRefused
from app.journal.file import reading
from app.journal.file.journal import FileJournal, steady_clock
from app.request import StreamInfo
from tests.journal.file.disk import FAST, Disk
from tests.journal.processes import DONE, INFO, ending, opened, text
from tests.journal.test_journal_contract import EVERY
from tests.waiting import until

pytestmark = pytest.mark.anyio

ANN = StreamInfo("word", "ann\udcff", 3, "chat", True, '{"a":1}', 900.0, "m", 17, '{"title":"T"}')


async def write(journal: FileJournal, stream_id: str, *events: Event, info: StreamInfo = INFO) -> None:
    """Write a stream, as far as *events* go, each in a batch of its own."""
    writer = await journal.create(stream_id, info)
    for number, event in enumerate(events, 1):
        writer.append([event])
        await until(lambda: writer.log.last == number)  # noqa: B023 - awaited at once


async def moved(journal: FileJournal) -> None:
    """Wait until all streams were moved."""
    await until(lambda: not journal._committer.writers)


@pytest.mark.parametrize("wait", [True, False])
async def test_a_restart(disk: Disk, wait: bool) -> None:
    """All of an ended stream is there after a restart, whether or not it was moved before."""
    async with disk.start() as journal:
        await write(journal, "s", *EVERY, info=ANN)
        if wait:
            await moved(journal)
    async with disk.start() as journal:
        log = await journal.open("s")
        assert (log.info, log.last, log.ended) == (ANN, len(EVERY), True)
        for after in range(len(EVERY) + 1):
            assert await opened(journal, after=after) == EVERY[after:]
        listing = await journal.streams_of("ann\udcff", 9)
        assert [(each.stream_id, each.info, each.state, each.last) for each in listing.streams] == [
            ("s", ANN, "done", len(EVERY))
        ]
        assert await journal.live("s") is None
        assert await journal.registry.labelled("ann\udcff", "chat") == "s"


async def test_what_was_live(disk: Disk, logs: LogCapture) -> None:
    """A stream that was live when its process died ends with `producer_lost`, after all that was sent of it."""
    async with disk.start() as journal:
        await write(journal, "s", Delta("a"), Delta("b"))
        await journal.create("empty", INFO)
        left = disk.killed()
    async with left.start() as journal:
        events = await opened(journal)
        assert (text(events), ending(events), len(events)) == ("ab", "producer_lost", 3)
        assert ending(await opened(journal, "empty")) == "producer_lost"
        assert await opened(journal, after=2) == events[2:]
        with pytest.raises(JournalLost) as lost:
            await journal.open("s", 4)
        assert lost.value.info == INFO
        assert {each.state for each in (await journal.streams_of("ann", 9)).streams} == {"error"}
    assert {entry["stream_id"] for entry in logs.entries if entry["event"] == "stream.producer_lost"} == {"s", "empty"}
    async with left.start() as journal:
        assert await opened(journal) == events


async def test_the_death_of_a_process_that_recovers(disk: Disk) -> None:
    """What one start has ended, the next one finds as it is."""
    async with disk.start() as journal:
        await write(journal, "s", Delta("a"))
        left = disk.killed()
    async with left.start():
        again = left.killed()
    async with again.start() as journal:
        assert [ending(await opened(journal)), (await journal.open("s")).last] == ["producer_lost", 2]


@pytest.mark.parametrize("damage", ["truncated", "zeroed", "doubled", "deleted"])
async def test_a_damaged_tail(disk: Disk, damage: str) -> None:
    """Where records that were sent may be gone, no number of theirs is used again; what had ended before is whole."""
    async with disk.start(timing=replace(FAST, sweep=60)) as journal:
        await write(journal, "whole", *EVERY)
        await moved(journal)
        await journal._store.write(journal._store.database.checkpoint)
        await write(journal, "s", Delta("a"), Delta("b"), Delta("c"))
        left = disk.killed()
    log = left.log_file
    data = log.read_bytes()
    assert len(data) > 3 * 4120
    match damage:
        case "truncated":
            log.write_bytes(data[:-4120])
        case "zeroed":
            log.write_bytes(data[:-4120] + bytes(4120))
        case "doubled":
            log.write_bytes(data + data[-4120:])
        case "deleted":
            log.unlink()
    async with left.start() as journal:
        assert await opened(journal, "whole") == EVERY
        if damage == "doubled":  # nothing is missing then
            assert text(await opened(journal)) == "abc"
        else:
            for after in range(5):
                with pytest.raises(UnknownStream if damage == "deleted" else JournalLost):
                    await journal.open("s", after)


@pytest.mark.parametrize("then", [False, True])
@pytest.mark.parametrize(("durable", "lost"), [(False, True), (True, False)])
async def test_a_power_loss(disk: Disk, durable: bool, lost: bool, then: bool) -> None:
    """After another boot, what was live is lost, unless each record was on the disk before it was sent.

    What the next process does with its own records changes nothing of that.
    """
    async with disk.start(durable=durable) as journal:
        await write(journal, "s", Delta("a"))
        left = disk.killed()
    mark = left.folder / "acknowledged"
    before = mark.read_bytes()
    mark.write_bytes(before[:8] + b"another boot".ljust(55, b"\0") + before[63:])
    async with left.start(durable=then) as journal:
        if lost:
            with pytest.raises(JournalLost):
                await journal.open("s")
            assert [each.state for each in (await journal.streams_of("ann", 9)).streams] == ["error"]
        else:
            assert ending(await opened(journal)) == "producer_lost"


async def test_before_it_is_written(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record is readable once it is written, and not before; what comes meanwhile is written together."""
    async with disk.start() as journal:
        writer = await journal.create("s", INFO)
        held = asyncio.Event()
        write = journal._store.write

        async def slowly(*arguments: Any) -> Any:
            await held.wait()
            return await write(*arguments)

        monkeypatch.setattr(journal._store, "write", slowly)
        for letter in "abc":
            writer.append([Delta(letter)])
            await asyncio.sleep(0.01)
        assert writer.log.last == 0
        before = journal._committer.last
        held.set()
        await until(lambda: writer.log.last == 3)
        assert journal._committer.last <= before + 2


async def test_a_stream_that_is_long_live(disk: Disk) -> None:
    """A live stream's batches are deleted while it goes on, and all of it is there after a kill."""
    async with disk.start() as journal:
        writer = await journal.create("s", INFO)
        expected = ""
        for number in range(3):
            events: list[Event] = [Delta(f"{number}.{each} ") for each in range(200)]
            writer.append(events)
            expected += text(events)
            await until(lambda: writer.moved == 200 * (number + 1))  # noqa: B023 - awaited at once
        writer.append([Delta("end")])
        expected += "end"
        await until(lambda: writer.log.last == 601)
        left = disk.killed()
        writer.append([DONE])
        assert text(await opened(journal)) == expected
        await moved(journal)
    async with left.start() as journal:
        events = await opened(journal)
        assert (text(events), ending(events), len(events)) == (expected, "producer_lost", 602)
    async with disk.start() as journal:
        assert [text(await opened(journal)), ending(await opened(journal))] == [expected, "done"]


async def test_a_stream_that_comes_near_its_bound(disk: Disk) -> None:
    """A stream that was within its bound is read again, although it takes more while it is loaded."""
    async with disk.start(stream=20_000, timing=replace(FAST, ended_nearby=0.02)) as journal:
        writer = await journal.create("s", INFO)
        for number in range(1, 11):
            writer.append([Delta("x")] * 64)
            await until(lambda: writer.log.last == 64 * number)  # noqa: B023 - awaited at once
        writer.append([DONE])
        await moved(journal)
        await until(lambda: not len(journal))
        assert text(await opened(journal)) == "x" * 640


async def test_a_removal_during_a_load(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that comes first does not get a stream that is removed meanwhile, and nothing of it stays counted."""
    async with disk.start(timing=replace(FAST, ended_nearby=0.02)) as journal:
        await write(journal, "s", Delta("x"), DONE)
        await moved(journal)
        await until(lambda: not len(journal))
        read = journal._store.read
        at_rows, removed = asyncio.Event(), asyncio.Event()

        async def slowly(call: Any, *arguments: Any) -> Any:
            result = await read(call, *arguments)
            if call is reading.rows:
                at_rows.set()
                await removed.wait()
            return result

        monkeypatch.setattr(journal._store, "read", slowly)
        opening = asyncio.create_task(journal.open("s"))
        await at_rows.wait()
        await journal.remove("s")
        removed.set()
        with pytest.raises(UnknownStream):
            await opening
        assert journal.size == 0


async def test_a_load_during_a_removal(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that a reader loads just before it is deleted is not there afterwards."""
    async with disk.start() as journal:
        await write(journal, "s", Delta("x"), DONE)
        await moved(journal)
        write_now = journal._store.write

        async def after_a_reader(call: Any, *arguments: Any) -> Any:
            if call == journal._store.database.remove:
                await journal.open("s")
            return await write_now(call, *arguments)

        monkeypatch.setattr(journal._store, "write", after_a_reader)
        await journal.remove("s")
        with pytest.raises(UnknownStream):
            await journal.open("s")


async def test_the_clock() -> None:
    """Time passes as on a clock that is never set."""
    clock = steady_clock()
    first = clock()
    assert 1.6e9 < first <= clock() < first + 60


def is_clear(journal: FileJournal) -> bool:
    """Whether no batch is left but the empty one."""
    database = journal._store.database
    return 1 < database.last == database._empty


@pytest.mark.parametrize("waits", [False, True])
async def test_a_note(disk: Disk, logs: LogCapture, waits: bool) -> None:
    """A live stream with a note is handed over to the next process, which goes on where its log ends."""
    async with disk.start() as journal:
        assert await journal.registry.claim("ann", "key", b"print", "s") is None
        writer = await journal.create("s", INFO._replace(label="chat"))
        writer.append([Delta("a")])
        writer.note("old")
        writer.note("new")
        writer.append([Delta("b")])
        await until(lambda: writer.log.last == 2)
        if waits:  # until all that was written is moved, and the batches with it are gone
            await until(lambda: writer.stored == writer.identity and writer.moved == 2)
            await until(lambda: is_clear(journal))
        left = disk.killed()
    for last in (2, 3):
        async with left.start() as journal:
            [orphan] = left.owner.orphans
            assert (orphan.stream_id, orphan.note, orphan.log.last) == ("s", "new", last)
            assert await journal.live("s") == INFO._replace(label="chat")
            assert [each.state for each in (await journal.streams_of("ann", 9)).streams] == ["live"]
            assert await journal.registry.claim("ann", "key", b"print", "other") == "s"
            assert await journal.registry.labelled("ann", "chat") == "s"
            orphan.writer.append([Delta("c")])
            log = await journal.open("s")
            await until(lambda: log.last == last + 1)  # noqa: B023 - awaited at once
            left.owner.orphans.clear()
    async with left.start() as journal:
        [orphan] = left.owner.orphans
        orphan.writer.append([DONE])
        assert await opened(journal) == [Delta("a"), Delta("b"), Delta("c"), Delta("c"), DONE]
        await moved(journal)
        orphan.writer.note("late")
    async with left.start() as journal:
        assert len(left.owner.orphans) == 1
        assert len(await opened(journal)) == 5
        assert not left.has('"late"')


async def test_a_note_of_a_damaged_stream(disk: Disk) -> None:
    """A stream that cannot be loaded is not handed over. It ends, and its readers are told."""
    async with disk.start() as journal:
        writer = await journal.create("s", INFO)
        writer.note("n")
        writer.append([Delta("a")])
        await until(lambda: writer.moved == 1 and is_clear(journal))
        left = disk.killed()
    with closing(sqlite3.connect(left.database, isolation_level=None)) as connection:
        assert connection.execute("UPDATE records SET data = '{}'").rowcount == 1
    for _ in range(2):
        async with left.start() as journal:
            assert left.owner.orphans == []
            with pytest.raises(JournalLost):
                await opened(journal)


async def test_a_note_of_a_stream_that_says_nothing(disk: Disk) -> None:
    """A stream that has a note, and no record for long, is there at the next start."""
    async with disk.start() as journal:
        writer = await journal.create("s", INFO)
        await until(lambda: writer.stored is not None)
        writer.note("n")
        await until(lambda: writer.stored == writer.identity)
        await until(lambda: is_clear(journal))
        left = disk.killed()
    async with left.start():
        [orphan] = left.owner.orphans
        assert (orphan.note, orphan.log.last) == ("n", 0)


@pytest.mark.parametrize("look", ["live", "rows"])
async def test_a_note_on_a_disk_that_refuses(disk: Disk, monkeypatch: pytest.MonkeyPatch, look: str) -> None:
    """If what a stream with a note has cannot be read, the process does not start, and goes on with no other one."""
    async with disk.start() as journal:
        for stream_id in ("s", "t"):
            writer = await journal.create(stream_id, INFO)
            writer.note("n")
            writer.append([Delta("a")])
        await until(lambda: writer.log.last == 1)
        left = disk.killed()
    read = []

    def refuse(*given: Any) -> Any:
        read.append(given)
        if len(read) == 2:
            raise sqlite3.OperationalError("disk I/O error")
        return real(*given)

    real = getattr(reading, look)

    with monkeypatch.context() as patched:
        patched.setattr(reading, look, refuse)
        with pytest.raises(JournalRefused, match="cannot be read or written"):
            async with left.start():
                pass
    assert (len(read), left.owner.orphans) == (2, [])
    async with left.start():
        assert [orphan.note for orphan in left.owner.orphans] == ["n", "n"]
