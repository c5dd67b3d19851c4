"""One stream's way into a journal: what is taken, acknowledged, put back and given up."""

from __future__ import annotations

import asyncio
import math

import pytest

import app.journal.memory
from app.errors import JournalDown
from app.events import Batch, Delta, Done, Event, Failure
from app.journal.memory import MemoryJournal, MemoryLog
from app.journal.outbox import Outbox
from app.journal.page import Kept, size_of
from app.journal.writer import BEHIND, GroupWriter
from tests.journal.processes import INFO, ROOMY

pytestmark = pytest.mark.anyio

X, Y = map(Delta, "xy")
DONE = Done("stop")
GIVEN_UP = Failure.of(JournalDown())


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
async def writer(outbox: Outbox) -> GroupWriter:
    return GroupWriter(outbox, MemoryLog(MemoryJournal(ROOMY), "s", INFO))


def readable(writer: GroupWriter) -> list[Event]:
    return writer.log.records(0, writer.log.last)


async def test_what_is_acknowledged_is_readable(writer: GroupWriter, outbox: Outbox) -> None:
    """Records are taken as a batch, and readable once they are acknowledged; what comes meanwhile waits."""
    writer.append([X])
    assert outbox.take_streams() == ["s"]
    assert writer.take() == (1, [X])
    writer.append([Y])
    assert readable(writer) == []
    writer.acknowledge()
    assert (readable(writer), writer.acked) == ([X], 1)
    assert writer.take() == (2, [Y])


async def test_a_record_is_measured_once(writer: GroupWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a record is measured when it is taken, and not again when it becomes readable to a reader."""
    measured: list[object] = []
    followed: list[Batch | None] = []

    def measure(it: Kept) -> int:
        measured.append(it)
        return size_of(it)

    monkeypatch.setattr(app.journal.memory, "size_of", measure)
    writer.log.follow(followed.append)
    writer.append([X, Y])
    writer.take()
    writer.append([DONE])
    writer.put_back()
    writer.take()
    writer.acknowledge()
    assert (measured, followed) == (["x", "y", DONE], [Batch(1, [X, Y, DONE])])


async def test_what_is_put_back_is_sent_again(writer: GroupWriter) -> None:
    """Records that were refused are sent again, before those that have come since."""
    writer.append([X])
    writer.take()
    writer.append([Y, DONE])
    writer.put_back()
    assert writer.take() == (1, [X, Y, DONE])


async def test_giving_up(writer: GroupWriter) -> None:
    """A writer that gives up ends its log here at once. Of what it has, only the end is sent after that."""
    writer.append([X])
    writer.take()
    writer.append([Y])
    writer.give_up(GIVEN_UP)
    writer.append([DONE])
    assert readable(writer) == [GIVEN_UP]
    writer.put_back()
    assert writer.take() == (1, [GIVEN_UP])


async def test_giving_up_with_the_end_under_way(writer: GroupWriter) -> None:
    """If the stream's own end arrives after all, it is the end, and no other one is sent."""
    writer.append([X, DONE])
    writer.take()
    writer.give_up(GIVEN_UP)
    writer.acknowledge()
    assert (readable(writer), writer.waiting, writer.acked) == ([GIVEN_UP], [], 2)


@pytest.mark.parametrize("how", ["acknowledged", "given up"])
async def test_drain(writer: GroupWriter, how: str) -> None:
    """A producer waits while too much is pending, and no longer once the log has ended."""
    writer.append([X] * BEHIND)
    await writer.drain()
    writer.append([X])
    waiting = [asyncio.create_task(writer.drain()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, False, False]
    if how == "acknowledged":
        writer.take()
        writer.acknowledge()
    else:
        writer.give_up(GIVEN_UP)
    await asyncio.wait_for(asyncio.gather(*waiting[1:]), 30)
    assert not writer.full


async def test_how_long_a_record_has_waited(writer: GroupWriter) -> None:
    """It is the oldest record that counts, until it is acknowledged, however often it is sent again."""
    clock = asyncio.get_running_loop().time
    assert writer.unacknowledged_since == math.inf
    before = clock()
    writer.append([X])
    first = writer.unacknowledged_since
    assert before <= first <= clock()
    writer.take()
    await asyncio.sleep(0.01)
    writer.append([Y])
    second = writer.waiting_since
    assert second > first == writer.unacknowledged_since
    writer.put_back()
    assert writer.unacknowledged_since == first
    writer.take()
    await asyncio.sleep(0.01)
    writer.append([DONE])
    writer.acknowledge()
    assert writer.unacknowledged_since > second
