"""One stream's way into Redis, without one: what has arrived, and what is lost."""

from __future__ import annotations

import asyncio

import pytest

from app.errors import ProducerLost
from app.events import Delta, Done, Event, Failure
from app.journal.memory import MemoryJournal, MemoryLog
from app.journal.redis.outbox import RedisOutbox
from app.journal.redis.writer import RedisWriter
from app.journal.writer import BEHIND
from tests.journal.processes import INFO, ROOMY

pytestmark = pytest.mark.anyio

X, Y = map(Delta, "xy")
DONE = Done("stop")
LOST = Failure.of(ProducerLost())


@pytest.fixture
def outbox() -> RedisOutbox:
    return RedisOutbox()


@pytest.fixture
async def writer(outbox: RedisOutbox) -> RedisWriter:
    return RedisWriter(outbox, MemoryLog(MemoryJournal(ROOMY), "s", INFO), {})


def readable(writer: RedisWriter) -> list[Event]:
    return writer.log.records(0, writer.log.last)


async def test_what_has_arrived(writer: RedisWriter) -> None:
    """Records that are found in Redis are taken for sent, whichever batches they were in."""
    writer.append([X])
    writer.take()
    writer.append([Y, DONE])
    writer.arrived([X, Y])
    writer.acknowledge()
    assert (readable(writer), writer.acked, writer.waiting) == ([X, Y], 2, [DONE])


async def test_losing(writer: RedisWriter) -> None:
    """A log that another process has ended ends here in the same way, and takes nothing more."""
    writer.append([X])
    writer.take()
    writer.lose([LOST])
    writer.append([Y])
    assert (readable(writer), writer.taken, writer.waiting) == ([LOST], [], [])


async def test_a_loss_wakes_the_producer(writer: RedisWriter) -> None:
    """A producer that waits because too much is pending waits no longer once the log is lost."""
    writer.append([X] * (BEHIND + 1))
    waiting = asyncio.create_task(writer.drain())
    await asyncio.sleep(0)
    assert not waiting.done()
    writer.lose([LOST])
    await asyncio.wait_for(waiting, 30)
