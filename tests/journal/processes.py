"""Several service processes as far as the Redis journal is concerned: journals of their own, in one event loop."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from redis import Redis
from structlog.typing import FilteringBoundLogger

from app.errors import StreamError
from app.events import Delta, Done, Event, Failure
from app.journal import Bounds, Journal, Log, Orphan
from app.journal.redis import keys
from app.journal.redis.journal import RedisJournal
from app.journal.redis.timing import Timing
from app.journal.redis.writer import RedisWriter
from app.request import StreamInfo
from tests.waiting import until

INFO = StreamInfo("none", "ann", 3)
ROOMY = Bounds(stream=1 << 20, total=1 << 28, ended=100, seconds=60)
DONE = Done("stop")
# A tenth of the usual times: what a slow machine, too, has done in time.
FAST = Timing(pipeline=0.8, last_pause=0.2, settling=0.6, renewal=0.2, renewal_retry=0.1, lease=1.0)
# With so long between two renewals, none of them tells again what was lost.
SELDOM = replace(FAST, renewal=30, lease=60)


@dataclass
class Owner:
    """Stands where the hub does, and keeps what it is told."""

    readers: dict[str, int] = field(default_factory=dict)
    stopped: list[tuple[str, str | None]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    orphans: list[Orphan] = field(default_factory=list)
    evictions: list[tuple[str, str]] = field(default_factory=list)

    def evicted(self, stream_id: str, reason: str) -> None:
        self.evictions.append((stream_id, reason))

    def presence(self, stream_id: str, change: int) -> None:
        self.readers[stream_id] = self.readers.get(stream_id, 0) + change

    def stop(self, stream_id: str, error: StreamError | None) -> None:
        self.stopped.append((stream_id, None if error is None else error.code))

    def leave(self, stream_id: str) -> bool:
        self.left.append(stream_id)
        return True

    async def adopt(self, orphan: Orphan) -> None:
        self.orphans.append(orphan)


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
        """How many connections its clients have made and not closed."""
        journal = self.journal
        clients: list[Any] = [journal._connection._client, journal._records._client, journal._subscriber]
        return sum(count for client in clients for count, _ in client._pool.get_connection_count())

    async def pause(self) -> None:
        """Let it neither renew nor listen, as after SIGSTOP; it may still write."""
        names = {f"{loop} {self.journal._process}" for loop in ("renew_lease", "listen")}
        tasks = [task for task in asyncio.all_tasks() if task.get_name() in names]
        assert len(tasks) == 2
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class Machine:
    """Starts processes on one Redis at *url*, and ends those that are left."""

    def __init__(self, url: str, log: FilteringBoundLogger, held: AsyncExitStack, timing: Timing = FAST) -> None:
        self.url = url
        self._log = log
        self._held = held
        self._timing = timing

    async def start(
        self, url: str | None = None, patience: float = 30, timing: Timing | None = None, **bounds: Any
    ) -> Process:
        """Start a process; *bounds* are those that differ from `ROOMY`."""
        owner = Owner()
        bounds_ = replace(ROOMY, **bounds)
        journal = RedisJournal(url or self.url, bounds_, patience, owner.evicted, self._log, timing or self._timing)
        held = await self._held.enter_async_context(AsyncExitStack())
        await held.enter_async_context(journal.serving(owner))
        return Process(journal, owner, held)


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
