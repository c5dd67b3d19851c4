"""The memory journal: one writer, many cursors, nothing lost between history and live."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from app.errors import StreamTooLarge, UnknownStream
from app.journal.memory import MemoryJournal, MemoryWriter
from app.model import Batch, Delta, Done, Event

pytestmark = pytest.mark.anyio


async def collected(journal: MemoryJournal, after: int = 0) -> list[Event]:
    found: list[Event] = []
    expected = after + 1
    async for batch in await journal.read("s", after):
        assert batch.first == expected
        expected = batch.last + 1
        found += batch.events
    return found


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal(1 << 20)


async def test_live_readers(journal: MemoryJournal) -> None:
    """Readers that wait at the end get every batch, all of them, in order, and stop after the terminal record."""
    log = await journal.create("s")
    readers = [asyncio.create_task(collected(journal)) for _ in range(3)]
    expected: list[Event] = []
    for number in range(5):
        await asyncio.sleep(0)
        events = [Delta(f"{number}a"), Delta(f"{number}b")]
        log.append(events)
        expected += events
    log.append([Done("stop")])
    for reader in readers:
        assert await reader == [*expected, Done("stop")]


async def test_every_position(journal: MemoryJournal) -> None:
    """A cursor opened after record k gives exactly the rest, for every k."""
    log = await journal.create("s")
    events: list[Event] = [*map(Delta, "abcdef"), Done("stop")]
    log.append(events)
    for after in range(len(events) + 1):
        assert await collected(journal, after) == events[after:]


async def test_replay_comes_in_few_bounded_batches(journal: MemoryJournal) -> None:
    """A long history is read in batches that are large, but bounded in records and in bytes."""
    log = await journal.create("s")
    log.append([Delta("x")] * 5000)
    log.append([Delta("y" * 40_000)] * 4)
    log.append([Done("stop")])
    batches: list[Batch] = [batch async for batch in await journal.read("s")]
    assert len(batches) < 20
    assert all(len(batch.events) <= 1024 for batch in batches)
    assert all(sum(len(e.text) for e in batch.events if isinstance(e, Delta)) < 150_000 for batch in batches)


async def test_a_reader_that_leaves_costs_nothing() -> None:
    """A reader that is cancelled while it waits leaves nothing behind in the log."""
    log = MemoryWriter(1 << 20)
    for _ in range(100):
        async with aclosing(log.cursor(0)) as cursor:
            reader = asyncio.ensure_future(anext(cursor))
            await asyncio.sleep(0)
            reader.cancel()
            await asyncio.wait([reader])
    assert repr(log) == "<MemoryWriter 0 records, 0 bytes, 0 waiting>"


async def test_nothing_follows_the_terminal_record(journal: MemoryJournal) -> None:
    """Appending to an ended stream is a programming error."""
    log = await journal.create("s")
    log.append([Done("stop")])
    with pytest.raises(RuntimeError):
        log.append([Delta("x")])


async def test_bound(journal: MemoryJournal) -> None:
    """A batch that would outgrow the bound is refused whole; the terminal record is taken all the same."""
    log = await journal.create("s")
    log.append([Delta("x")])
    with pytest.raises(StreamTooLarge):
        log.append([Delta("y"), Delta("z" * (1 << 20))])
    log.append([Done("stop")])
    assert await collected(journal) == [Delta("x"), Done("stop")]


async def test_unknown_and_discarded(journal: MemoryJournal) -> None:
    """An unknown stream is refused at the call; a discarded one is unknown, but open cursors read on to its end."""
    with pytest.raises(UnknownStream):
        await journal.read("s")
    log = await journal.create("s")
    cursor = await journal.read("s")
    await journal.discard("s")
    with pytest.raises(UnknownStream):
        await journal.read("s")
    log.append([Done("stop")])
    assert (await anext(cursor)).events == [Done("stop")]
