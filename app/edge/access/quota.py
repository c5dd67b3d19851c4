"""Quotas: requests per minute and output tokens per day, for each principal and for all principals together.

Requests are counted in a sliding window of two counters. A key holds two numbers, however many requests there were, and
no window has an edge at which twice as many are admitted at once. The window assumes that the last minute's requests
came evenly. A client that sends all of them in the last second, and then one whenever there is room, has close to twice
the limit within a minute. A window of timestamps would be exact, and would cost memory for each request.

Tokens are counted for a day from the first charge on; nothing is carried over into the next day. The tokens of a stream
are known when it has ended, so streams that are live together can exceed a budget. They are charged all the same.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from structlog.typing import FilteringBoundLogger

from app.errors import BudgetSpent, RateExceeded, StreamError
from app.hub import Observer, Outcome
from app.request import Principal

_DAY = 86_400
_WARN_EVERY = 10.0


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


class Standing(NamedTuple):
    """Where a principal stands: *refusal* is why it may not go on, or None; *headers* tell it of its limits."""

    refusal: StreamError | None
    headers: Mapping[str, str]


_UNLIMITED = Standing(None, MappingProxyType({}))


class _Rate(NamedTuple):
    """A limit on requests: as many per minute as *item* says, counted under *key*."""

    item: RateLimitItemPerMinute
    key: str


class _Level(NamedTuple):
    """How much of a limit is used: *remaining* of *most* are left, and there are more in *reset* seconds."""

    most: int
    remaining: int
    reset: float
    policy: str

    @property
    def wait(self) -> int:
        """The whole seconds after which there are more: at least 1."""
        return max(1, math.ceil(self.reset))


class Quota(Observer):
    """Counts requests when they come, and tokens when a stream has ended, which the hub tells its observers.

    *storage* has the counts of this process, or of several that share it. *total_requests* is how many requests a
    minute are admitted for all principals together; 0 is no limit.

    Fails open: while the storage fails, or takes longer than *patience* seconds, every request is admitted and nothing
    is charged. Limits keep the service up; they must not take it down with their storage. A warning says so every 10 s,
    by the clock *now*.
    """

    def __init__(
        self,
        storage: Storage,
        total_requests: int,
        log: FilteringBoundLogger,
        *,
        patience: float = 1.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._window = SlidingWindowCounterRateLimiter(storage)
        self._total = total_requests
        self._log = log
        self._patience = patience
        self._now = now
        self._charges = False  # until a principal with a budget comes
        self._warned_at = -math.inf

    async def admit(self, principal: Principal, *, spends: bool) -> Standing:
        """Count a request of *principal* if it is admitted. A request that *spends* asks for output tokens.

        A request that one limit refuses counts towards none. The headers tell of the limit that refused, or else of the
        one of which the smallest share is left.
        """
        requests = principal.allowance.requests
        daily = principal.allowance.tokens if spends else 0
        rates = []
        if requests:
            rates.append(_Rate(RateLimitItemPerMinute(requests), f"requests/{principal.counted_as()}"))
        if self._total:
            rates.append(_Rate(RateLimitItemPerMinute(self._total), "total"))
        if not rates and not daily:
            return _UNLIMITED
        self._charges |= daily > 0
        try:
            async with asyncio.timeout(self._patience):
                return await self._admit(rates, principal.name, daily)
        except Exception as error:  # a storage's client may raise anything
            self._warn(error)
            return _UNLIMITED

    async def ended(self, outcome: Outcome, log: FilteringBoundLogger) -> None:
        """Charge the stream's owner for the answer, however it ended."""
        if not self._charges or not outcome.output_tokens:
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._storage.incr(_budget(outcome.owner), _DAY, outcome.output_tokens)
        except Exception as error:
            self._warn(error)

    async def _admit(self, rates: Sequence[_Rate], name: str, daily: int) -> Standing:
        budget = await self._budget_level(name, daily) if daily else None
        spent = budget is not None and not budget.remaining
        full = None if spent else await self._take(rates)
        levels = [await self._rate_level(rate) for rate in rates]
        if budget is not None:
            levels.append(budget)
        refusal: StreamError | None = None
        if spent:
            level = levels[-1]
            refusal = BudgetSpent(retry_after=level.wait)
        elif full is not None:
            level = levels[rates.index(full)]
            refusal = RateExceeded(retry_after=level.wait)
        else:
            level = min(levels, key=lambda level: level.remaining / level.most)
        headers = {
            "RateLimit-Limit": str(level.most),
            "RateLimit-Remaining": str(level.remaining),
            "RateLimit-Reset": str(level.wait),
            "RateLimit-Policy": ", ".join(level.policy for level in levels),
        }
        return Standing(refusal, headers)

    async def _take(self, rates: Sequence[_Rate]) -> _Rate | None:
        """Count a request towards *rates*, or return the one that has no room for it.

        The principal's own rate is the first, and is taken first, so that a request which that refuses is not counted
        for all. If another process takes the last of the total between the test and the hit, the principal loses one.
        """
        for rate in rates[1:]:
            if not await self._window.test(*rate):
                return rate
        for rate in rates:
            if not await self._window.hit(*rate):
                return rate
        return None

    async def _rate_level(self, rate: _Rate) -> _Level:
        most = rate.item.amount
        reset_at, remaining = await self._window.get_window_stats(*rate)
        return _Level(most, remaining, reset_at - time.time(), f"{most};w={rate.item.get_expiry()}")

    async def _budget_level(self, name: str, most: int) -> _Level:
        key = _budget(name)
        used = await self._storage.get(key)
        reset = await self._storage.get_expiry(key) - time.time() if used else _DAY
        return _Level(most, max(0, most - used), reset, f'{most};w={_DAY};comment="output tokens"')

    def _warn(self, error: Exception) -> None:
        """Warn that the storage fails. The error's message may hold an address and a password, so it is not logged."""
        now = self._now()
        if now >= self._warned_at + _WARN_EVERY:
            self._warned_at = now
            self._log.warning("quota.unavailable", error=type(error).__name__)


def _budget(name: str) -> str:
    """Return the key of a principal's tokens. It does not depend on the budget: if that changes, what is used stays."""
    return f"tokens/{name}"
