"""Pacing: spread evenly, never too late, nothing dropped, nothing reordered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from app.edge.pacing import paced
from app.events import Batch, Delta, Done, Event, Extra, Logprobs

pytestmark = pytest.mark.anyio


class Bursts:
    """A cursor that gives batches of so many records, the next one when it is told to."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.closed = False
        self.events: list[Event] = []
        self.go = asyncio.Semaphore(0)

    async def read(self) -> AsyncGenerator[Batch, None]:
        first = 1
        try:
            for place, size in enumerate(self.sizes):
                await self.go.acquire()
                events: list[Event] = [Delta(f"{first + number}") for number in range(size)]
                if place == len(self.sizes) - 1:
                    events[-1] = Done("stop")
                self.events += events
                yield Batch(first, events)
                first += size
        finally:
            self.closed = True


async def collected(spread: AsyncGenerator[Batch, None]) -> tuple[list[Event], list[tuple[float, int]]]:
    events: list[Event] = []
    steps: list[tuple[float, int]] = []
    async for batch in spread:
        assert batch.first == len(events) + 1
        events += batch.events
        steps.append((asyncio.get_running_loop().time(), len(batch.events)))
    return events, steps


async def test_a_burst_is_spread() -> None:
    """A burst leaves in many steps over its time, the first of them at once; the order is kept."""
    bursts = Bursts(200)
    bursts.go.release()
    began = asyncio.get_running_loop().time()
    events, steps = await collected(paced(bursts.read(), 0.3))
    assert events == bursts.events
    assert bursts.closed
    assert len(steps) >= 5
    assert steps[0][1] < 50
    assert steps[-1][0] - began >= 0.2


async def test_nothing_waits_for_nothing() -> None:
    """Records that come one by one, each after the last has left, leave as they come."""
    bursts = Bursts(1, 1, 1)
    spread = paced(bursts.read(), 60)
    async with asyncio.timeout(30):
        for number in (1, 2):
            bursts.go.release()
            assert (await anext(spread)).first == number
        bursts.go.release()
        assert (await anext(spread)).events == [Done("stop")]
        with pytest.raises(StopAsyncIteration):
            await anext(spread)


async def test_a_late_burst_hurries_what_waits() -> None:
    """Bursts that come on top of one another are all given out, in order."""
    bursts = Bursts(20, 20, 20)
    for _ in range(3):
        bursts.go.release()
    events, _ = await collected(paced(bursts.read(), 0.1))
    assert events == bursts.events


async def test_nothing_to_read() -> None:
    """A cursor that gives nothing ends it."""
    assert await collected(paced(Bursts().read(), 0.05)) == ([], [])


async def test_closing() -> None:
    """Closing it in the middle closes the cursor and leaves no task."""
    bursts = Bursts(100, 1)
    bursts.go.release()
    spread = paced(bursts.read(), 60)
    await anext(spread)
    before = len(asyncio.all_tasks())
    await spread.aclose()
    assert bursts.closed
    assert len(asyncio.all_tasks()) <= before


async def test_what_is_about_a_record_leaves_with_it() -> None:
    """Log probabilities and other fields are not parted from the text that they came with."""
    events: list[Event] = [event for _ in range(20) for event in (Delta("a"), Logprobs(), Extra({"a": 1}))]

    async def read() -> AsyncGenerator[Batch, None]:
        yield Batch(1, events)

    found = [batch async for batch in paced(read(), 0.1)]
    assert [event for batch in found for event in batch.events] == events
    assert len(found) > 1
    assert all(isinstance(batch.events[0], Delta) for batch in found)
