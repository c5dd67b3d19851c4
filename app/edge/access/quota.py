"""Quotas: requests per minute for each principal and for all principals together, and the headers that report them.

What a stream may spend of a day's tokens is decided when it is opened (`app.edge.access.budgets`). A request that opens
none, because its idempotency key stands for a stream already, counts towards the rates only.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from limits import RateLimitItemPerMinute

from app.edge.access.budgets import DailyBudgets
from app.edge.access.rates import Level, Rate, Rates
from app.errors import RateExceeded, StreamError
from app.request import Principal


class Standing(NamedTuple):
    """Where a principal stands: *refusal* is why it may not go on, or None; *headers* tell it of its limits."""

    refusal: StreamError | None
    headers: Mapping[str, str]


_UNLIMITED = Standing(None, MappingProxyType({}))


class Quota:
    """Counts requests when they come.

    *total_requests* is how many requests a minute are admitted for all principals together; 0 is no limit.
    """

    def __init__(self, rates: Rates, budgets: DailyBudgets, total_requests: int) -> None:
        self._rates = rates
        self._budgets = budgets
        self._total = total_requests

    async def admit(self, principal: Principal, *, spends: bool) -> Standing:
        """Count a request of *principal* if it is admitted. A request that *spends* may open a stream.

        A request that one limit refuses counts towards none. The headers tell of the limit that refused, or else of the
        one of which the smallest share is left.
        """
        requests = principal.allowance.requests
        rates = []
        if requests:
            rates.append(Rate(RateLimitItemPerMinute(requests), f"requests/{principal.counted_as()}"))
        if self._total:
            rates.append(Rate(RateLimitItemPerMinute(self._total), "total"))
        full, levels = await self._rates.take(rates) if rates else (None, [])
        refused = None if full is None else levels[full]
        budget = await self._budgets.level(principal) if spends else None
        if budget is not None:
            levels.append(budget)
        if not levels:
            return _UNLIMITED
        level = refused or min(levels, key=_share)
        headers = {
            "RateLimit-Limit": str(level.most),
            "RateLimit-Remaining": str(level.remaining),
            "RateLimit-Reset": str(level.wait),
            "RateLimit-Policy": ", ".join(level.policy for level in levels),
        }
        return Standing(RateExceeded(retry_after=refused.wait) if refused else None, headers)


def _share(level: Level) -> tuple[float, float]:
    """Return what is left of a limit; of two of which as much is left, the one that takes longer comes first."""
    return level.remaining / level.most, -level.wait
