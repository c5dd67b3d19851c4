"""A real redis-server for a module of tests, and service processes on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from structlog.typing import FilteringBoundLogger

from app.journal import Journal
from app.journal.file.address import Address
from app.journal.file.journal import FileJournal
from app.journal.memory import MemoryJournal
from tests.journal.processes import FAST, ROOMY, Machine, Owner
from tests.real.redis import RedisServer, launch_redis


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A redis-server that keeps nothing on disk."""
    server = launch_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis(server: RedisServer) -> Iterator[Redis]:
    """A client of an empty Redis with its usual settings; what a test has set goes with it."""
    with server.client() as redis:
        redis.flushall()
        yield redis
        redis.config_set("maxmemory", 0)
        redis.replicaof("NO", "ONE")


@pytest.fixture
async def machine(redis: Redis, server: RedisServer, log: FilteringBoundLogger) -> AsyncIterator[Machine]:
    """Where processes are started; time passes fast there."""
    async with AsyncExitStack() as held:
        yield Machine(server.url, log, held)


@pytest.fixture
async def in_memory() -> AsyncIterator[Journal]:
    journal = MemoryJournal(ROOMY)
    async with journal.serving(Owner()):
        yield journal


@pytest.fixture
async def in_file(tmp_path: Path, log: FilteringBoundLogger) -> AsyncIterator[Journal]:
    journal = FileJournal(Address(tmp_path / "streams", durable=False), ROOMY, 30, lambda *_: None, log)
    async with journal.serving(Owner()):
        yield journal


@pytest.fixture
async def in_redis(machine: Machine) -> Journal:
    # Redis is never away here, however slow the machine is.
    return (await machine.start(timing=replace(FAST, pipeline=30))).journal


@pytest.fixture(params=["in_memory", "in_file", pytest.param("in_redis", marks=pytest.mark.real)])
def journal(request: pytest.FixtureRequest) -> Journal:
    """The journal of one process, of each kind."""
    journal: Journal = request.getfixturevalue(request.param)
    return journal
