"""The processes a scenario is played on: the simulator, the contenders before it, and the client."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.benchmarks import accounts
from tests.benchmarks.contenders import Contender, Ground, Missing, Running
from tests.benchmarks.contenders.ground import openai_ask, stop
from tests.benchmarks.contenders.packages import last_line
from tests.benchmarks.plan import Plan, Scenario, Seen, Task
from tests.real.processes import ROOT, launch_simulator, stats
from tests.waiting import wait_until

DIRECT = "direct"  # nothing in between

_WARM_UP = Scenario("warm-up", 10, ramp=0.2, settle=0, window=0.3, probing=0.2, probes=5, patient=True)
_WARM_UPS = 3  # at most: LiteLLM takes its time over its first requests
_LONGEST = 240.0  # seconds for a run of the client
_LETTING_GO = 15.0  # seconds for a contender to let go of all that the upstream streams to it


class Stage:
    """Running contenders, by name. *missing* are those that could not be had, or stream nothing, and why."""

    def __init__(self, directory: Path) -> None:
        self.simulator = launch_simulator(directory)
        self.missing: dict[str, str] = {}
        self._directory = directory
        self._ground = Ground(directory, self.simulator)
        self._contenders: dict[str, Contender] = {}
        self._running: dict[str, Running] = {}

    def add(self, contenders: Iterable[Contender]) -> None:
        """Start *contenders*, and have all their code paths run and every pool filled before anything is counted."""
        for contender in contenders:
            self._contenders[contender.name] = contender
            self._start(contender.name)

    @property
    def names(self) -> list[str]:
        """Those that run."""
        return list(self._running)

    def play(self, scenario: Scenario, name: str, task: Task = "load") -> Seen:
        """Play *scenario* once via the contender *name*, with a load client of its own.

        What could not be played at all has lost all its streams. A contender that goes on streaming without a
        reader would be in the next one's way: it is started again.
        """
        seen = self._run(scenario, name, task)
        if name != DIRECT and not self._let_go():
            print(f"  {name}: did not let go of its streams, so it is started again", file=sys.stderr)
            self._start(name)
        return seen

    def _run(self, scenario: Scenario, name: str, task: Task) -> Seen:
        running = Running(self.simulator, openai_ask()) if name == DIRECT else self._running[name]
        watched = {"simulator": self.simulator, **({} if name == DIRECT else running.processes)}
        plan = Plan(
            scenario,
            running.ask,
            running.server.port,
            {each: accounts.tree(server.popen.pid) for each, server in watched.items()},
            self.simulator.port,
            task,
            running.origin.port if running.origin else 0,
        )
        seen = _client(plan, self._directory / "seen.json")
        for complaint in dict.fromkeys(seen.complaints):
            print(f"  {name}: {complaint}", file=sys.stderr)
        return seen

    @contextmanager
    def alone_on_a_core(self, name: str) -> Iterator[None]:
        """Have the contender *name* run on the first core, and all else on the others, if there are any."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            yield
            return
        everyone = accounts.tree(os.getpid())
        accounts.pin(everyone, cores[1:])
        for server in self._running[name].processes.values():
            accounts.pin(accounts.tree(server.popen.pid), cores[:1])
        try:
            yield
        finally:
            accounts.pin(accounts.tree(os.getpid()), cores)

    def close(self) -> None:
        """End everything."""
        for running in self._running.values():
            running.stop()
        stop(self.simulator)

    def _start(self, name: str) -> None:
        """Start a contender, again if it runs; or note why it cannot be started."""
        if running := self._running.pop(name, None):
            running.stop()
        try:
            running = self._contenders[name].start(self._ground)
        except Missing as error:
            self.missing[name] = str(error)
            return
        self._running[name] = running
        for _ in range(_WARM_UPS):
            seen = self._run(_WARM_UP, name, "load")
            if self._let_go() and seen.first_token and not seen.lost:
                return
        del self._running[name]
        running.stop()
        self.missing[name] = (seen.complaints or [f"too slow for {_WARM_UP.streams} streams"])[0]

    def _let_go(self) -> bool:
        try:
            wait_until(lambda: stats(self.simulator)["live"] == 0, _LETTING_GO)
        except (AssertionError, httpx.HTTPError):
            return False
        return True


def _client(plan: Plan, result: Path) -> Seen:
    """Run the load client, which writes what it saw to the file *result*."""
    command = [sys.executable, "-m", "tests.benchmarks.load", str(result)]
    try:
        subprocess.run(
            command,
            input=plan.dump(),
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            timeout=_LONGEST,
        )
    except subprocess.CalledProcessError as error:
        return Seen(lost=plan.scenario.streams, complaints=[f"the load client failed: {last_line(error.stderr)}"])
    except subprocess.TimeoutExpired:
        return Seen(lost=plan.scenario.streams, complaints=[f"not over after {_LONGEST:.0f} s"])
    return Seen.parse(result.read_text())


@contextmanager
def stage(*contenders: Contender) -> Iterator[Stage]:
    """Start fresh processes and end them: memory that an earlier scenario touched does not count."""
    with tempfile.TemporaryDirectory(prefix="chat-sse-benchmark-") as directory:
        found = Stage(Path(directory))
        try:
            found.add(contenders)
            yield found
        finally:
            found.close()
