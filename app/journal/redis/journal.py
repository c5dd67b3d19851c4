"""The journal of many processes: Redis Streams, or Valkey's.

Strategy: what a process produces, and what it reads of other processes, is in its memory as if there were no Redis, and
readers know no other log. Redis stands between a record's making and its being readable (`committer`), carries it to
the processes that read the stream elsewhere (`peers`), and has what all have to agree on (`registry`). No work is done
per reader, and per delta only an entry in a pipeline that many streams share.

Calls go one way: the journal → peers → replicas → adoption → committer → registry, writer → outbox, connection →
client. What comes up from Redis unasked is told to the owner of the streams, by `_presence`, `_stop`, `_leave` and
`_adopt` below and nowhere else.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from redis.exceptions import RedisError
from structlog.typing import FilteringBoundLogger

from app.errors import JournalDown, StreamError
from app.journal import Bounds, Listing, Orphan, Owner
from app.journal.loops import Loads, cancelled, running
from app.journal.memory import MemoryJournal, MemoryLog
from app.journal.redis import keys
from app.journal.redis.adoption import Adoption
from app.journal.redis.budgets import RedisBudgets
from app.journal.redis.committer import Committer
from app.journal.redis.connection import RecordConnection, RedisConnection, connector
from app.journal.redis.entries import header_of
from app.journal.redis.kept import Kept
from app.journal.redis.listing import Listings
from app.journal.redis.outbox import RedisOutbox
from app.journal.redis.peers import Peers
from app.journal.redis.registry import RedisRegistry
from app.journal.redis.replicas import Replica, Replicas
from app.journal.redis.timing import USUAL, Timing
from app.journal.redis.writer import RedisWriter
from app.request import StreamInfo

# How often a record is looked at while it waits for as long as it may.
_LOOKS = 10


class RedisJournal:
    """The journal of this process, shared with all others at *url*.

    The *bounds* on memory hold for this process, replicas included. An ended log stays in Redis for `bounds.seconds`,
    unless it has to go for others: see `kept`. While Redis is away, live streams wait for *patience* seconds, and then
    end with JournalDown.
    """

    def __init__(
        self,
        url: str,
        bounds: Bounds,
        patience: float,
        on_evict: Callable[[str, str], None],
        log: FilteringBoundLogger,
        timing: Timing = USUAL,
    ) -> None:
        process = secrets.token_hex(8)
        log = log.bind(process=process)
        keep = max(1, round(bounds.seconds))
        connect = connector(url, timing)
        outbox = RedisOutbox()
        self._process = process
        self._patience = patience
        self._timing = timing
        self._log = log
        self._owner: Owner
        self._outbox = outbox
        self._memory = MemoryJournal(replace(bounds, seconds=min(bounds.seconds, timing.ended_nearby)))
        self._connection = RedisConnection(connect(None), url, outbox.wake, timing, log)
        self._records = RecordConnection(connect, timing)
        self._subscriber = connect(None)
        self.registry = RedisRegistry(self._connection, timing)
        self.budgets = RedisBudgets(self._connection, timing, self._is_undecided)
        self._listings = Listings(self._connection, self._known)
        self._kept = Kept(self._connection, bounds.owner, on_evict, timing, log)
        self._committer = Committer(
            self._connection,
            self._records,
            outbox,
            self.registry,
            self._kept,
            self._stop,
            self._leave,
            keep,
            timing,
            log,
        )
        adoption = Adoption(
            self._connection, self._committer, outbox, self.registry, self._adopt, self._presence, process, timing
        )
        self._replicas = Replicas(
            self._connection, self._memory, outbox, adoption, self._presence, self._stop, process, keep, log
        )
        self._peers = Peers(
            self._connection,
            self._subscriber,
            outbox,
            self._committer,
            self._replicas,
            self.registry,
            self.budgets,
            self._presence,
            self._stop,
            self._open,
            process,
            timing,
            log,
        )
        self._loads = Loads[Replica]()

    def __repr__(self) -> str:
        return f"<RedisJournal {self._process}: {self._memory!r}, {self._committer!r}, {self._replicas!r}>"

    def __len__(self) -> int:
        """How many streams are in this process's memory."""
        return len(self._memory)

    @property
    def size(self) -> int:
        """Bytes that they take."""
        return self._memory.size

    @property
    def ready(self) -> bool:
        return not self._connection.away

    @asynccontextmanager
    async def serving(self, owner: Owner) -> AsyncIterator[None]:
        """While the block runs, send, listen and renew. At its end, what has been appended is sent first."""
        self._owner = owner
        await self._begin()
        loops = [self._committer.run, self._peers.listen, self._peers.renew_lease]
        loops += [self._watch_outages, self._watch_records, self._kept.trim]
        restart, crashed = self._timing.restart, self._committer.require_reconcile
        tasks = [
            asyncio.create_task(running(loop, crashed, restart, self._log), name=f"{loop.__name__} {self._process}")
            for loop in loops
        ]
        try:
            yield
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timing.flush):
                    await self._committer.flushed()
        finally:
            await cancelled([*tasks, *self._loads.tasks, *self._replicas.checks])
            with suppress(RedisError, OSError):
                await self.budgets.store()
            await self._peers.release_lease()
            for each in (self._connection, self._records, self._subscriber):
                await each.aclose()
            self._memory.close()

    async def _begin(self) -> None:
        """Take the lease, and log what is wrong with Redis, if anything is. Redis may well come later."""
        try:
            await self._peers.acquire_lease()
        except (RedisError, OSError) as error:
            self._connection.failed(error)
            return
        with suppress(RedisError, OSError):  # a hosted Redis may not let its clients ask
            [found] = await self._connection.execute(("CONFIG", "GET", "maxmemory-policy"))
            policy = dict(zip(found[::2], found[1::2], strict=True)).get(b"maxmemory-policy", b"").decode()
            if policy.startswith("allkeys"):
                self._log.warning("journal.evicting", policy=policy, advice="set maxmemory-policy to noeviction")

    async def _watch_outages(self) -> None:
        while True:
            # If the outage lasts, this comes again: a pipeline may have come through at the last moment, and may have
            # left something that waits.
            await self._connection.outage(self._patience)
            self._on_outage_timeout()

    async def _watch_records(self) -> None:
        """End the streams of which a record has waited too long, although Redis is not away for as long on end.

        When Redis is nearly full, it takes what is small, such as a lease, and refuses what is large.
        """
        while True:
            await asyncio.sleep(self._patience / _LOOKS)
            self._committer.give_up_waiting(asyncio.get_running_loop().time() - self._patience)

    def _on_outage_timeout(self) -> None:
        """End all that has waited for Redis too long."""
        self._committer.give_up()
        self._replicas.give_up()

    def _presence(self, stream_id: str, change: int) -> None:
        self._owner.presence(stream_id, change)

    def _stop(self, stream_id: str, error: StreamError | None = None) -> None:
        self._owner.stop(stream_id, error)

    async def _adopt(self, orphan: Orphan) -> None:
        await self._owner.adopt(orphan)

    def _leave(self, stream_id: str) -> None:
        """Have no more to do with the making of a stream: another process goes on with it."""
        self.registry.disown(stream_id)
        self.budgets.disown(stream_id)
        if not self._owner.leave(stream_id):  # its answer is by now one that no other process can read
            self._owner.stop(stream_id, JournalDown())
        log = self._memory.get(stream_id)
        if isinstance(log, Replica) and not log.ended:
            self._replicas.release(log)

    def _is_undecided(self, stream_id: str) -> bool:
        """Whether another process may adopt the stream: its end is not in Redis."""
        writer = self._committer.writer(stream_id)
        return writer is not None and writer.noted is not None

    async def create(self, stream_id: str, info: StreamInfo) -> RedisWriter:
        header = header_of(info, self._process)
        log = self._replicas.create(stream_id, header)
        writer = RedisWriter(self._outbox, log, header, self.registry.claim_of(stream_id))
        try:
            await self._committer.create(writer)
        except BaseException:
            if not log.ended:
                self._memory.drop(log)
            raise
        return writer

    async def open(self, stream_id: str, after: int = 0) -> MemoryLog:
        log = await self._open(stream_id)
        if after > log.last and isinstance(log, Replica) and not log.ours and not log.ended:
            await self._replicas.reach(log, after)
        return log

    async def _open(self, stream_id: str) -> MemoryLog:
        log = self._known(stream_id)
        if log is not None:
            return log
        return await self._loads.load(stream_id, lambda: self._load(stream_id))

    async def _load(self, stream_id: str) -> Replica:
        replica = self._replicas.revived(stream_id)
        if replica is None:
            return await self._replicas.load(stream_id)
        return await self._replicas.caught_up(replica)

    def _known(self, stream_id: str) -> MemoryLog | None:
        """Return the log of a stream that is in memory; None if it is being loaded, and so lacks its end yet."""
        return None if stream_id in self._loads else self._memory.get(stream_id)

    async def live(self, stream_id: str) -> StreamInfo | None:
        known = self._known(stream_id)
        if known is None:
            return await self._replicas.live(stream_id)
        return None if known.ended else known.info

    async def streams_of(self, owner: str, limit: int, before: int | None = None, *, live: bool = False) -> Listing:
        return await self._listings.streams_of(owner, limit, before, live=live)

    async def remove(self, stream_id: str) -> None:
        log = self._memory.get(stream_id)
        await self._connection.request(("DEL", keys.log(stream_id), keys.note(stream_id)))
        self._committer.removed(stream_id)
        await self.registry.release(stream_id)
        await self._memory.remove(stream_id)
        if log is not None:
            self._kept.removed(log.info.owner, stream_id)

    def stop(self, stream_id: str) -> None:
        self._replicas.stop(stream_id)

    def drain(self) -> None:
        self._replicas.drain()
