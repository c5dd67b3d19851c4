"""Measures for how long each callback holds the event loop: in CPU time of the loop's thread, not by the wall clock.

The rule is that nothing holds the loop longer than `LIMIT` seconds. A test fails at `TOLERANCE` times that, because
what runs beside a callback may double what it takes for a moment; what the rule is meant to find takes ten times as
long. `watching` holds a test's own loop to it.
`python -m tests.watchdog serve …` is `chat-sse serve …` with a `Recording` in the file that the environment names, and
`tests/real` has a fixture for that, `start_watched`.

A process is slower on another machine, and beside other processes. So each callback that is noted is followed by a
fixed piece of work, and the callback's time is divided by how much slower that was than on the machine of `REFERENCE`.
A machine may also be slow for the callback alone: its frequency changes, or its host takes the processor away, which
counts as the thread's own time. So a test fails only if this happens in each of `ATTEMPTS` runs.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import uvloop

from app.cli import main

LIMIT = 0.050
TOLERANCE = 2
ATTEMPTS = 3
# Callbacks that take less are not noted.
_NOTED = 0.010
# Seconds that `fixed_work` takes on two virtual cores of an AMD EPYC, with Python 3.11 and nothing beside it.
REFERENCE = 0.00125
_FILE = "WATCHDOG_FILE"


class Callback(NamedTuple):
    """A callback that ended at the time *at*, by `time.monotonic`, and took *cpu* seconds of the loop's thread.

    The machine was *slowness* times slower than the one of `REFERENCE`: at least 1. *name* is the task and where it
    waits now, or the function.
    """

    at: float
    cpu: float
    slowness: float
    name: str

    @property
    def seconds(self) -> float:
        """What is compared with `LIMIT`."""
        return self.cpu / self.slowness

    def __str__(self) -> str:
        return f"{self.seconds * 1000:.0f} ms (CPU {self.cpu * 1000:.0f} ms, {self.slowness:.1f}x slower): {self.name}"


class Recording:
    """The callbacks that a watched process notes in *file*, from now on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.restart()

    def restart(self) -> None:
        """Leave out what was until now."""
        self._since = time.monotonic()

    def callbacks(self, since: float | None = None) -> list[Callback]:
        """Return the callbacks that took longer than 10 ms, in their order, or those *since* an earlier time."""
        first = self._since if since is None else since
        found = [Callback(*json.loads(line)) for line in self._file.read_text().splitlines()]
        return [callback for callback in found if callback.at >= first]

    def longest(self) -> float:
        """Return the seconds of the longest callback; 0 if none took longer than 10 ms."""
        return max((callback.seconds for callback in self.callbacks()), default=0.0)

    def check(self) -> None:
        """Fail if a callback took longer than `TOLERANCE` times `LIMIT`."""
        check(self.callbacks())


class Held(AssertionError):
    """Something held the event loop for too long. The test is run again: see `tests/conftest.py`."""


def check(callbacks: list[Callback]) -> None:
    """Raise Held if one of them took longer than `TOLERANCE` times `LIMIT`."""
    long = [str(callback) for callback in callbacks if callback.seconds > TOLERANCE * LIMIT]
    if long:
        raise Held(f"these held the event loop longer than {LIMIT * 1000:.0f} ms:\n" + "\n".join(long))


@contextmanager
def watching() -> Iterator[list[Callback]]:
    """Watch the asyncio loop of this process, and fail at the end if a callback took longer than `check` allows.

    The callbacks that took longer than 10 ms are in the list as soon as they have ended. A callback of a task goes on
    to where the task waits next, so give the code in question a task of its own.
    """
    callbacks: list[Callback] = []
    gc.collect()
    gc.freeze()  # a collection is not to look at all that the test process has, as the service's own does not
    try:
        with _measuring(callbacks.append):
            yield callbacks
    finally:
        gc.unfreeze()
    check(callbacks)


@contextmanager
def _measuring(note: Callable[[Callback], None]) -> Iterator[None]:
    run = asyncio.Handle._run  # each turn of the loop calls it for each callback

    def measured(handle: asyncio.Handle) -> None:
        callback = handle._callback  # type: ignore[attr-defined]  # it is gone if the callback cancels its handle
        began = time.thread_time()
        run(handle)
        cpu = time.thread_time() - began
        if cpu > _NOTED:
            note(Callback(time.monotonic(), cpu, max(1.0, fixed_work() / REFERENCE), _name(callback)))

    with mock.patch.object(asyncio.Handle, "_run", measured):
        yield


def fixed_work() -> float:
    """Return the CPU seconds of a piece of work that is always the same, and makes nothing for a collection to find."""
    best = 1.0
    for _ in range(2):
        began = time.thread_time()
        for number in range(20_000):
            str(number)
        best = min(best, time.thread_time() - began)
    return best


def _name(callback: object) -> str:
    owner = getattr(callback, "__self__", None)
    return repr(owner if isinstance(owner, asyncio.Task) else callback)[:300]


def _watched_main() -> int:
    """Run the command line with the loop of asyncio, because that of uvloop has no callback that Python can measure."""
    with Path(os.environ[_FILE]).open("a", buffering=1) as file:
        uvloop.new_event_loop = asyncio.new_event_loop  # type: ignore[assignment]  # a loop all the same
        with _measuring(lambda callback: print(json.dumps(callback), file=file)):
            return main()


if __name__ == "__main__":
    sys.exit(_watched_main())
