"""What waits for the next batch, and whether that may wait."""

from __future__ import annotations

import asyncio

import pytest

from app.journal.file.outbox import FileOutbox

pytestmark = pytest.mark.anyio


async def test_a_pause() -> None:
    """What comes within the pause shares the batch, and whatever is in a hurry ends it."""
    outbox = FileOutbox()
    outbox.mark("a")
    gathering = asyncio.create_task(outbox.gather(60))
    await asyncio.sleep(0)
    outbox.mark("b")
    await asyncio.sleep(0)
    assert not gathering.done()
    outbox.hurry()
    await asyncio.wait_for(gathering, 30)
    assert (outbox.take_streams(), outbox.wake.is_set()) == (["a", "b"], False)


async def test_a_hurry_before_the_pause() -> None:
    """There is no pause at all then; the next batch has one again."""
    outbox = FileOutbox()
    outbox.hurry()
    assert outbox.wake.is_set()
    await asyncio.wait_for(outbox.gather(60), 30)
    gathering = asyncio.create_task(outbox.gather(60))
    await asyncio.sleep(0)
    assert not gathering.done()
    gathering.cancel()


async def test_the_end_of_the_pause() -> None:
    """The pause ends by itself."""
    await asyncio.wait_for(FileOutbox().gather(0.001), 30)
    await asyncio.wait_for(FileOutbox().gather(-1), 30)
