"""A hub over a scripted upstream and a journal in memory: what the rooms from the hub upwards are tested with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from app.hub import Capacity, Hub, Observer, Spending
from app.journal import Bounds
from app.journal.memory import MemoryJournal
from app.meter import Meter
from app.relay import Limits
from app.request import StreamRequest
from app.telemetry.canonical_line import CanonicalLine
from app.telemetry.stream_counts import StreamCounts
from tests.script import Script


class House:
    """A hub whose upstream is *source*, or a `Script` of *steps*. Its journal keeps *ended* streams."""

    def __init__(
        self,
        log: Any,
        *steps: Any,
        source: Script | None = None,
        meter: Meter | None = None,
        capacity: Capacity | None = None,
        ended: int = 10,
        observers: Sequence[Observer] = (),
        first_reader: float = 10.0,
        spending: Spending | None = None,
    ) -> None:
        self.source = source or Script(*steps)
        self.meter = meter or Meter(["m"])
        self.journal = MemoryJournal(
            Bounds(1 << 20, 1 << 30, ended, 60), on_evict=lambda *eviction: self.hub.evicted(*eviction)
        )
        told = [CanonicalLine(), StreamCounts(self.meter), *observers]
        self.hub = Hub(
            self.journal, self.source, Limits(), capacity or Capacity(), self.meter, log, told, first_reader, spending
        )

    async def read(self, request: StreamRequest, after: int = 0) -> str:
        """Open a stream, read it to its end, read it again after record *after* if that is given, and return its id."""
        stream_id = await self.hub.open(request)
        for position in (0, after) if after else (0,):
            async with await self.hub.attach(stream_id, after=position) as batches:
                async for _ in batches:
                    pass
        return stream_id

    async def settled(self) -> None:
        """Wait for the hub's producers to end, and check that none of their streams is left."""
        async with asyncio.timeout(30):
            await asyncio.gather(*producers())
        assert self.hub.live == 0
        assert self.source.closed.is_set() or not self.source.started


def producers() -> list[asyncio.Task[Any]]:
    """Return the tasks that stream to the journal."""
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("stream ")]
