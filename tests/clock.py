"""Clocks that a test sets."""

from __future__ import annotations

import asyncio


class Clock:
    """Stands for `time.time` or `time.monotonic`: calling it returns *now*, in seconds."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class LoopClock(Clock):
    """Stands for the `time` of the running event loop: its timers go by this clock, however slow the machine is."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop().time())

    async def let_pass(self, seconds: float) -> None:
        """Let so much time pass, and then what is due happen, and what comes of that."""
        self.now += seconds
        for _ in range(10):  # turns of the loop
            await asyncio.sleep(0)
