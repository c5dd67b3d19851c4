"""Rates that several processes share: what decides while the storage fails, and that no stall of ours fails it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from limits import RateLimitItemPerMinute
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.edge.access.rates import MemoryCounts, Rate, SharedCounts
from tests.clock import Clock
from tests.waiting import until

pytestmark = pytest.mark.anyio

ANN = [Rate(RateLimitItemPerMinute(3), "requests/ann"), Rate(RateLimitItemPerMinute(5), "total")]
BOB = [Rate(RateLimitItemPerMinute(3), "requests/bob"), ANN[1]]


@pytest.fixture(autouse=True)
def within_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """The windows are minutes of the system's clock, and no test is to go over the end of one."""
    monkeypatch.setattr(time, "time", lambda: 1_800_000_030.0)


class Storage(MemoryCounts):
    """A shared storage that does *what* whenever it is asked, and counts how often it was."""

    def __init__(self, what: Callable[[], Coroutine[Any, Any, None]]) -> None:
        super().__init__()
        self.what = what
        self.asked = 0

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        self.asked += 1
        await self.what()
        return await super().get_sliding_window(key, expiry)

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        self.asked += 1
        await self.what()
        return await super().acquire_sliding_window_entry(key, limit, expiry, amount)


async def up() -> None:
    await asyncio.sleep(0)


async def down() -> None:
    raise ConnectionError("redis://:secret@host refused")


async def hung() -> None:
    await asyncio.get_running_loop().create_future()


async def admitted(rates: SharedCounts, of: list[Rate], tries: int = 9) -> int:
    return sum([(await rates.take(of)).full is None for _ in range(tries)])


@pytest.mark.parametrize(("how", "error"), [(down, "ConnectionError"), (hung, "TimeoutError")])
async def test_the_process_counts_while_the_storage_fails(
    log: FilteringBoundLogger, logs: LogCapture, how: Callable[[], Any], error: str
) -> None:
    """A limit that was full stays full, and the others are kept by this process; a warning says so every 10 s."""
    clock = Clock(1000)
    storage = Storage(up)
    rates = SharedCounts(storage, log, patience=0.05, now=clock)
    assert await admitted(rates, ANN) == 3
    storage.what = how
    assert await admitted(rates, ANN) == 0
    assert await admitted(rates, BOB) == 2
    warning = {"event": "quota.unavailable", "error": error, "log_level": "warning"}
    assert logs.entries == [warning]
    clock.now += 10
    assert await admitted(rates, ANN) == 0
    assert logs.entries == [warning, warning]
    assert "secret" not in repr(logs.entries)
    storage.what = up
    clock.now += 10
    await rates.take(BOB)
    asked = storage.asked
    await rates.take(BOB)
    assert storage.asked > asked


async def test_a_storage_that_fails_is_left_alone(log: FilteringBoundLogger) -> None:
    """After a failure one request in a while asks it, so that not every request waits for what hangs."""
    clock = Clock(1000)
    storage = Storage(hung)
    rates = SharedCounts(storage, log, patience=0.05, now=clock)
    await asyncio.gather(*(rates.take(ANN) for _ in range(100)))
    assert storage.asked <= 16
    asked = storage.asked
    clock.now += 5
    await asyncio.gather(*(rates.take(ANN) for _ in range(100)))
    assert storage.asked == asked + 1


async def test_a_stall_is_not_the_storage(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """What holds our own event loop, longer than the patience and again and again, does not make the storage fail."""

    async def stalled() -> None:
        """Take two turns of the loop, and have the loop held in each, as by a large body."""
        for _ in range(2):
            asyncio.get_running_loop().call_soon(time.sleep, 0.1)
            await asyncio.sleep(0)

    rates = SharedCounts(Storage(stalled), log, patience=0.08)
    assert await admitted(rates, ANN, 4) == 3
    assert not logs.entries


async def test_a_flood_is_not_a_failure(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """However many requests come at once, few ask the storage at once, and those that wait are not timed."""
    at_once = 0

    async def slow() -> None:
        nonlocal at_once
        at_once += 1
        assert at_once <= 16
        await asyncio.sleep(0.001)
        at_once -= 1

    rates = SharedCounts(Storage(slow), log)
    taken = await asyncio.gather(*(rates.take(ANN) for _ in range(500)))
    assert sum(each.full is None for each in taken) == 3
    assert not logs.entries


async def test_a_request_that_leaves(log: FilteringBoundLogger) -> None:
    """A request that is cancelled while it waits leaves nothing behind."""
    rates = SharedCounts(Storage(hung), log)
    others = asyncio.all_tasks()
    task = asyncio.create_task(rates.take(ANN))
    await until(lambda: len(asyncio.all_tasks() - others) == 2)
    task.cancel()
    await until(lambda: asyncio.all_tasks() == others)


async def test_counts_survive_a_clock_that_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expired counts are forgotten even if the wall clock jumps back by a day."""
    clock = Clock(1_740_000_000)
    monkeypatch.setattr(time, "time", clock)
    counts = MemoryCounts()
    clock.now += 86_400
    await counts.incr("a", 10)
    clock.now -= 86_400
    await counts.incr("b", 10)
    clock.now += 61
    await counts.incr("c", 10)
    assert set(counts.storage) == {"a", "c"}
