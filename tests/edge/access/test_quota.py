"""Quotas: which requests are refused and until when, what is charged to which principal, and what is kept."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.edge.access.budgets import DailyBudgets
from app.edge.access.quota import Quota
from app.edge.access.rates import Counts, MemoryCounts
from app.errors import RateExceeded, StreamError
from app.journal.budgets import MemoryBudgets
from app.request import ANYONE, Allowance, Principal
from tests.clock import Clock

pytestmark = pytest.mark.anyio

NOW = 60.0 * 29_000_000 + 10  # ten seconds after a window began
DAY = 86_400.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(NOW)
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
def counts() -> MemoryCounts:
    return MemoryCounts()


def new_quota(counts: MemoryCounts, total: int, budgets: MemoryBudgets | None = None) -> Quota:
    return Quota(Counts(counts), DailyBudgets(MemoryBudgets(time.time) if budgets is None else budgets), total)


def principal(name: str = "ann", *, requests: int = 0, tokens: int = 0) -> Principal:
    return Principal(name, Allowance(requests=requests, tokens=tokens))


async def admitted(quota: Quota, who: Principal, tries: int = 1, *, spends: bool = False) -> int:
    """Return how many of so many requests are let in."""
    return sum([(await quota.admit(who, spends=spends)).refusal is None for _ in range(tries)])


async def refusal(quota: Quota, who: Principal, *, spends: bool = False) -> StreamError:
    error = (await quota.admit(who, spends=spends)).refusal
    assert error is not None
    return error


# Requests a minute.


async def test_without_limits_nothing_is_counted(counts: MemoryCounts) -> None:
    """A principal without limits is admitted without headers, and nothing is counted."""
    quota = new_quota(counts, 0)
    assert await quota.admit(ANYONE, spends=True) == (None, {})
    assert await quota.admit(principal(tokens=5), spends=False) == (None, {})
    assert not counts.storage


async def test_requests_a_minute(clock: Clock, counts: MemoryCounts) -> None:
    """So many are let in, told how many are left; the next one is told exactly when there is room again."""
    clock.now += 2.5
    quota, ann = new_quota(counts, 0), principal(requests=3)
    told = [(await quota.admit(ann, spends=False)).headers for _ in range(3)]
    assert [headers["RateLimit-Remaining"] for headers in told] == ["2", "1", "0"]
    assert told[0] == {
        "RateLimit-Limit": "3",
        "RateLimit-Remaining": "2",
        "RateLimit-Reset": "48",
        "RateLimit-Policy": "3;w=60",
    }
    refused, headers = await quota.admit(ann, spends=False)
    assert isinstance(refused, RateExceeded)
    assert refused.retry_after == 48
    assert (headers["RateLimit-Remaining"], headers["RateLimit-Reset"]) == ("0", "48")
    clock.now += 47
    assert await admitted(quota, ann) == 0
    clock.now += 1
    assert await admitted(quota, ann, 3) == 1


async def test_waiting_as_told_is_enough(clock: Clock, counts: MemoryCounts) -> None:
    """A client that waits for as long as a refusal says is admitted with its next request, at any time."""
    quota, ann = new_quota(counts, 0), principal(requests=7)
    for step in range(200):
        clock.now += step * 0.37 % 11
        error = (await quota.admit(ann, spends=False)).refusal
        if error is not None:
            assert error.retry_after is not None
            clock.now += error.retry_after
            assert await admitted(quota, ann) == 1


async def test_no_burst_at_an_edge(clock: Clock, counts: MemoryCounts) -> None:
    """A minute's requests in the last second of a window leave next to nothing for the first ones of the next."""
    quota, ann = new_quota(counts, 0), principal(requests=60)
    clock.now += 49
    assert await admitted(quota, ann, 70) == 60
    clock.now += 3.5
    assert await admitted(quota, ann, 70) == 3


async def test_principals_are_apart(clock: Clock, counts: MemoryCounts) -> None:
    """Each name has its own count, a ticket's, too; the anonymous are one."""
    quota = new_quota(counts, 0)
    for name in ("ann", "bob", "ann/bob", "ticket:ann", "total", ""):
        assert await admitted(quota, principal(name, requests=2), 3) == 2


async def test_all_together(clock: Clock, counts: MemoryCounts) -> None:
    """The total limit holds for every principal, also for those without a limit of their own."""
    quota = new_quota(counts, 5)
    assert await admitted(quota, principal("ann"), 3) == 3
    assert await admitted(quota, ANYONE, 3) == 2
    error = await refusal(quota, principal("carl", requests=9))
    assert isinstance(error, RateExceeded)
    assert error.retry_after == 50


async def test_a_refused_request_is_taken_from_no_limit(clock: Clock, counts: MemoryCounts) -> None:
    """A request that one limit refuses is not counted towards the others."""
    quota, ann, bob = new_quota(counts, 10), principal("ann", requests=4), principal("bob", requests=8)
    assert await admitted(quota, ann, 50) == 4
    assert await admitted(quota, bob, 50) == 6
    alone = new_quota(counts, 0)
    assert await admitted(alone, bob, 50) == 2


@pytest.mark.parametrize(
    ("requests", "total", "tokens", "limit"),
    [(10, 10, 0, "own"), (10, 11, 0, "own"), (10, 9, 0, "total"), (10, 9, 1000, "total"), (10, 9, 100, "budget")],
)
async def test_the_closest_limit_is_told(
    clock: Clock, counts: MemoryCounts, requests: int, total: int, tokens: int, limit: str
) -> None:
    """The headers are about the limit of which the smallest share is left, one's own if equal; the policies are all."""
    budgets, ann = MemoryBudgets(clock), principal(requests=requests, tokens=tokens)
    quota = new_quota(counts, total, budgets)
    await budgets.reserve(ann.counted_as(), "s", 85, 85, 85)
    await budgets.settle(ann.counted_as(), "s", 80)
    await budgets.reserve(ann.counted_as(), "t", 85, 5, 5)
    headers = (await quota.admit(ann, spends=True)).headers
    most, remaining = {"own": (requests, requests - 1), "total": (total, total - 1), "budget": (100, 15)}[limit]
    assert (headers["RateLimit-Limit"], headers["RateLimit-Remaining"]) == (str(most), str(remaining))
    assert headers["RateLimit-Reset"] == ("86400" if limit == "budget" else "50")
    policies = [f"{requests};w=60", f"{total};w=60"]
    if tokens:
        policies.append(f'{tokens};w=86400;comment="output tokens"')
    assert headers["RateLimit-Policy"] == ", ".join(policies)


async def test_counts_that_others_write(clock: Clock) -> None:
    """Where others count in the same storage between a test and the taking, no more get in than may."""

    class Shared(MemoryCounts):
        async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
            window = await super().get_sliding_window(key, expiry)
            await asyncio.sleep(0)  # the network
            return window

    shared = Shared()
    quotas = [new_quota(shared, 5) for _ in range(4)]
    askers = [principal(str(number), requests=50) for number in range(20)]
    standings = await asyncio.gather(*(quotas[n % 4].admit(asker, spends=False) for n, asker in enumerate(askers)))
    assert sum(standing.refusal is None for standing in standings) == 5


@pytest.mark.parametrize("spends", [True, False])
@pytest.mark.parametrize("full", ["own", "total"])
async def test_a_spent_budget_frees_from_no_rate(clock: Clock, counts: MemoryCounts, full: str, spends: bool) -> None:
    """Whether or not anything is left of its budget, a principal's requests are counted, and refused as all are."""
    budgets, ann = MemoryBudgets(clock), principal(requests=3 if full == "own" else 0, tokens=10)
    quota = new_quota(counts, 0 if full == "own" else 3, budgets)
    await budgets.reserve(ann.counted_as(), "s", 10, 10, 1)
    assert await admitted(quota, ann, 9, spends=spends) == 3
    assert isinstance(await refusal(quota, ann, spends=spends), RateExceeded)
    headers = (await quota.admit(ann, spends=spends)).headers
    assert (headers["RateLimit-Limit"], headers["RateLimit-Remaining"]) == ("3", "0")


async def test_a_spent_budget_is_told(clock: Clock, counts: MemoryCounts) -> None:
    """Where nothing is left of the budget and of the rate, the headers tell of what lasts longer."""
    budgets, ann = MemoryBudgets(clock), principal(requests=1, tokens=10)
    quota = new_quota(counts, 0, budgets)
    await budgets.reserve(ann.counted_as(), "s", 10, 10, 1)
    headers = (await quota.admit(ann, spends=True)).headers
    assert (headers["RateLimit-Limit"], headers["RateLimit-Remaining"]) == ("10", "0")


# What is left behind.


async def test_counts_are_forgotten(clock: Clock, counts: MemoryCounts) -> None:
    """Of ten thousand principals nothing is kept once their windows are over, after two minutes."""
    quota = new_quota(counts, 0)
    for number in range(10_000):
        await quota.admit(principal(str(number), requests=5), spends=False)
    assert len(counts.storage) == len(counts.expirations) == 10_000
    clock.now += 121
    await quota.admit(principal(requests=5), spends=False)
    assert len(counts.storage) == len(counts.expirations) == 1
    assert len(counts.locks) + len(counts.events) == 0
