"""Turns of the loop: steps share them, none is overtaken, and none waits without need."""

from __future__ import annotations

import asyncio

import pytest

from app.turns import ROOM, turn, worked
from tests.waiting import until

pytestmark = pytest.mark.anyio


class Loop:
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.number = 0
        self._next()

    def _next(self) -> None:
        self.number += 1
        self._handle = asyncio.get_running_loop().call_soon(self._next)

    def stop(self) -> None:
        self._handle.cancel()


async def test_a_small_step_waits_for_nothing() -> None:
    """As long as there is room, a step is taken at once, without a turn of the loop."""
    loop = Loop()
    for _ in range(8):
        await turn(ROOM // 8)
    assert loop.number == 1
    await turn(1)
    assert loop.number > 1
    loop.stop()


@pytest.mark.parametrize("work", [ROOM // 8, ROOM, 3 * ROOM])
async def test_many_share_a_turn(work: int) -> None:
    """Steps that are ready together are spread over turns of the loop, and each gets its turn."""
    taken: list[tuple[int, int]] = []

    async def steps(name: int) -> None:
        for _ in range(3):
            await turn(work)
            taken.append((name, loop.number))

    loop = Loop()
    await asyncio.gather(*[steps(name) for name in range(20)])
    loop.stop()
    assert sorted(name for name, _ in taken) == sorted([*range(20)] * 3)
    for number in {number for _, number in taken}:
        at_once = sum(work for _, when in taken if when == number)
        assert at_once <= 2 * (ROOM + work)
    assert loop.number >= 60 * work // ROOM - 1


async def test_order() -> None:
    """Steps that wait are taken in the order in which they came."""
    taken: list[int] = []

    async def step(name: int) -> None:
        await turn(ROOM)
        taken.append(name)

    await asyncio.gather(*[step(name) for name in range(20)])
    assert taken == [*range(20)]


async def test_work_that_was_not_announced() -> None:
    """What turned out to be more work than it seemed takes the room of later turns."""
    loop = Loop()
    await turn(1)
    worked(5 * ROOM)
    await turn(1)
    assert loop.number > 5
    loop.stop()


async def test_a_step_that_is_given_up() -> None:
    """One that no longer waits takes no room, and holds no other up."""
    worked(10 * ROOM)
    tasks = [asyncio.create_task(turn(ROOM)) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await until(lambda: tasks[2].done())
    assert tasks[0].cancelled()
    assert tasks[1].done()
