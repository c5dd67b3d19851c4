"""The supervisor with workers that are small scripts: what it starts, restarts, replaces and kills, and its status."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.serving.workers import Supervisor
from tests.waiting import wait_until

pytestmark = pytest.mark.real

# A worker that accepts connections, and ends as soon as it is told to, by a message or a signal. It makes the file that
# its second argument names as soon as it is ready for the signal.
GOOD = """
import pathlib, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
supervisor = socket.socket(fileno=int(sys.argv[1]))
pathlib.Path(sys.argv[2]).touch()
supervisor.send(b"+")
supervisor.recv(1)
"""
# The others differ in one thing each.
WRONG_SETTINGS = "raise SystemExit(2)"
DIES_LATER = GOOD.replace("supervisor.recv(1)", "raise SystemExit(3)")
IGNORES_SIGTERM = GOOD.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN")
STARTS_SLOWLY = GOOD.replace('supervisor.send(b"+")', "signal.pause()")
ACCEPTS_WHEN_TOLD_TO_END = """
import pathlib, signal, socket, sys
supervisor = socket.socket(fileno=int(sys.argv[1]))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
pathlib.Path(sys.argv[2]).touch()
signal.sigwait({signal.SIGTERM})
supervisor.send(b"+")
supervisor.settimeout(0.2)
supervisor.recv(1)
"""


class Run:
    """A supervisor of two workers in this thread, and what another thread does to it meanwhile.

    *scripts* are the workers' in the order of their start; the last one is used again and again.
    """

    def __init__(
        self, log: FilteringBoundLogger, logs: LogCapture, ready: Path, *scripts: str, end_timeout: float = 30
    ) -> None:
        self.logs = logs
        self.ready = ready
        self.scripts = list(scripts)
        self.numbers: list[int] = []
        self.announced = 0
        self.interrupted = 0
        self.supervisor = Supervisor(2, self._spawn, 0, self._announce, self._interrupt, log, end_timeout)

    def _spawn(self, number: int, control: int) -> subprocess.Popen[bytes]:
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        self.numbers.append(number)
        command = [sys.executable, "-S", "-c", script, str(control), str(self.ready)]
        return subprocess.Popen(command, pass_fds=(control,))

    def _announce(self) -> None:
        self.announced += 1

    def _interrupt(self) -> None:
        self.interrupted += 1

    def until(self, *steps: Any) -> int:
        """Run the supervisor while another thread waits for conditions and sends signals; return its status."""

        def act() -> None:
            try:
                for step in steps:
                    if callable(step):
                        wait_until(step)
                    else:
                        os.kill(os.getpid(), step)
            except AssertionError:
                os.kill(os.getpid(), signal.SIGTERM)
                raise

        acting = threading.Thread(target=act)
        acting.start()
        status = asyncio.run(self.supervisor.run())
        acting.join(30)
        return status

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [dict(entry) for entry in self.logs.entries if entry["event"] == event]


@pytest.fixture
def start(log: FilteringBoundLogger, logs: LogCapture, tmp_path: Path) -> Callable[..., Run]:
    """Return a supervisor whose workers run the given scripts."""
    return lambda *scripts, **options: Run(log, logs, tmp_path / "ready", *scripts, **options)


def test_they_start_and_end(start: Callable[..., Run]) -> None:
    """All workers start, that is announced once, and SIGTERM ends them with status 0."""
    run = start(GOOD)
    assert run.until(lambda: run.announced, signal.SIGTERM) == 0
    assert (run.numbers, run.announced) == ([0, 1], 1)
    assert [entry["status"] for entry in run.logged("worker.ended")] == [0, 0]


def test_an_interrupt(start: Callable[..., Run]) -> None:
    """SIGINT ends them, too. What started the supervisor is told of it, but not of a SIGTERM."""
    run = start(GOOD)
    assert run.until(lambda: run.announced, signal.SIGINT) == 0
    assert run.interrupted == 1
    run = start(GOOD)
    assert run.until(lambda: run.announced, signal.SIGTERM) == 0
    assert run.interrupted == 0


def test_wrong_settings(start: Callable[..., Run]) -> None:
    """Wrong settings end the supervisor with status 2, after one worker has reported them."""
    run = start(WRONG_SETTINGS)
    assert run.until() == 2
    assert (run.numbers, run.announced) == ([0], 0)


def test_the_dead_are_restarted(start: Callable[..., Run]) -> None:
    """A worker that dies is restarted, each time after twice the delay."""
    run = start(GOOD, DIES_LATER, DIES_LATER, GOOD)
    assert run.until(lambda: len(run.logged("worker.started")) == 4, signal.SIGTERM) == 0
    assert run.numbers == [0, 1, 1, 1]
    assert [entry["again_in"] for entry in run.logged("worker.died")] == [0.1, 0.2]


def test_a_reload(start: Callable[..., Run]) -> None:
    """SIGHUP replaces one worker after another: the old one retires when the new one accepts connections."""
    run = start(GOOD)

    def replaced() -> bool:
        return len(run.logged("worker.ended")) == 2

    assert run.until(lambda: run.announced, signal.SIGHUP, replaced, signal.SIGTERM) == 0
    events = [
        entry["event"].removeprefix("worker.") for entry in run.logs.entries if entry["event"].startswith("worker.")
    ]
    assert events == ["started", "started"] + 2 * ["started", "ended"] + ["ended", "ended"]


def test_a_reload_that_fails(start: Callable[..., Run]) -> None:
    """If a new worker cannot start, the reload is over and the old workers go on."""
    run = start(GOOD, GOOD, WRONG_SETTINGS)

    def failed() -> bool:
        return bool(run.logged("workers.not_reloaded"))

    assert run.until(lambda: run.announced, signal.SIGHUP, failed, signal.SIGTERM) == 0
    assert run.numbers == [0, 1, 0]
    assert len(run.logged("worker.ended")) == 2


def test_who_does_not_end_is_killed(start: Callable[..., Run]) -> None:
    """A worker that does not end in time is killed, and the status says that it had to be."""
    run = start(GOOD, IGNORES_SIGTERM, end_timeout=0.2)
    assert run.until(lambda: run.announced, signal.SIGTERM) == 1
    assert [entry["worker"] for entry in run.logged("worker.killed")] == [1]


def test_stopping_while_one_starts(start: Callable[..., Run]) -> None:
    """SIGTERM ends the supervisor while its first worker starts."""
    run = start(STARTS_SLOWLY)
    assert run.until(run.ready.exists, signal.SIGTERM) == 0
    assert (run.numbers, run.announced) == ([0], 0)


def test_no_worker_starts_after_the_stop(start: Callable[..., Run]) -> None:
    """If the first worker accepts connections only after SIGTERM, no other worker is started."""
    run = start(ACCEPTS_WHEN_TOLD_TO_END)
    run.until(run.ready.exists, signal.SIGTERM)
    assert (run.numbers, run.announced) == ([0], 0)


def test_a_worker_that_cannot_be_started(start: Callable[..., Run]) -> None:
    """If the system starts no more processes, the supervisor ends with the error, as nothing else would tell of it."""
    run = start(GOOD, DIES_LATER)
    spawn = run.supervisor._spawn

    def spawn_twice(number: int, control: int) -> subprocess.Popen[bytes]:
        if len(run.numbers) == 2:
            raise BlockingIOError("no more processes")
        return spawn(number, control)

    run.supervisor._spawn = spawn_twice
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # of the socket that was for the worker
        with pytest.raises(BlockingIOError) as error:
            run.until()
        traceback.clear_frames(error.tb)
    for worker in run.supervisor._workers:
        worker.process.kill()
        worker.process.wait()
        worker.control.close()
