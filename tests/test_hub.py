"""The hub: who lives how long, and that nothing is left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.errors import Draining, Overloaded, Truncated
from app.hub import Hub, Subscription
from app.journal.memory import MemoryJournal
from app.model import Delta, Done, Event, Failure, StreamRequest
from app.relay import Limits
from tests.script import Script, forever

pytestmark = pytest.mark.anyio

ASKED = StreamRequest("m", ({"role": "user", "content": "hi"},))
DONE = (Done("stop"),)


class House:
    """A hub over a script, and its journal."""

    def __init__(self, log: FilteringBoundLogger, *steps: Any, max_streams: int = 10) -> None:
        self.source = Script(*steps)
        self.journal = MemoryJournal(1 << 20)
        self.hub = Hub(self.journal, self.source, Limits(), max_streams, log)

    async def settled(self) -> None:
        """Wait for the producers to end, and check that nothing is left of them."""
        async with asyncio.timeout(5):
            await asyncio.gather(*_producers())
        assert not self.hub.live
        assert len(self.journal) == 0


async def read(subscription: Subscription) -> list[Event]:
    async with subscription as batches:
        return [event async for batch in batches for event in batch.events]


async def test_whole(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """A stream is read to its end by its opener, leaves one canonical line, and nothing else."""
    house = House(log, (Delta("a"),), (Delta("é"),), DONE)
    events = await read(await house.hub.open(ASKED))
    assert events[1:3] == [Delta("a"), Delta("é")]
    await house.settled()
    (line,) = [entry for entry in logs.entries if entry["event"] == "stream.finished"]
    assert (line["reason"], line["deltas"], line["output_bytes"]) == ("stop", 2, 3)
    assert (line["subscribers_peak"], line["subscribers_total"]) == (1, 1)


async def test_the_last_reader_leaves(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """When the reader leaves in mid-stream, upstream is let go and the stream ends as cancelled."""
    house = House(log, (Delta("a"),), forever)
    async with await house.hub.open(ASKED) as batches:
        await anext(batches)
    await house.settled()
    assert house.source.closed.is_set()
    assert logs.entries[-1]["reason"] == "cancelled"


async def test_failure(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """A failed stream's canonical line is a warning with the error's code."""
    house = House(log, (Delta("a"),), Truncated())
    await read(await house.hub.open(ASKED))
    await house.settled()
    assert (logs.entries[-1]["event"], logs.entries[-1]["reason"]) == ("stream.failed", "upstream_truncated")
    assert logs.entries[-1]["log_level"] == "warning"


async def test_full(log: FilteringBoundLogger) -> None:
    """Over the bound, a new stream is refused; the place is free again when one ends."""
    house = House(log, forever, max_streams=1)
    async with await house.hub.open(ASKED):
        with pytest.raises(Overloaded):
            await house.hub.open(ASKED)
    await house.settled()
    async with await house.hub.open(ASKED):
        pass
    await house.settled()


async def test_drain_waits(log: FilteringBoundLogger) -> None:
    """A drain lets live streams finish, and takes no new ones."""
    go = asyncio.Event()
    house = House(log, (Delta("a"),), go.wait, DONE)
    reader = asyncio.create_task(read(await house.hub.open(ASKED)))
    drain = asyncio.create_task(house.hub.drain(5))
    await asyncio.sleep(0)
    assert not house.hub.ready
    assert repr(house.hub) == "<Hub draining, 1 live, 1 reading>"
    with pytest.raises(Draining):
        await house.hub.open(ASKED)
    go.set()
    await drain
    assert isinstance((await reader)[-1], Done)
    await house.settled()


async def test_drain_ends(log: FilteringBoundLogger) -> None:
    """What outlives the grace ends with an error of its own that its readers see."""
    house = House(log, (Delta("a"),), forever)
    reader = asyncio.create_task(read(await house.hub.open(ASKED)))
    await asyncio.sleep(0)
    await house.hub.drain(0.01)
    last = (await reader)[-1]
    assert isinstance(last, Failure)
    assert last.code == "shutting_down"
    await house.settled()


def _producers() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("stream ")]
