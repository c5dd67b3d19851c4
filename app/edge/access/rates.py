"""Rates: how many requests a minute are admitted, counted in this process or in the storage that several share.

Requests are counted in a sliding window of two counters. A key holds two numbers, however many requests there were, and
no window has an edge at which twice as many are admitted at once. The window assumes that the last minute's requests
came evenly. A client that sends all of them in the last second, and then one whenever there is room, has close to twice
the limit within a minute. A window of timestamps would be exact, and would cost memory for each request.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from structlog.typing import FilteringBoundLogger

_WARN_EVERY = 10.0
# Requests to the shared storage at once: redis-py raises beyond its hundredth connection, which clients could provoke.
_AT_ONCE = 16
# How many seconds after a failure the shared storage is left alone.
_PAUSE = 1.0
# In how many parts the patience with the shared storage is measured.
_PARTS = 50

_T = TypeVar("_T")


class MemoryCounts(MemoryStorage):
    """The storage in memory of `limits`, which looks for expired keys once a minute only.

    The original looks on every request, which takes 1 ms of the event loop where there are 10,000 principals.
    """

    _SWEEP = 60.0

    def __init__(self) -> None:
        super().__init__()
        self._sweep_at = 0.0

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add *amount* to a key, which expires *expiry* seconds after its first addition, and return its sum."""
        now = time.time()
        if not now < self._sweep_at <= now + self._SWEEP:  # the sweep is due, or the clock was set back
            self._sweep_at = now + self._SWEEP
            for expired in [known for known, at in self.expirations.items() if at <= now]:
                await self.clear(expired)
        if not await self.get(key):
            self.expirations[key] = now + expiry
        self.storage[key] += amount
        return self.storage[key]


class Level(NamedTuple):
    """How much of a limit is used: *remaining* of *most* are left, and there are more in *reset* seconds."""

    most: int
    remaining: int
    reset: float
    policy: str

    @property
    def wait(self) -> int:
        """The whole seconds after which there are more: at least 1."""
        return max(1, math.ceil(self.reset))


class Rate(NamedTuple):
    """A limit on requests: as many per minute as *item* says, counted under *key*."""

    item: RateLimitItemPerMinute
    key: str


class Taken(NamedTuple):
    """The *levels* of some rates; a request was counted towards all of them, unless the one at index *full* is full."""

    full: int | None
    levels: list[Level]


class Rates(Protocol):
    """Counts requests."""

    async def take(self, rates: Sequence[Rate]) -> Taken:
        """Count a request towards all *rates*, or towards none if one of them has no room for it. Raises nothing."""


class Counts:
    """Rates that are counted in *storage*. `take` raises what the storage does."""

    def __init__(self, storage: Storage) -> None:
        self._window = SlidingWindowCounterRateLimiter(storage)

    async def take(self, rates: Sequence[Rate]) -> Taken:
        """See `Rates`.

        The first rate is taken first, so that a request which that refuses is not counted for the others. If another
        process takes the last of another between the test and the hit, the first one loses one.
        """
        full = await self._full(rates)
        return Taken(full, [await self._level(rate) for rate in rates])

    async def _full(self, rates: Sequence[Rate]) -> int | None:
        for index, rate in enumerate(rates[1:], 1):
            if not await self._window.test(*rate):
                return index
        for index, rate in enumerate(rates):
            if not await self._window.hit(*rate):
                return index
        return None

    async def _level(self, rate: Rate) -> Level:
        most = rate.item.amount
        reset_at, remaining = await self._window.get_window_stats(*rate)
        return Level(most, remaining, reset_at - time.time(), f"{most};w={rate.item.get_expiry()}")


class SharedCounts:
    """Rates that are counted in a *storage* that several processes share, and in this process as well.

    While the storage fails, or takes longer than *patience* seconds, the counts of this process decide: they hold what
    it has admitted before. A warning says so every 10 s, by the clock *now*.
    """

    def __init__(
        self,
        storage: Storage,
        log: FilteringBoundLogger,
        *,
        patience: float = 1.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared = Counts(storage)
        self._own = Counts(MemoryCounts())
        self._log = log
        self._patience = patience
        self._now = now
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._retry_at: float | None = None  # while the storage fails
        self._warned_at = -math.inf

    async def take(self, rates: Sequence[Rate]) -> Taken:
        """See `Rates`."""
        async with self._turns:
            now = self._now()
            if self._retry_at is None or now >= self._retry_at:
                if self._retry_at is not None:
                    self._retry_at = now + self._patience + _PAUSE  # one request finds out, and the others do not wait
                try:
                    taken = await _within(self._patience, self._shared.take(rates))
                except Exception as error:  # a storage's client may raise anything
                    self._failed(error)
                else:
                    self._retry_at = None
                    if taken.full is None:
                        await self._own.take(rates)
                    return taken
        return await self._own.take(rates)

    def _failed(self, error: Exception) -> None:
        """Warn that the storage fails. The error's message may hold an address and a password, so it is not logged."""
        now = self._now()
        self._retry_at = now + _PAUSE
        if now >= self._warned_at + _WARN_EVERY:
            self._warned_at = now
            self._log.warning("quota.unavailable", error=type(error).__name__)


async def _within(seconds: float, work: Coroutine[Any, Any, _T]) -> _T:
    """Return what *work* returns. Raises what it raises, or TimeoutError if it takes longer than *seconds*.

    Only the time in which the event loop runs counts. After something has held the loop, a timer that is due is served
    before the replies that came meanwhile have reached those who wait for them. So the time is measured in parts, none
    of which can count for more than its length, and in each of which the work goes on.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda task: task.cancelled() or task.exception())  # read, if the caller has given up
    try:
        for _ in range(_PARTS):
            done, _ = await asyncio.wait((task,), timeout=seconds / _PARTS)
            if done:
                return task.result()
        raise TimeoutError
    finally:
        task.cancel()
