"""What every journal promises of budgets: reservations that fit, and charges that are stored once."""

from __future__ import annotations

import asyncio

import pytest

from app.journal import Journal
from app.journal.budgets import DAY, Balance, MemoryBudgets
from tests.clock import Clock

pytestmark = pytest.mark.anyio


async def standing(journal: Journal, account: str = "ann") -> tuple[int, int]:
    """Return what is spent and what is reserved."""
    spent, reserved, reset = await journal.budgets.balance(account)
    assert DAY - 60 <= reset <= DAY
    return spent, reserved


async def test_reserve_and_settle(journal: Journal) -> None:
    """What fits is reserved; the charge takes its place, may be more or less, and is charged once."""
    budgets = journal.budgets
    assert await budgets.reserve("ann", "s", 1000, 600, 16) == (600, Balance(0, 0, DAY))
    assert await budgets.reserve("ann", "t", 1000, 600, 16) == (400, Balance(0, 600, DAY))
    granted, _ = await budgets.reserve("ann", "u", 1000, 600, 1)
    assert granted == 0
    assert await standing(journal) == (0, 1000)
    await budgets.settle("ann", "s", 1)
    await budgets.settle("ann", "s", 1)
    assert await standing(journal) == (1, 400)
    await budgets.settle("ann", "t", 900)
    assert await standing(journal) == (901, 0)
    assert (await budgets.reserve("ann", "v", 1000, 600, 99))[0] == 99
    assert (await budgets.reserve("ann", "w", 1000, 600, 1))[0] == 0
    assert (await budgets.reserve("ann", "w", 2000, 600, 1))[0] == 600  # the budget was raised


async def test_too_little(journal: Journal) -> None:
    """If fewer than the least are left, nothing is reserved."""
    assert (await journal.budgets.reserve("ann", "s", 15, 600, 16))[0] == 0
    assert await standing(journal) == (0, 0)
    await journal.budgets.settle("ann", "s", 7)
    assert await standing(journal) == (0, 0)


async def test_another_reservation(journal: Journal) -> None:
    """Another one for the same stream takes the place of the first, which stays if there is too little for it."""
    budgets = journal.budgets
    await budgets.reserve("ann", "s", 1000, 300, 16)
    await budgets.reserve("ann", "t", 1000, 300, 16)
    assert await budgets.reserve("ann", "s", 1000, 600, 316) == (600, Balance(0, 300, DAY))
    assert await budgets.reserve("ann", "s", 1000, 900, 616) == (700, Balance(0, 300, DAY))
    assert await budgets.reserve("ann", "s", 1000, 1000, 716) == (0, Balance(0, 300, DAY))
    assert await standing(journal) == (0, 1000)
    await budgets.settle("ann", "s", 650)
    assert await standing(journal) == (650, 300)


async def test_nothing_to_charge(journal: Journal) -> None:
    """A stream that cost nothing leaves nothing, and an account is another's business no more than a name."""
    await journal.budgets.reserve("ann", "s", 1000, 600, 16)
    await journal.budgets.settle("ann", "s", 0)
    assert await standing(journal) == (0, 0)
    assert await standing(journal, "bob") == (0, 0)


async def test_large_numbers(journal: Journal) -> None:
    """Numbers as large as a setting may be are kept exactly."""
    budget = 1 << 53
    granted, _ = await journal.budgets.reserve("ann", "s", budget, budget - 3, 16)
    assert granted == budget - 3
    await journal.budgets.settle("ann", "s", budget - 5)
    assert await standing(journal) == (budget - 5, 0)


async def test_at_once(journal: Journal) -> None:
    """However many ask at once, no more is reserved than there is."""
    taken = await asyncio.gather(*(journal.budgets.reserve("ann", f"s{n}", 1000, 150, 16) for n in range(40)))
    assert sorted((granted for granted, _ in taken), reverse=True)[:8] == [150] * 6 + [100, 0]
    assert await standing(journal) == (0, 1000)


async def test_a_day() -> None:
    """What is spent is forgotten a day after the first charge, and an account that has nothing else with it."""
    clock = Clock(1000)
    budgets = MemoryBudgets(clock)
    for name in ("s", "t"):
        await budgets.reserve("ann", name, 1000, 100, 16)
        await budgets.settle("ann", name, 100)
        clock.now += 3600
    assert await budgets.balance("ann") == (200, 0, DAY - 7200)
    clock.now += DAY - 7201
    assert await budgets.balance("ann") == (200, 0, 1)
    clock.now += 1
    assert await budgets.balance("ann") == (0, 0, DAY)
    await budgets.reserve("bob", "u", 1000, 100, 16)
    assert len(budgets) == 1
    clock.now += 2 * DAY
    await budgets.reserve("carl", "v", 1000, 100, 16)
    assert len(budgets) == 2  # a stream of bob's is live
    await budgets.settle("bob", "u", 0)
