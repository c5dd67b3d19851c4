"""Which streams that have ended are kept for a while."""

from __future__ import annotations

import pytest

from app.journal.memory import MemoryJournal, MemoryLog
from app.journal.redis.ended import Ended
from app.journal.redis.outbox import RedisOutbox
from app.journal.redis.writer import RedisWriter
from tests.journal.processes import INFO, ROOMY

pytestmark = pytest.mark.anyio


async def writer(name: str, stored: int = 1000) -> RedisWriter:
    writer = RedisWriter(RedisOutbox(), MemoryLog(MemoryJournal(ROOMY), name, INFO), {})
    writer.stored = stored
    return writer


def names(ended: Ended) -> str:
    return "".join(writer.id for writer in ended.writers)


async def test_time() -> None:
    """A stream is kept for some seconds, whether or not another one ends."""
    ended = Ended(30)
    for now, name in enumerate("abc"):
        ended.add(await writer(name), now)
    ended.prune(29.9)
    assert names(ended) == "abc"
    ended.prune(31)
    assert names(ended) == "c"
    ended.add(await writer("d"), 50)
    assert names(ended) == "d"


async def test_room() -> None:
    """Older streams are dropped for a newer one, but not for one that is too large to be kept."""
    ended = Ended(30)
    for name in "abc":
        ended.add(await writer(name, 6 << 20), 0)
    assert names(ended) == "bc"
    ended.add(await writer("d", 17 << 20), 0)
    assert names(ended) == "bc"
    ended.add(await writer("e", 16 << 20), 0)
    assert names(ended) == "e"


async def test_removal() -> None:
    """A stream that was deleted is not kept, and its room is free."""
    ended = Ended(30)
    a = await writer("a", 10 << 20)
    ended.add(a, 0)
    assert ended.get("a") is a
    for _ in range(2):
        ended.remove("a")
        assert ended.get("a") is None
    for name in "bc":
        ended.add(await writer(name, 8 << 20), 0)
    assert names(ended) == "bc"
