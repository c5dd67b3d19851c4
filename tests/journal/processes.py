"""Several service processes as far as the Redis journal is concerned: journals of their own, in one event loop."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from redis import Redis
from structlog.typing import FilteringBoundLogger

from app.errors import StreamError
from app.events import Delta, Done, Event, Failure
from app.journal import Journal, Log
from app.journal import redis as journals
from app.journal.memory import Bounds
from app.journal.redis import RedisJournal, keys, peers
from app.journal.redis import committer as commit
from app.journal.redis import connection as link
from app.journal.redis.writer import RedisWriter
from app.request import StreamInfo
from tests.waiting import until

INFO = StreamInfo("none", "ann", 3)
ROOMY = Bounds(stream=1 << 20, total=1 << 28, ended=100, seconds=60)
DONE = Done("stop")


@dataclass
class Owner:
    """Stands where the hub does, and keeps what it is told."""

    draining = False

    readers: dict[str, int] = field(default_factory=dict)
    stopped: list[tuple[str, str | None]] = field(default_factory=list)

    def presence(self, stream_id: str, change: int) -> None:
        self.readers[stream_id] = self.readers.get(stream_id, 0) + change

    def stop(self, stream_id: str, error: StreamError | None) -> None:
        self.stopped.append((stream_id, None if error is None else error.code))


@dataclass
class Process:
    """One service process."""

    journal: RedisJournal
    owner: Owner
    held: AsyncExitStack

    @property
    def lease(self) -> bytes:
        return keys.lease(self.journal._process)

    @property
    def connections(self) -> int:
        """How many connections it has."""
        journal = self.journal
        clients: list[Any] = [journal._client, journal._records, journal._ears]
        pools = [each.connection_pool for each in clients]
        every = [each for pool in pools for each in (*pool._available_connections, *pool._in_use_connections)]
        return sum(connection.is_connected for connection in every)

    async def pause(self) -> None:
        """Stop its heart and its ears, as SIGSTOP does; it may still write."""
        names = ("journal beat", "journal listen")
        tasks = [task for task in asyncio.all_tasks() if task.get_name() in names and self._owns(task)]
        assert len(tasks) == 2
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    def _owns(self, task: asyncio.Task[Any]) -> bool:
        frame: Any = task.get_coro()
        return bool(frame.cr_frame.f_locals["self"] is self.journal)


class Machine:
    """Starts processes on one Redis at *url*, and ends those that are left."""

    def __init__(self, url: str, log: FilteringBoundLogger, held: AsyncExitStack) -> None:
        self.url = url
        self._log = log
        self._held = held

    async def start(self, url: str | None = None, patience: float = 30, **bounds: Any) -> Process:
        journal = RedisJournal(url or self.url, replace(ROOMY, **bounds), patience, self._log)
        owner = Owner()
        held = await self._held.enter_async_context(AsyncExitStack())
        await held.enter_async_context(journal.serving(owner))
        return Process(journal, owner, held)


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let time pass ten times as fast: what a slow machine, too, has done in time."""
    monkeypatch.setattr(peers, "BEAT", 0.2)
    monkeypatch.setattr(peers, "LEASE", 1.0)
    monkeypatch.setattr(peers, "_RETRY", 0.1)
    monkeypatch.setattr(commit, "_LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(link, "_SETTLING", 0.6)
    monkeypatch.setattr(journals, "_TRIP", 0.8)


async def acked(writer: RedisWriter, records: int) -> None:
    """Wait until Redis has so many records."""
    await until(lambda: writer.acked >= records)


async def read(log: Log, after: int = 0, timeout: float = 30) -> list[Event]:
    """Read *log* to its end, and check that its records are numbered without a gap."""
    found: list[Event] = []
    async with asyncio.timeout(timeout):
        async for batch in log.read(after):
            assert batch.first == after + len(found) + 1
            found += batch.events
    return found


async def opened(journal: Journal, stream_id: str = "s", after: int = 0, timeout: float = 30) -> list[Event]:
    """Open a stream and read it to its end."""
    return await read(await journal.open(stream_id), after, timeout)


async def reading(journal: Journal, stream_id: str = "s", timeout: float = 30) -> asyncio.Task[list[Event]]:
    """Open a stream, and have a task read it to its end, whatever happens from now on."""
    return asyncio.create_task(read(await journal.open(stream_id), timeout=timeout))


def text(events: list[Event]) -> str:
    """Return what the deltas among *events* say."""
    return "".join(event.text for event in events if isinstance(event, Delta))


def ending(events: list[Event]) -> str:
    """Return the code of the failure that *events* end with, or "done"."""
    last = events[-1]
    return last.code if isinstance(last, Failure) else "done"


def entries(redis: Redis, stream_id: str = "s") -> list[Any]:
    """Return what Redis has of a log."""
    found: Any = redis.xrange(keys.log(stream_id))
    return list(found)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])
