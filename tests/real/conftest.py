"""Starting real processes from tests; what a test, or a module of tests, started ends with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser

from tests.real.browser import chromium
from tests.real.processes import Server, launch, launch_hasty, launch_nginx, launch_simulator, launch_watched, stats
from tests.real.redis import RedisServer, launch_redis

Start = Callable[..., Server]


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = launch_simulator(tmp_path_factory.mktemp("simulator"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def impatient(simulator: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that sends keep-alives often, and stops a stream that its reader has left."""
    directory = tmp_path_factory.mktemp("service")
    server = launch(directory, simulator, keep_alive=0.05, on_disconnect="cancel", retry_wait=0.01)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A redis-server that keeps nothing on disk."""
    server = launch_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def counted(simulator: Server) -> Callable[[], dict[str, int]]:
    """The simulator's counters since the test began."""
    httpx.post(simulator.url.removesuffix("/v1") + "/stats/reset").raise_for_status()
    return lambda: stats(simulator)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def processes() -> Iterator[list[Server]]:
    started: list[Server] = []
    yield started
    for process in reversed(started):
        process.stop()


def _starting(processes: list[Server], launcher: Callable[..., Server], directory: Path) -> Start:
    def start(*arguments: Any, **settings: Any) -> Server:
        server = launcher(directory, *arguments, **settings)
        processes.append(server)
        return server

    return start


@pytest.fixture
def start_service(processes: list[Server], tmp_path: Path) -> Start:
    return _starting(processes, launch, tmp_path)


@pytest.fixture
def start_hasty(processes: list[Server], tmp_path: Path) -> Start:
    """Start services that take each other for gone sooner than usual."""
    return _starting(processes, launch_hasty, tmp_path)


@pytest.fixture
def start_watched(tmp_path: Path) -> Iterator[Start]:
    """Start services whose event loop is watched. The test fails if anything held it for too long."""
    started: list[Server] = []
    start = _starting(started, launch_watched, tmp_path)
    try:
        yield start
    finally:
        for process in started:
            process.stop()
    for process in started:
        process.watchdog.check()


@pytest.fixture
def start_simulator(processes: list[Server], tmp_path: Path) -> Start:
    return _starting(processes, launch_simulator, tmp_path)


@pytest.fixture
def start_nginx(processes: list[Server], tmp_path: Path) -> Start:
    return _starting(processes, launch_nginx, tmp_path)


@pytest.fixture
def start_redis(processes: list[Server], tmp_path: Path) -> Callable[..., RedisServer]:
    def start(*options: str) -> RedisServer:
        server = launch_redis(tmp_path, *options)
        processes.append(server)
        return server

    return start
