"""Idempotency keys and labels of streams that are on disk, or on their way there."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from app.errors import KeyReused
from app.events import Delta
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
        left = disk.killed()
        assert await claimed(journal, "t") is None
    async with left.start() as journal:
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
