"""Pacing for one reader: bursts are spread evenly, and no record is later than a given time.

It sits between the reader's cursor and its encoder, so it slows down neither the upstream nor other readers. It spreads
whole records: a piece of a record would have no id to resume after.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator

from app.events import Batch, Event, Extra, Logprobs

# The least number of seconds between two steps: no display refreshes faster.
_STEP = 0.016


async def paced(batches: AsyncGenerator[Batch, None], seconds: float) -> AsyncGenerator[Batch, None]:
    """Yield the records of *batches* in order, none more than *seconds* after it came.

    A record that comes while none waits leaves at once; records that wait leave at even distances. Closing this closes
    *batches*.
    """
    clock = asyncio.get_running_loop().time
    waiting: deque[tuple[Event, float]] = deque()  # with the time by which it has to leave
    number = 0  # of the first record that waits
    leave_at = 0.0
    coming: asyncio.Future[Batch | None] | None = asyncio.ensure_future(anext(batches, None))
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
                    due = clock() + seconds
                    waiting.extend((event, due) for event in batch.events)
                    coming = asyncio.ensure_future(anext(batches, None))
            now = clock()
            if waiting and now >= leave_at:
                count, leave_at = _next_step(waiting, now)
                while count < len(waiting) and isinstance(waiting[count][0], (Logprobs, Extra)):
                    count += 1  # they leave with what they are about
                yield Batch(number, [waiting.popleft()[0] for _ in range(count)])
                number += count
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait((coming,))
        await batches.aclose()


def _next_step(waiting: deque[tuple[Event, float]], now: float) -> tuple[int, float]:
    """Return how many records leave now, and when the next one may: at the largest distance that leaves all in time."""
    distance = math.inf
    for place, (_, due) in enumerate(waiting):
        if place:
            distance = min(distance, (due - now) / place)
    if distance == math.inf:  # nothing waits behind this one: what comes next may leave as it comes
        return 1, now
    if distance >= _STEP:
        return 1, now + distance
    count = len(waiting) if distance <= 0 else min(len(waiting), math.ceil(_STEP / distance))
    return count, now + _STEP
