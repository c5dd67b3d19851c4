"""Pacing for one reader: bursts are spread evenly, at most so many seconds behind.

It sits between the reader's cursor and its encoder, so it slows down neither upstream nor anybody else. A record is the
least that is spread: a piece of one would have no id to resume after.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator

from app.events import Batch, Event

# Finer than a display refreshes is not worth waking up for.
_BEAT = 0.016


async def smoothed(
    batches: AsyncGenerator[Batch, None], spread: float, first: Batch | None = None
) -> AsyncGenerator[Batch, None]:
    """Yield the records of *first* and *batches*, none more than *spread* seconds after it came.

    A record that comes while nothing waits leaves at once; those that wait leave at even distances. Nothing is dropped
    and nothing reordered. Owns *batches*: closing this closes them.
    """
    clock = asyncio.get_running_loop().time
    waiting: deque[tuple[Event, float]] = deque()  # with the time by which it has to leave
    number = 0  # of the first record that waits
    leave_at = 0.0
    coming: asyncio.Future[Batch | None] | None = (
        _settled(first) if first else asyncio.ensure_future(anext(batches, None))
    )
    try:
        while coming or waiting:
            pause = max(0.0, leave_at - clock()) if waiting else None
            if coming is None:
                await asyncio.sleep(pause or 0.0)
            elif (await asyncio.wait((coming,), timeout=pause))[0]:
                batch = coming.result()
                coming = None
                if batch is not None:
                    number = number or batch.first
                    due = clock() + spread
                    waiting.extend((event, due) for event in batch.events)
                    coming = asyncio.ensure_future(anext(batches, None))
            now = clock()
            if waiting and now >= leave_at:
                count, leave_at = _share(waiting, now)
                yield Batch(number, [waiting.popleft()[0] for _ in range(count)])
                number += count
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait((coming,))
        await batches.aclose()


def _settled(batch: Batch) -> asyncio.Future[Batch | None]:
    future: asyncio.Future[Batch | None] = asyncio.get_running_loop().create_future()
    future.set_result(batch)
    return future


def _share(waiting: deque[tuple[Event, float]], now: float) -> tuple[int, float]:
    """Return how many records leave now, and when the next one may: at the largest distance that leaves all in time."""
    distance = math.inf
    for place, (_, due) in enumerate(waiting):
        if place:
            distance = min(distance, (due - now) / place)
    if distance == math.inf:  # nothing waits behind this one: what comes next may leave as it comes
        return 1, now
    if distance >= _BEAT:
        return 1, now + distance
    count = len(waiting) if distance <= 0 else min(len(waiting), math.ceil(_BEAT / distance))
    return count, now + _BEAT
