"""How much: requests a minute and output tokens a day, for each principal and for all together.

Requests are counted by a sliding window of two counters: a key holds two numbers however many requests there were,
and no window has an edge at which twice as many get through at once. (It takes the last minute's requests for evenly
spread. Who sends them all in its last second and then takes each one as it comes free, has close to twice the limit
within the minute, spread evenly. A window of timestamps would be exact, and cost memory by the request.)

Tokens are counted from the first charge on, for a day; what is charged in one day is not owed in the next. How many a
stream will take is known when it has ended, so those that are live together can overrun a budget; they are charged all
the same.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
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
# How many seconds a request waits for the storage, and how many pass between two warnings that it fails.
_PATIENCE = 1.0
_QUIET = 10.0


class MemoryCounts(MemoryStorage):
    """limits' storage in memory, but one that looks for expired keys once a minute.

    The original does on every request, which with 10 000 principals takes 1 ms of the event loop each time.
    """

    _SWEEP = 60.0

    def __init__(self) -> None:
        super().__init__()
        self._sweep_at = 0.0

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add *amount* to a key, which expires *expiry* seconds after its first one; return what it holds now."""
        now = time.time()
        if not now < self._sweep_at <= now + self._SWEEP:  # or else the clock was set back
            self._sweep_at = now + self._SWEEP
            for expired in [known for known, at in self.expirations.items() if at <= now]:
                await self.clear(expired)
        if not await self.get(key):
            self.expirations[key] = now + expiry
        self.storage[key] += amount
        return self.storage[key]


class Standing(NamedTuple):
    """Where a principal stands: *refusal* is why it may not go on, *headers* are what to tell it of its limits."""

    refusal: StreamError | None
    headers: Mapping[str, str]


_UNLIMITED = Standing(None, MappingProxyType({}))


class _Rate(NamedTuple):
    """One limit on requests: so many a minute for whoever *key* stands for."""

    item: RateLimitItemPerMinute
    key: str


class _Mark(NamedTuple):
    """Where one limit stands: *remaining* of *most*, and in *reset* seconds there will be more."""

    most: int
    remaining: int
    reset: float
    policy: str


class Quota(Observer):
    """Counts requests before they are let in, and tokens once a stream has ended (it is one of the hub's observers).

    The counts are in *storage*: this process's, or one that several share. *total_requests* is how many requests a
    minute are let in, whoever's they are; 0 is no limit.

    Fails open: while the storage fails, or takes longer than a second, nobody is refused and nothing is charged. Limits
    are there for the service to stay up, and would take it down with their storage. A warning says so every 10 s.
    """

    def __init__(self, storage: Storage, total_requests: int, log: FilteringBoundLogger) -> None:
        self._storage = storage
        self._window = SlidingWindowCounterRateLimiter(storage)
        self._total = total_requests
        self._log = log
        self._charges = False  # until somebody comes who has a budget
        self._quiet_until = -math.inf

    async def admit(self, principal: Principal, *, spends: bool) -> Standing:
        """Count a request of *principal*, if it may go on. One that *spends* asks for output tokens.

        A request that one limit refuses is taken from none. The headers tell of the limit that is closest to
        exhaustion, by its share that remains, or of the one that refused.
        """
        requests, daily = principal.allowance.requests, principal.allowance.tokens if spends else 0
        if not (requests or daily or self._total):
            return _UNLIMITED
        self._charges |= daily > 0
        rates = []
        if requests:
            rates.append(_Rate(RateLimitItemPerMinute(requests), f"requests/{principal.counted_as()}"))
        if self._total:
            rates.append(_Rate(RateLimitItemPerMinute(self._total), "total"))
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._admit(rates, principal.name, daily)
        except Exception as error:  # whatever a storage's client raises
            self._failed(error)
            return _UNLIMITED

    async def ended(self, outcome: Outcome, log: FilteringBoundLogger) -> None:
        """Charge the stream's owner for what it was answered, however it ended."""
        spent = outcome.output_tokens if self._charges else 0
        if not spent:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._storage.incr(_budget(outcome.owner), _DAY, spent)
        except Exception as error:
            self._failed(error)

    async def _admit(self, rates: Sequence[_Rate], name: str, daily: int) -> Standing:
        budget = await self._budget_mark(name, daily) if daily else None
        spent = budget is not None and not budget.remaining
        full = None if spent else await self._take(rates)
        marks = [await self._rate_mark(rate) for rate in rates]
        if budget is not None:
            marks.append(budget)
        refusal: StreamError | None = None
        if spent:
            shown = marks[-1]
            refusal = BudgetSpent(retry_after=_whole(shown.reset))
        elif full is not None:
            shown = marks[rates.index(full)]
            refusal = RateExceeded(retry_after=_whole(shown.reset))
        else:
            shown = min(marks, key=lambda mark: mark.remaining / mark.most)
        return Standing(
            refusal,
            {
                "RateLimit-Limit": str(shown.most),
                "RateLimit-Remaining": str(shown.remaining),
                "RateLimit-Reset": str(_whole(shown.reset)),
                "RateLimit-Policy": ", ".join(mark.policy for mark in marks),
            },
        )

    async def _take(self, rates: Sequence[_Rate]) -> _Rate | None:
        """Count a request, or return the limit that has no room for it.

        The first limit is the principal's own: what it refuses must not be taken from all others. Where several
        processes share the counts, one may be faster between the test and the taking; then the principal has lost one.
        """
        for rate in rates[1:]:
            if not await self._window.test(*rate):
                return rate
        for rate in rates:
            if not await self._window.hit(*rate):
                return rate
        return None

    async def _rate_mark(self, rate: _Rate) -> _Mark:
        most = rate.item.amount
        at, remaining = await self._window.get_window_stats(*rate)
        return _Mark(most, remaining, at - time.time(), f"{most};w={rate.item.get_expiry()}")

    async def _budget_mark(self, name: str, most: int) -> _Mark:
        key = _budget(name)
        used = await self._storage.get(key)
        reset = await self._storage.get_expiry(key) - time.time() if used else _DAY
        return _Mark(most, max(0, most - used), reset, f'{most};w={_DAY};comment="output tokens"')

    def _failed(self, error: Exception) -> None:
        """Warn; by the error's name alone, because its message may hold the storage's address and password."""
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET
            self._log.warning("quota.unavailable", error=type(error).__name__)


def _budget(name: str) -> str:
    """Return the key of a principal's tokens. The budget is no part of it: what was used stays used if that changes."""
    return f"tokens/{name}"


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))
