"""What accounts have spent is on disk, and counts for the rest of the day after a restart."""

from __future__ import annotations

import asyncio

import pytest

from app.journal.budgets import DAY
from app.journal.file.budgets import FileBudgets
from tests.journal.file.disk import Disk

pytestmark = pytest.mark.anyio


async def test_a_restart(disk: Disk) -> None:
    """What was spent counts until a day after the first charge; what was reserved is free again."""
    async with disk.start() as journal:
        await journal.budgets.reserve("ann", "s", 1000, 100, 1)
        await journal.budgets.settle("ann", "s", 70)
        await journal.budgets.reserve("ann", "live", 1000, 500, 1)
    disk.now += 100
    async with disk.start() as journal:
        assert await journal.budgets.balance("ann") == (70, 0, DAY - 100)
    disk.now += DAY
    async with disk.start() as journal:
        assert await journal.budgets.balance("ann") == (0, 0, DAY)


async def test_a_kill(disk: Disk) -> None:
    """A charge is written at once."""
    async with disk.start() as journal:
        await journal.budgets.reserve("ann", "s", 1000, 100, 1)
        await journal.budgets.settle("ann", "s", 70)
        await journal._committer.flushed()
        left = disk.killed()
    async with left.start() as journal:
        assert (await journal.budgets.balance("ann")).spent == 70


async def test_what_is_to_be_written() -> None:
    """An account that was charged is written once, and again if that failed; one that was not charged is not."""
    wake = asyncio.Event()
    budgets = FileBudgets(wake, lambda: 5.0)
    for account, tokens in (("ann", 1), ("bob", 0), ("ann", 2)):
        await budgets.reserve(account, account, 10, 5, 1)
        await budgets.settle(account, account, tokens)
    assert (wake.is_set(), budgets.changed) == (True, True)
    taken = budgets.take()
    assert (taken, budgets.take(), budgets.changed) == ([("ann", 3, 5.0 + DAY)], [], False)
    budgets.put_back(taken)
    assert budgets.take() == taken


async def test_a_clock_that_was_put_back() -> None:
    """A day does not become longer than a day."""
    budgets = FileBudgets(asyncio.Event(), lambda: 5.0)
    budgets.load([("ann", 7, 1e9)])
    assert await budgets.balance("ann") == (7, 0, DAY)
