"""The tasks that a journal has for as long as it is in use."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.journal.loops import cancelled, running
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
