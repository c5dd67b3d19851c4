"""The tasks of a journal."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.journal.loops import Loads, cancelled, running
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def test_a_crash(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """A loop that crashes begins again; its place is logged, and what the error says is not."""
    runs = []

    async def loop() -> None:
        runs.append(len(crashes))
        if len(runs) < 3:
            raise ValueError("secret")
        await asyncio.sleep(60)

    crashes: list[None] = []
    task = asyncio.create_task(running(loop, lambda: crashes.append(None), 0.0, log))
    await until(lambda: len(runs) == 3)
    await cancelled([task])
    assert (runs, task.cancelled()) == ([0, 1, 2], True)
    assert [(entry["event"], entry["loop"], entry["error"]) for entry in logs.entries] == [
        ("journal.crashed", "loop", "ValueError")
    ] * 2
    assert logs.entries[0]["at"].startswith("test_loops.py:")
    assert "secret" not in str(logs.entries)


async def test_a_task_that_swallows_its_cancellation() -> None:
    """It is cancelled until it has ended."""

    async def stubborn() -> None:
        for _ in range(3):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue
            break

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await cancelled([task])
    assert task.done()


async def test_loads() -> None:
    """A stream is loaded once for all that ask for it meanwhile, also if some of them leave; then it may be again."""
    loads = Loads[str]()
    loading = asyncio.Event()
    go = asyncio.Event()

    async def load() -> str:
        loading.set()
        await go.wait()
        return "s"

    async def other() -> str:
        return "other"

    first = asyncio.create_task(loads.load("s", load))
    await loading.wait()
    second = asyncio.create_task(loads.load("s", other))
    assert await loads.load("t", other) == "other"
    first.cancel()
    await asyncio.wait([first])
    assert "s" in loads
    assert len(loads.tasks) == 1
    go.set()
    assert await second == "s"
    assert "s" not in loads
    assert loads.tasks == []
    assert await loads.load("s", other) == "other"


async def test_a_load_that_fails() -> None:
    """All that ask for it get its error; if all have left, asyncio does not log it."""
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    loads = Loads[str]()
    go = asyncio.Event()

    async def load() -> str:
        await go.wait()
        raise ValueError

    for left in (False, True):
        go.clear()
        callers = [asyncio.create_task(loads.load("s", load)) for _ in range(2)]
        await until(lambda: "s" in loads)
        task = weakref.ref(loads.tasks[0])
        if left:
            await cancelled(callers)
        go.set()
        await until(lambda: "s" not in loads)
        found = await asyncio.gather(*callers, return_exceptions=True)
        kind = asyncio.CancelledError if left else ValueError
        assert [type(each) for each in found] == [kind] * 2
        callers.clear()
        found.clear()
        await until(lambda: gc.collect() >= 0 and task() is None)  # noqa: B023 - awaited at once
    assert complaints == []
