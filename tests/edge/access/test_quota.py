"""Quotas: which requests are refused and until when, what is charged to which principal, and what is kept."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.edge.access.quota import MemoryCounts, Quota
from app.errors import BudgetSpent, RateExceeded, StreamError, Truncated
from app.events import Delta, Done
from app.request import ANYONE, Allowance, Principal, StreamRequest
from app.usage import Usage
from tests.clock import Clock
from tests.house import House
from tests.script import forever

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


def principal(name: str = "ann", *, requests: int = 0, tokens: int = 0) -> Principal:
    return Principal(name, Allowance(requests=requests, tokens=tokens))


async def admitted(quota: Quota, who: Principal, tries: int = 1, *, spends: bool = False) -> int:
    """Return how many of so many requests are let in."""
    return sum([(await quota.admit(who, spends=spends)).refusal is None for _ in range(tries)])


async def refusal(quota: Quota, who: Principal, *, spends: bool = False) -> StreamError:
    error = (await quota.admit(who, spends=spends)).refusal
    assert error is not None
    return error


class Broken(MemoryCounts):
    """A storage that does *what* when it is read."""

    def __init__(self, what: Callable[[], Any]) -> None:
        super().__init__()
        self.what = what

    async def get(self, key: str) -> int:
        await self.what()
        return 0


async def down() -> None:
    raise ConnectionError("redis://:secret@host refused")


# Requests a minute.


async def test_without_limits_nothing_is_counted(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """A principal without limits is admitted without headers, and the storage is not asked."""
    quota = Quota(Broken(down), 0, log)
    assert await quota.admit(ANYONE, spends=True) == (None, {})
    assert await quota.admit(principal(tokens=5), spends=False) == (None, {})
    assert not logs.entries


async def test_requests_a_minute(clock: Clock, counts: MemoryCounts, log: FilteringBoundLogger) -> None:
    """So many are let in, told how many are left; the next one is told exactly when there is room again."""
    clock.now += 2.5
    quota, ann = Quota(counts, 0, log), principal(requests=3)
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


async def test_waiting_as_told_is_enough(clock: Clock, counts: MemoryCounts, log: FilteringBoundLogger) -> None:
    """A client that waits for as long as a refusal says is admitted with its next request, at any time."""
    quota, ann = Quota(counts, 0, log), principal(requests=7)
    for step in range(200):
        clock.now += step * 0.37 % 11
        error = (await quota.admit(ann, spends=False)).refusal
        if error is not None:
            assert error.retry_after is not None
            clock.now += error.retry_after
            assert await admitted(quota, ann) == 1


async def test_no_burst_at_an_edge(clock: Clock, counts: MemoryCounts, log: FilteringBoundLogger) -> None:
    """A minute's requests in the last second of a window leave next to nothing for the first ones of the next."""
    quota, ann = Quota(counts, 0, log), principal(requests=60)
    clock.now += 49
    assert await admitted(quota, ann, 70) == 60
    clock.now += 3.5
    assert await admitted(quota, ann, 70) == 3


async def test_principals_are_apart(clock: Clock, counts: MemoryCounts, log: FilteringBoundLogger) -> None:
    """Each name has its own count, a ticket's, too; the anonymous are one."""
    quota = Quota(counts, 0, log)
    for name in ("ann", "bob", "ann/bob", "ticket:ann", "total", ""):
        assert await admitted(quota, principal(name, requests=2), 3) == 2


async def test_all_together(clock: Clock, counts: MemoryCounts, log: FilteringBoundLogger) -> None:
    """The total limit holds for every principal, also for those without a limit of their own."""
    quota = Quota(counts, 5, log)
    assert await admitted(quota, principal("ann"), 3) == 3
    assert await admitted(quota, ANYONE, 3) == 2
    error = await refusal(quota, principal("carl", requests=9))
    assert isinstance(error, RateExceeded)
    assert error.retry_after == 50


async def test_a_refused_request_is_taken_from_no_limit(
    clock: Clock, counts: MemoryCounts, log: FilteringBoundLogger
) -> None:
    """A request that one limit refuses is not counted towards the others."""
    quota, ann, bob = Quota(counts, 10, log), principal("ann", requests=4), principal("bob", requests=8)
    assert await admitted(quota, ann, 50) == 4
    assert await admitted(quota, bob, 50) == 6
    alone = Quota(counts, 0, log)
    assert await admitted(alone, bob, 50) == 2
    clock.now += 180
    spender = principal("cat", requests=4, tokens=1)
    await counts.incr("tokens/cat", 86_400, 1)
    assert await admitted(quota, spender, 50, spends=True) == 0
    assert await admitted(quota, spender, 50) == 4


@pytest.mark.parametrize(
    ("requests", "total", "tokens", "limit"),
    [(10, 10, 0, "own"), (10, 11, 0, "own"), (10, 9, 0, "total"), (10, 9, 1000, "total"), (10, 9, 100, "budget")],
)
async def test_the_closest_limit_is_told(
    clock: Clock, counts: MemoryCounts, log: FilteringBoundLogger, requests: int, total: int, tokens: int, limit: str
) -> None:
    """The headers are about the limit of which the smallest share is left, one's own if equal; the policies are all."""
    quota, ann = Quota(counts, total, log), principal(requests=requests, tokens=tokens)
    await counts.incr("tokens/ann", 86_400, 85)
    headers = (await quota.admit(ann, spends=True)).headers
    most, remaining = {"own": (requests, requests - 1), "total": (total, total - 1), "budget": (100, 15)}[limit]
    assert (headers["RateLimit-Limit"], headers["RateLimit-Remaining"]) == (str(most), str(remaining))
    assert headers["RateLimit-Reset"] == ("86400" if limit == "budget" else "50")
    policies = [f"{requests};w=60", f"{total};w=60"]
    if tokens:
        policies.append(f'{tokens};w=86400;comment="output tokens"')
    assert headers["RateLimit-Policy"] == ", ".join(policies)


async def test_counts_that_others_write(clock: Clock, log: FilteringBoundLogger) -> None:
    """Where others count in the same storage between a test and the taking, no more get in than may."""

    class Shared(MemoryCounts):
        async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
            window = await super().get_sliding_window(key, expiry)
            await asyncio.sleep(0)  # the network
            return window

    shared = Shared()
    quotas = [Quota(shared, 5, log) for _ in range(4)]
    askers = [principal(str(number), requests=50) for number in range(20)]
    standings = await asyncio.gather(*(quotas[n % 4].admit(asker, spends=False) for n, asker in enumerate(askers)))
    assert sum(standing.refusal is None for standing in standings) == 5


# Output tokens a day.


class Watched(House):
    """A hub that is watched by a quota."""

    def __init__(self, quota: Quota, log: FilteringBoundLogger, *steps: Any) -> None:
        super().__init__(log, *steps, observers=[quota])
        self.quota = quota

    async def open(self, who: Principal, grace: float = math.inf) -> str:
        """Be let in, and open a stream."""
        assert await admitted(self.quota, who, spends=True) == 1
        return await self.hub.open(StreamRequest("m", ({"role": "user", "content": "hi"},), grace=grace), who)


async def used(counts: MemoryCounts, name: str = "ann") -> int:
    return await counts.get(f"tokens/{name}")


def done(**usage: Any) -> tuple[Done]:
    return (Done("stop", usage=Usage(usage)),)


async def test_a_budget(clock: Clock, counts: MemoryCounts, log: FilteringBoundLogger) -> None:
    """Tokens are charged when a stream has ended, beyond the budget, too; then the owner opens no other that day."""
    quota = Quota(counts, 0, log)
    house, ann = Watched(quota, log, (Delta("a"),), done(completion_tokens=60)), principal(tokens=100)
    headers = (await quota.admit(ann, spends=True)).headers
    assert (headers["RateLimit-Remaining"], headers["RateLimit-Reset"]) == ("100", "86400")
    for charged in (60, 120):
        await house.open(ann)
        await house.settled()
        assert await used(counts) == charged
        clock.now += 3600
    error, headers = await quota.admit(ann, spends=True)
    assert isinstance(error, BudgetSpent)
    assert error.retry_after == 86_400 - 7200
    assert (headers["RateLimit-Limit"], headers["RateLimit-Remaining"]) == ("100", "0")
    assert await quota.admit(ann, spends=False) == (None, {})
    assert await admitted(quota, principal("bob", tokens=100), spends=True) == 1
    assert await admitted(quota, principal(tokens=121), spends=True) == 1  # it was raised, and what was used is known
    clock.now += error.retry_after
    assert await admitted(quota, ann, spends=True) == 1


@pytest.mark.parametrize("way", ["done", "failed", "crashed", "cancelled", "drained", "left"])
async def test_charged_on_every_way_out(counts: MemoryCounts, log: FilteringBoundLogger, way: str) -> None:
    """However a stream ends, its owner is charged once for the answer up to then."""
    ends = {"done": (Done("stop"),), "failed": Truncated(), "crashed": ZeroDivisionError()}
    house = Watched(Quota(counts, 0, log), log, (Delta("x" * 40),), ends.get(way, forever))
    stream_id = await house.open(principal(tokens=5), 0 if way == "left" else math.inf)
    async with await house.hub.attach(stream_id, principal()) as batches:
        while not any(isinstance(event, Delta) for event in (await anext(batches)).events):
            pass
        if way == "cancelled":
            await house.hub.cancel(stream_id, principal())
        elif way == "drained":
            await house.hub.drain(0)
    await house.settled()
    assert await used(counts) == 10


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"completion_tokens": 7}, 7),
        ({"completion_tokens": 0}, 10),
        ({"completion_tokens": -7}, 10),
        ({"completion_tokens": "7"}, 10),
        ({"completion_tokens": True}, 10),
        ({"completion_tokens": 7.5}, 10),
        ({"completion_tokens": None}, 10),
        ({"completion_tokens": [7]}, 10),
        ({"completion_tokens": 10**30}, 10),
        ({"prompt_tokens": 7}, 10),
    ],
)
async def test_nonsense_is_not_charged(
    counts: MemoryCounts, log: FilteringBoundLogger, usage: dict[str, Any], tokens: int
) -> None:
    """The upstream's count is charged if it can be true; otherwise the tokens are estimated."""
    house = Watched(Quota(counts, 0, log), log, (Delta("x" * 40),), done(**usage))
    await house.open(principal(tokens=100))
    await house.settled()
    assert await used(counts) == tokens


async def test_nothing_to_charge(counts: MemoryCounts, log: FilteringBoundLogger) -> None:
    """A stream that failed before its first content costs nothing; and without any budget, nothing is kept."""
    house = Watched(Quota(counts, 0, log), log, Truncated())
    await house.open(principal(tokens=5))
    await house.settled()
    house = Watched(Quota(counts, 0, log), log, (Delta("x"),), done(completion_tokens=7))
    await house.open(principal())
    await house.settled()
    assert not counts.storage


# What is left behind.


async def test_counts_are_forgotten(clock: Clock, counts: MemoryCounts, log: FilteringBoundLogger) -> None:
    """Of ten thousand principals nothing is kept once their windows are over: two minutes, or a day for tokens."""
    quota = Quota(counts, 0, log)
    for number in range(10_000):
        await quota.admit(principal(str(number), requests=5), spends=False)
        await counts.incr(f"tokens/{number}", 86_400, 5)
    assert len(counts.storage) == len(counts.expirations) == 20_000
    clock.now += 121
    await quota.admit(principal(requests=5), spends=False)
    assert len(counts.storage) == len(counts.expirations) == 10_001
    clock.now += DAY
    await quota.admit(principal(requests=5), spends=False)
    assert len(counts.storage) == len(counts.expirations) == 1
    assert len(counts.locks) + len(counts.events) == 0


async def test_counts_survive_a_clock_that_is_set_back(clock: Clock, counts: MemoryCounts) -> None:
    """Expired counts are forgotten even if the wall clock jumps back by a day."""
    clock.now += DAY
    await counts.incr("a", 10)
    clock.now -= DAY
    await counts.incr("b", 10)
    clock.now += 61
    await counts.incr("c", 10)
    assert set(counts.storage) == {"a", "c"}


# A storage that fails.


async def hung() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize(("what", "error"), [(down, "ConnectionError"), (hung, "TimeoutError")])
async def test_fails_open(log: FilteringBoundLogger, logs: LogCapture, what: Callable[[], Any], error: str) -> None:
    """While the storage fails or hangs, every request is admitted, and a warning says so at most every ten seconds."""
    clock = Clock(1000)
    quota = Quota(Broken(what), 1, log, patience=0.01, now=clock)
    house = Watched(quota, log, (Delta("x"),), done(completion_tokens=7))
    for _ in range(3):
        await house.open(principal(requests=1, tokens=1))
        await house.settled()
    warnings = [entry for entry in logs.entries if entry["log_level"] == "warning"]
    assert warnings == [{"event": "quota.unavailable", "error": error, "log_level": "warning"}]
    clock.now += 10
    assert (await quota.admit(principal(requests=1), spends=False)) == (None, {})
    assert len([entry for entry in logs.entries if entry["event"] == "quota.unavailable"]) == 2
    assert "secret" not in repr(logs.entries)
