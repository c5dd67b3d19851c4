"""How late the event loop runs its timers, which shows that it is blocked or overloaded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.meter import Histogram


@contextmanager
def sampling(delay: Histogram, every: float = 0.5) -> Iterator[None]:
    """While the block runs, observe once in *every* seconds how many seconds late the running loop calls a timer.

    Time is taken from `time.monotonic`, because uvloop's own clock counts whole milliseconds.
    """
    loop = asyncio.get_running_loop()
    due = 0.0
    timer: asyncio.TimerHandle

    def arm() -> None:
        nonlocal due, timer
        due = time.monotonic() + every
        timer = loop.call_later(every, sample)

    def sample() -> None:
        delay.observe(max(0.0, time.monotonic() - due))
        arm()

    arm()
    try:
        yield
    finally:
        timer.cancel()
