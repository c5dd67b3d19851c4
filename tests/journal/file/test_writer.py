"""The writer of a stream on disk, where it differs from others: what comes late makes room for the end."""

from __future__ import annotations

import pytest

from app.errors import JournalDown
from app.events import Delta, Done, Failure
from app.journal.file.entries import Identity
from app.journal.file.outbox import FileOutbox
from app.journal.file.writer import FileWriter
from app.journal.memory import MemoryJournal, MemoryLog
from tests.journal.processes import INFO, ROOMY

pytestmark = pytest.mark.anyio

X, Y = map(Delta, "xy")
GIVEN_UP = Failure.of(JournalDown())


@pytest.fixture
async def writer() -> FileWriter:
    return FileWriter(FileOutbox(), MemoryLog(MemoryJournal(ROOMY), "s", INFO), Identity(""))


async def test_what_comes_late(writer: FileWriter) -> None:
    """What was written after the stream was given up was shown to no reader, and the end has its number."""
    writer.append([X])
    writer.take()
    writer.acknowledge()
    writer.append([Y, Done("stop")])
    writer.take()
    writer.give_up(GIVEN_UP)
    writer.acknowledge()
    assert (writer.finished, writer.take()) == (False, (2, [GIVEN_UP]))
    assert not writer.log.ended
    writer.acknowledge()
    assert (writer.finished, writer.acked, writer.log.records(0, 9)) == (True, 2, [X, GIVEN_UP])


async def test_what_is_given_up(writer: FileWriter) -> None:
    """Readers see the end once they may, and nothing after it."""
    writer.append([X])
    writer.give_up(GIVEN_UP)
    writer.append([Y])
    assert not writer.log.ended
    writer.show_end()
    writer.show_end()
    assert (writer.end, writer.log.records(0, 9), writer.waiting) == (1, [GIVEN_UP], [GIVEN_UP])


async def test_what_fails(writer: FileWriter) -> None:
    """An end that takes the place of what cannot be written is seen once it is written itself."""
    writer.append([X])
    writer.take()
    writer.fail(GIVEN_UP)
    writer.append([Y])
    assert (writer.log.last, writer.take()) == (0, (1, [GIVEN_UP]))
    writer.acknowledge()
    assert (writer.finished, writer.log.records(0, 9)) == (True, [GIVEN_UP])


async def test_the_first_record_is_in_a_hurry(writer: FileWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client has seen nothing yet."""
    hurried = []
    monkeypatch.setattr(writer.outbox, "hurry", lambda: hurried.append(writer.acked))
    for event in (X, Y):
        writer.append([event])
        writer.take()
        writer.acknowledge()
    assert hurried == [0]
