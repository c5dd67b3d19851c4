"""The watchdog: what holds the event loop for too long fails a test, and what merely takes its time does not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.real.processes import ROOT, launch_watched
from tests.watchdog import ATTEMPTS, LIMIT, REFERENCE, Callback, check, fixed_work, watching

pytestmark = pytest.mark.anyio


async def hold(seconds: float, slices: int = 1) -> None:
    """Work for *seconds*, on a machine as fast as that of `REFERENCE`, with a yield after each slice."""
    for _ in range(slices):
        for _ in range(round(seconds / slices / REFERENCE)):
            fixed_work()
        await asyncio.sleep(0)


async def sleep() -> None:
    time.sleep(2 * LIMIT)  # noqa: ASYNC251 - as if another process had the processor


async def test_held() -> None:
    """One callback that works for too long fails the test, and is named."""
    with pytest.raises(AssertionError, match=r"coro=<hold\(\)"), watching():
        await asyncio.create_task(hold(4 * LIMIT))


async def test_slices() -> None:
    """The same work in slices, with a yield after each, is allowed: no other callback has to wait for all of it."""
    with watching() as callbacks:
        await asyncio.create_task(hold(4 * LIMIT, slices=20))
    assert callbacks


async def test_waiting_is_no_work() -> None:
    """Time in which the thread does not run, such as that of other processes, does not count."""
    with watching() as callbacks:
        await asyncio.create_task(sleep())
    assert callbacks == []


def test_slow_machines() -> None:
    """What is compared with the limit is the time that a callback takes on the machine that the limit was made for."""
    check([Callback(0, 4 * LIMIT, 5.0, "slow")])
    with pytest.raises(AssertionError, match="fast"):
        check([Callback(0, 4 * LIMIT, 1.0, "fast")])


FAILS = """
import itertools
from tests.watchdog import Held

runs = itertools.count()

def test() -> None:
    if next(runs) < {times}:
        raise {error}
"""


@pytest.mark.parametrize(
    ("error", "times", "status"), [("Held", ATTEMPTS - 1, 0), ("Held", ATTEMPTS, 1), ("AssertionError", 1, 1)]
)
def test_attempts(tmp_path: Path, error: str, times: int, status: int) -> None:
    """A test fails if the loop is held in each of several runs. One that fails for another reason is not repeated."""
    file = tmp_path / "test_it.py"
    file.write_text(FAILS.format(error=error, times=times))
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", os.devnull, str(file)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == status, ran.stdout
    assert ("1 failed" if status else "1 passed") in ran.stdout


@pytest.mark.real
def test_service(tmp_path: Path) -> None:
    """A service is watched from the time it listens on; what it did before is noted, too."""
    service = launch_watched(tmp_path)
    service.stop()
    service.watchdog.check()
    assert any("_serve()" in callback.name for callback in service.watchdog.callbacks(since=0))
