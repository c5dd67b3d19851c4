"""Waiting for a state that comes without an event to wait for. What takes too long fails the test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def until(condition: Callable[[], T | None], timeout: float = 30) -> T:
    """Let the event loop run until *condition* returns something true, and return that."""
    async with asyncio.timeout(timeout):
        # At first once a turn of the loop, since most of what is awaited happens in this loop; then less busily.
        for _ in range(100):
            if value := condition():
                return value
            await asyncio.sleep(0)
        while not (value := condition()):
            await asyncio.sleep(0.002)
        return value


def wait_until(condition: Callable[[], object], timeout: float = 30) -> None:
    """Block until *condition* returns something true."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


async def counted_turns() -> int:
    """Return how many turns the loop took until this task is cancelled."""
    turns = 0
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(0)
            turns += 1
    return turns
