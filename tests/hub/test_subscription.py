"""One reader of one stream: its cursor, who counts it, and what becomes known of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack

import pytest
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.events import Batch, Delta, Done, Event, Start
from app.hub.stream import Stream
from app.hub.subscription import Subscription
from app.journal import Bounds
from app.journal.memory import MemoryJournal, MemoryLog
from app.meter import Meter
from app.rechunk import create
from app.relay import Limits, Relay
from app.request import ANYONE, StreamInfo, StreamRequest
from tests.script import Script, affordable

pytestmark = pytest.mark.anyio

RECORDS: Sequence[Event] = (Start("m", 1), Delta("a"))
DONE = Done("stop")


class Counter:
    """Counts readers in and out."""

    def __init__(self) -> None:
        self.reading: list[Subscription] = []

    def entered(self, reader: Subscription) -> None:
        self.reading.append(reader)

    def left(self, reader: Subscription) -> None:
        self.reading.remove(reader)


@pytest.fixture
async def written() -> MemoryLog:
    """The log of a live stream with two records."""
    log = await MemoryJournal(Bounds(1 << 20, 1 << 30, 10, 60)).create("s", StreamInfo("none"))
    log.append(RECORDS)
    return log


@pytest.fixture
async def stream(written: MemoryLog, log: FilteringBoundLogger) -> AsyncIterator[Stream]:
    """The stream that this process produces, with a grace of an hour."""
    request = StreamRequest("m", (), grace=3600, unknown_grace=3600)
    relay = Relay(Script(), request, create("none"), written, Limits(), Meter(), log, affordable)
    stream = Stream("s", ANYONE, request, relay, log)
    yield stream
    stream.end_grace()


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
async def reader(counter: Counter, written: MemoryLog, log: FilteringBoundLogger) -> Subscription:
    """A reader of the stream, which another process produces, after its first record."""
    return Subscription(counter, "s", written, None, 1, ANYONE, log)


async def test_reading(reader: Subscription, counter: Counter, written: MemoryLog) -> None:
    """It is counted while it is open, reads what follows its position, and leaves nothing behind."""
    assert (counter.reading, written.reading) == ([], 0)
    async with reader as batches:
        assert (counter.reading, written.reading) == ([reader], 1)
        written.append([DONE])
        assert [event async for batch in batches for event in batch.events] == [Delta("a"), DONE]
    assert (counter.reading, written.reading) == ([], 0)


async def test_a_reader_that_breaks_off(reader: Subscription, counter: Counter, written: MemoryLog) -> None:
    """An error in the reader takes nothing away from that: it is counted out, and its cursor is closed."""
    with pytest.raises(ZeroDivisionError):
        async with reader as batches:
            await anext(batches)
            raise ZeroDivisionError
    assert (counter.reading, written.reading) == ([], 0)
    assert [batch async for batch in batches] == []


async def test_positions(reader: Subscription, written: MemoryLog) -> None:
    """How far behind it is follows from what was sent to it. It is not exhausted while the log has more for it."""
    assert (reader.records_behind, reader.exhausted) == (1, False)
    reader.sent = Batch(2, [Delta("a")])
    assert reader.records_behind == 0
    written.append([DONE])
    assert (reader.records_behind, reader.exhausted) == (1, False)


async def test_exhausted(reader: Subscription, written: MemoryLog) -> None:
    """A reader that has all records of a live log waits for more."""
    reader.after = 2
    live = reader.exhausted
    written.append([DONE])
    reader.after = 3
    assert (live, reader.exhausted) == (False, True)


async def test_where_it_is_produced(
    reader: Subscription, counter: Counter, written: MemoryLog, stream: Stream, log: FilteringBoundLogger
) -> None:
    """What another process produces has no commit deadline here, and is elsewhere until it has ended."""
    here = Subscription(counter, "s", written, stream, 1, ANYONE, log)
    assert (reader.committed, reader.elsewhere) == (None, True)
    assert (here.committed, here.elsewhere) == (stream.relay.committed, False)
    written.append([DONE])
    assert not reader.elsewhere


async def test_the_stream_is_told(
    counter: Counter, written: MemoryLog, stream: Stream, log: FilteringBoundLogger
) -> None:
    """A stream of this process counts its readers itself."""
    here = Subscription(counter, "s", written, stream, 0, ANYONE, log)
    async with here:
        assert (stream.readers, stream.readers_total) == (1, 1)
    assert (stream.readers, stream.readers_total) == (0, 1)


@pytest.mark.parametrize(
    ("knows_id", "told", "is_known"), [(True, False, True), (False, False, False), (False, True, True)]
)
async def test_who_knows_the_stream(
    counter: Counter,
    written: MemoryLog,
    stream: Stream,
    log: FilteringBoundLogger,
    knows_id: bool,
    told: bool,
    is_known: bool,
) -> None:
    """A stream is known once a reader came that has its id, or was told it."""
    here = Subscription(counter, "s", written, stream, 0, ANYONE, log)
    here.knows_id = knows_id
    async with here:
        if told:
            here.told()
    assert (here.knows_id, stream.is_known) == (is_known, is_known)


async def test_a_stream_stays_known(
    counter: Counter, written: MemoryLog, stream: Stream, log: FilteringBoundLogger
) -> None:
    """A reader without the id takes nothing away from what is known."""
    stream.is_known = True
    here = Subscription(counter, "s", written, stream, 0, ANYONE, log)
    here.knows_id = False
    async with here:
        assert stream.is_known


async def test_dismissal(reader: Subscription) -> None:
    """It is sent away once, however often it is told."""
    before = reader.dismissed
    reader.dismiss()
    reader.dismiss()
    assert (before, reader.dismissed) == (False, True)
    await reader.dismissal


async def test_its_place(counter: Counter, written: MemoryLog, log: FilteringBoundLogger) -> None:
    """A place that was kept for it is given back just before it is counted itself."""
    place = ExitStack()
    seen: list[int] = []
    place.callback(lambda: seen.append(len(counter.reading)))
    reader = Subscription(counter, "s", written, None, 0, ANYONE, log, place)
    assert seen == []
    async with reader:
        assert seen == [0]
    assert seen == [0]


@pytest.mark.parametrize(
    ("sent", "dismissed", "facts"),
    [
        (Batch(2, [Delta("a")]), False, {"last_record": 2, "whole": False}),
        (Batch(2, [Delta("a"), DONE]), False, {"last_record": 3, "whole": True}),
        (None, True, {"last_record": 1, "whole": False, "dismissed": True}),
    ],
)
async def test_its_lines(
    reader: Subscription, logs: LogCapture, sent: Batch | None, dismissed: bool, facts: dict[str, object]
) -> None:
    """Its coming and its going are logged: from where, up to where, and whether it was sent away."""
    async with reader:
        if sent is not None:
            reader.sent = sent
        if dismissed:
            reader.dismiss()
    attached, detached = ({**entry, "log_level": ""} for entry in logs.entries)
    assert attached == {"event": "subscriber.attached", "log_level": "", "stream_id": "s", "after": 1}
    assert detached == {"event": "subscriber.detached", "log_level": "", "stream_id": "s", **facts}
