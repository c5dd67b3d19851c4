"""The journal of many processes: Redis Streams, or Valkey's.

Strategy: what a process produces, and what it reads of others, is in its memory as if there were no Redis; readers
know no other log. Redis stands between a record's making and its being readable (`commit`), carries it to whoever
reads the stream elsewhere (`peers`), and has what all have to agree on (`registry`). Nothing here is done once per
reader, and nothing once per delta but an entry in a trip that many share.

Commands touch one key each, so that a cluster will do (`cluster`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from structlog.typing import FilteringBoundLogger

from app.errors import JournalDown
from app.events import Failure
from app.journal.memory import Bounds, MemoryJournal, MemoryLog
from app.journal.redis.cluster import create_clients
from app.journal.redis.committer import Committer
from app.journal.redis.connection import Link, Wire
from app.journal.redis.peers import Owner, Peers
from app.journal.redis.registry import RedisRegistry
from app.journal.redis.replicas import Copies, Copy, header_of
from app.journal.redis.writer import RedisWriter
from app.request import StreamInfo

# Seconds for one trip to Redis, and for a connection.
_TRIP, _CONNECT = 5.0, 2.0
# Seconds for which an ended log stays in this process's memory, too: readers that were cut at its end come back soon.
_NEAR = 30.0
# Seconds for which a live stream's log is kept after its producer has last renewed that, which it does four times as
# often: nobody may be there to end it when its producer has died.
_LIFE = 3600
# Seconds that the last records of all streams are waited for at the end.
_LAST = 5.0
# Seconds after which a loop that crashed begins anew.
_AGAIN = 0.5


class RedisJournal:
    """The journal of this process, shared with all others at *url*.

    Of *bounds*, those of memory hold for this process, copies of what others write included; an ended log is kept in
    Redis for its seconds, and how much that may be is for Redis' `maxmemory` to say. While Redis is away, live streams
    wait for *patience* seconds, and then end with JournalDown.
    """

    def __init__(self, url: str, bounds: Bounds, patience: float, log: FilteringBoundLogger) -> None:
        process = secrets.token_hex(8)
        keep = max(1, round(bounds.seconds))
        # redis-py's own retries would hide that Redis was away, after which nothing is to be taken for granted.
        options: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "socket_keepalive": True, "protocol": 2}
        # How long a trip may take is for whoever makes it to say, and a channel may well be silent. Besides, with a
        # timeout redis-py sends by `asyncio.wait_for`, which until Python 3.12 may swallow that its task is cancelled.
        options |= {"socket_timeout": None, "socket_connect_timeout": _CONNECT}
        self._client, self._records, self._ears = create_clients(url, options, 3)
        self._log = log = log.bind(process=process)
        self._process = process
        self._local = MemoryJournal(replace(bounds, seconds=min(bounds.seconds, _NEAR)))
        self._link = Link(self._client, _TRIP, patience, log)
        self.registry = RedisRegistry(self._link, _LIFE)
        self._committer = Committer(self._link, Wire(self._records, _TRIP), keep, _LIFE, log)
        self._copies = Copies(self._link, self._local, keep, log)
        self._peers = Peers(self._ears, self._link, self._committer, self.registry, self._copies, process, log)
        self._loading: dict[str, asyncio.Task[Copy]] = {}
        self._link.on_failed = self._committer.doubt
        self._link.on_despair = self._give_up

    def __repr__(self) -> str:
        return f"<RedisJournal {self._process}: {self._local!r}, {self._committer!r}, {self._copies!r}>"

    def __len__(self) -> int:
        """How many streams are in this process's memory."""
        return len(self._local)

    @property
    def size(self) -> int:
        """Bytes that they take."""
        return self._local.size

    @property
    def ready(self) -> bool:
        """Whether Redis is there, and takes what it is given."""
        return not self._link.away

    @asynccontextmanager
    async def serving(self, owner: Owner) -> AsyncIterator[None]:
        """While the block runs, send, listen and renew. At the end, whatever has been appended is sent first."""
        self._committer.on_lost = owner.stop
        self._peers.owner = owner
        await self._greet()
        loops = [self._committer.run, self._peers.listen, self._peers.beat]
        tasks = [asyncio.create_task(self._running(loop), name=f"journal {loop.__name__}") for loop in loops]
        try:
            yield
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST):
                    await self._committer.emptied()
        finally:
            await _ended([*tasks, *self._loading.values(), *self._copies.looking])
            await self._peers.leave()
            self._link.close()
            for client in (self._client, self._records, self._ears):
                await client.aclose()
            self._local.close()

    async def _running(self, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run *loop* for ever: the boundary, because a bug that met one stream must not end them all."""
        while True:
            try:
                await loop()
            except Exception as error:
                self._log.error("journal.crashed", loop=loop.__name__, error=type(error).__name__, at=_where(error))
                self._committer.doubt()
                await asyncio.sleep(_AGAIN)

    async def _greet(self) -> None:
        """Take our lease, and say what is wrong with Redis, if anything is. It may well come later than we do."""
        try:
            await self._peers.greet()
        except (RedisError, OSError) as error:
            self._link.failed(error)
            return
        with suppress(RedisError, OSError):  # hosted ones may not let us ask
            [found] = await self._link.asked(("CONFIG", "GET", "maxmemory-policy"))
            policy = dict(zip(found[::2], found[1::2], strict=True)).get(b"maxmemory-policy", b"").decode()
            if policy.startswith("allkeys"):
                self._log.warning("journal.evicting", policy=policy, advice="set maxmemory-policy to noeviction")

    def _give_up(self) -> None:
        self._committer.give_up()
        self._copies.give_up()

    async def create(self, stream_id: str, info: StreamInfo) -> RedisWriter:
        log = await self._local.create(stream_id, info)
        header = header_of(info, self._process)
        writer = RedisWriter(self._committer, log, header, self.registry.claim_of(stream_id))
        try:
            await self._committer.create(writer)
        except BaseException:
            self._local.drop(log)
            raise
        if info.label:
            try:
                writer.label = await self.registry.label(info.owner, info.label, stream_id)
            except JournalDown as error:
                writer.append([Failure.of(error)])
                raise
        return writer

    async def open(self, stream_id: str, after: int = 0) -> MemoryLog:
        log = await self._open(stream_id)
        if after > log.last and isinstance(log, Copy) and not log.ended:
            await self._copies.reach(log, after)
        return log

    async def _open(self, stream_id: str) -> MemoryLog:
        # Many readers may come back at once, to a process that has never heard of the stream.
        loading = self._loading.get(stream_id)
        if loading is None:
            log = self._local.get(stream_id)
            if log is not None:
                return log
            copy = self._copies.revived(stream_id)
            load = self._copies.load(stream_id) if copy is None else self._copies.caught_up(copy)
            loading = asyncio.create_task(load, name=f"load {stream_id}")
            self._loading[stream_id] = loading
            loading.add_done_callback(lambda task: self._loaded(stream_id, task))
        return await asyncio.shield(loading)

    def _loaded(self, stream_id: str, task: asyncio.Task[Copy]) -> None:
        del self._loading[stream_id]
        if not task.cancelled():
            task.exception()  # whoever asked may have left

    def stop(self, stream_id: str) -> None:
        self._peers.stop(stream_id)


async def _ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()  # once may not do: before Python 3.12, asyncio.wait_for can swallow it
        _, pending = await asyncio.wait(pending, timeout=0.05)


def _where(error: BaseException) -> str:
    """Return the innermost place that *error* came through: its message may hold what must not be logged."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
