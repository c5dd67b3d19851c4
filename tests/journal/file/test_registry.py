"""Idempotency keys and labels of streams that are on disk, or on their way there."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from app.errors import JournalDown, KeyReused, Rejected
from app.events import Delta, Done, Event, Failure, Start
from app.journal.file.journal import FileJournal
from app.request import StreamInfo
from tests.journal.file.disk import FAST, Disk
from tests.journal.processes import DONE, INFO
from tests.waiting import until

pytestmark = pytest.mark.anyio

LABELLED = StreamInfo("none", "ann", label="chat")


async def claimed(journal: FileJournal, stream_id: str, fingerprint: bytes = b"f") -> str | None:
    return await journal.registry.claim("ann", "key", fingerprint, stream_id)


@pytest.mark.parametrize("state", ["live", "ended", "moved", "killed", "restarted"])
async def test_a_key(disk: Disk, state: str) -> None:
    """A key stands for its stream whatever became of the stream, for its owner and its body alone."""
    async with disk.start(timing=replace(FAST, ended_nearby=0.01)) as journal:
        assert await claimed(journal, "s") is None
        writer = await journal.create("s", INFO)
        writer.append([Delta("x")] if state in ("live", "killed") else [Delta("x"), DONE])
        if state in ("moved", "restarted"):
            await until(lambda: not len(journal) and not journal._committer.writers)
        else:
            await until(lambda: writer.log.last > 0)
        left = disk.killed()
        if state not in ("killed", "restarted"):
            assert await claimed(journal, "other") == "s"
            with pytest.raises(KeyReused):
                await claimed(journal, "other", b"g")
    if state in ("killed", "restarted"):
        async with left.start() as journal:
            assert await claimed(journal, "other") == "s"
            with pytest.raises(KeyReused):
                await claimed(journal, "other", b"g")
            assert await journal.registry.claim("bob", "key", b"g", "bobs") is None


@pytest.mark.parametrize("when", ["live", "moved"])
async def test_a_release(disk: Disk, when: str) -> None:
    """A key that was released may be used for another stream, also after a kill."""
    async with disk.start(timing=replace(FAST, ended_nearby=0.01)) as journal:
        await claimed(journal, "s")
        writer = await journal.create("s", INFO)
        if when == "moved":
            writer.append([DONE])
            await until(lambda: not len(journal) and not journal._committer.writers)
        await journal.registry.release("s")
        assert await claimed(journal, "t") is None
        await journal._committer.flushed()
        left = disk.killed()
    async with left.start() as journal:
        assert await claimed(journal, "t") is None


@pytest.mark.parametrize(
    ("events", "free"),
    [
        ([Failure.of(Rejected())], True),
        ([Delta("x"), Failure.of(Rejected())], False),
        ([Failure.of(JournalDown())], False),
        ([Done("length")], False),
        ([Done("cancelled")], True),
    ],
)
async def test_a_kill_before_a_release(disk: Disk, events: list[Event], free: bool) -> None:
    """The key of a stream that ended unanswered is free after a kill, although there was no time to release it."""
    async with disk.start(timing=replace(FAST, sweep=60)) as journal:
        await claimed(journal, "s")
        writer = await journal.create("s", INFO)
        writer.append([Start("m", 1), *events])
        await until(lambda: writer.log.ended)
        left = disk.killed()
    async with left.start() as journal:
        assert await claimed(journal, "t") == (None if free else "s")


async def test_a_release_before_the_beginning(disk: Disk) -> None:
    """Of a stream that never began, nothing is written."""
    async with disk.start() as journal:
        await claimed(journal, "s")
        before = journal._committer.last
        await journal.registry.release("s")
        assert journal._store.database.last == before
        assert await claimed(journal, "t") is None


async def test_at_once(disk: Disk) -> None:
    """Of requests that come with a key at once one begins the stream, and the others wait until it is there."""
    async with disk.start() as journal:
        assert await claimed(journal, "s") is None
        others = [asyncio.create_task(claimed(journal, f"o{number}")) for number in range(5)]
        await asyncio.sleep(0.02)
        assert not any(other.done() for other in others)
        await journal.create("s", INFO)
        assert await asyncio.gather(*others) == ["s"] * 5


async def test_at_once_and_in_vain(disk: Disk) -> None:
    """If that one fails, exactly one of the others may try."""
    async with disk.start() as journal:
        assert await claimed(journal, "s") is None
        others = [asyncio.create_task(claimed(journal, f"o{number}")) for number in range(3)]
        await asyncio.sleep(0.02)
        await journal.registry.release("s")
        await until(lambda: any(other.done() for other in others))
        [began] = [number for number, other in enumerate(others) if other.done()]
        assert others[began].result() is None
        await journal.create(f"o{began}", INFO)
        assert sorted(map(str, await asyncio.gather(*others))) == sorted([str(None), f"o{began}", f"o{began}"])


async def test_labels(disk: Disk) -> None:
    """A label stands for the newest stream, in memory or on disk."""
    async with disk.start(timing=replace(FAST, ended_nearby=0.01)) as journal:
        assert await journal.registry.labelled("ann", "chat") is None
        for created, stream_id in ((1, "s"), (2, "t")):
            writer = await journal.create(stream_id, LABELLED._replace(created=created))
            writer.append([DONE])
        await until(lambda: not len(journal) and not journal._committer.writers)
        assert await journal.registry.labelled("ann", "chat") == "t"
        assert await journal.registry.labelled("bob", "chat") is None
        await journal.create("u", LABELLED._replace(created=3))
        assert await journal.registry.labelled("ann", "chat") == "u"
        writer = await journal.create("v", LABELLED._replace(created=4))
        writer.append([DONE])
        # "u" goes on, while the newest one ends and leaves memory.
        await until(lambda: len(journal) == 1 and len(journal._committer.writers) == 1)
        assert await journal.registry.labelled("ann", "chat") == "v"
