"""What all tests share: the event loop they run on, and a logger that keeps what it is given."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from _pytest.runner import runtestprotocol
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import HealthCheck, settings
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.simulator import Simulator, serve
from tests.clock import LoopClock
from tests.simulator.faults import MODELS
from tests.watchdog import ATTEMPTS, Held

# Neither an example's time nor how long it takes to think one up says anything where all depends on the machine. The
# examples are the same in each run, so that a commit that passed passes again: `FUZZ_SEED` looks for other ones.
settings.register_profile("any machine", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# The timeout of an httpx client that is given none: it only guards against hanging.
for _phase in ("connect", "read", "write", "pool"):
    setattr(DEFAULT_TIMEOUT_CONFIG, _phase, 60.0)

_MEASURING = "COVERAGE_PROCESS_CONFIG"  # by which coverage's `patch = ["subprocess"]` reaches a child


@pytest.hookimpl(tryfirst=True)  # before `-m` selects by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that open a browser, so that they can be left out."""
    for item in items:
        if isinstance(item, pytest.Function) and "browser" in item.fixturenames:
            item.add_marker("browser")


_held = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run a test again if something held its loop: what is too long is so each time, and what is around it is not."""
    if item.get_closest_marker("timeout") is not None:
        faulthandler.cancel_dump_traceback_later()  # what ends a stuck process has the other tests' time
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for _ in range(ATTEMPTS):
        item.stash[_held] = False
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if not item.stash[_held]:
            break
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_exception_interact(node: pytest.Item | pytest.Collector, call: pytest.CallInfo[object]) -> None:
    if call.excinfo is not None and call.excinfo.errisinstance(Held):
        node.stash[_held] = True


@pytest.fixture(scope="session", autouse=True)
def measuring() -> str | None:
    """What has a child process measure its coverage, taken out of the environment: tracing costs half as much again.

    In-process tests have the rooms' coverage; what only a process can show is measured by modules that use `measured`.
    """
    return os.environ.pop(_MEASURING, None)


@pytest.fixture(scope="module")
def measured(measuring: str | None) -> Iterator[None]:
    """The processes that a module's tests start measure their coverage."""
    with pytest.MonkeyPatch.context() as patch:
        if measuring is not None:
            patch.setenv(_MEASURING, measuring)
        yield


@pytest.fixture(autouse=True)
def root_level() -> Iterator[None]:
    """A test that configures the process's log leaves the root logger's level as it was: others read what they log."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def logs() -> LogCapture:
    """The entries that `log` was given."""
    return LogCapture()


@pytest.fixture
def log(logs: LogCapture) -> FilteringBoundLogger:
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(), processors=[logs], wrapper_class=structlog.make_filtering_bound_logger(0)
    ).bind()
    return logger


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A simulator in this loop, at once and as fast as it can, with the models that only tests ask for."""
    async with await serve(tokens_per_second=0, first_token_delay=0, models=MODELS) as running:
        yield running


@pytest.fixture
async def loop_clock(monkeypatch: pytest.MonkeyPatch) -> LoopClock:
    """The clock of the event loop, which stands still unless the test lets time pass."""
    clock = LoopClock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    return clock
