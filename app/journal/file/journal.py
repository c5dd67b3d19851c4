"""The journal of one process on disk: SQLite.

Strategy: what is live is in this process's memory as if there were no disk, and readers know no other log. The disk
stands between a record's making and its being readable (`committer`), and has what ended (`keeper`), which is loaded
when a reader comes for it. Per delta only an entry in a batch is written that many streams share.

Calls go one way: the journal → keeper, registry → committer → store → database; writer → outbox.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from structlog.typing import FilteringBoundLogger

from app.errors import JournalDown, JournalLost, ProducerLost, StreamError, StreamTooLarge, UnknownStream
from app.events import Event, Failure
from app.journal import Bounds, JournalRefused, Listing, Orphan, Owner
from app.journal.availability import Availability
from app.journal.encoding import decode, pack
from app.journal.file import reading
from app.journal.file.address import Address
from app.journal.file.budgets import FileBudgets
from app.journal.file.committer import Committer
from app.journal.file.entries import Identity, Tail
from app.journal.file.keeper import Keeper
from app.journal.file.outbox import FileOutbox
from app.journal.file.recovery import Found, moved_of, owner_of
from app.journal.file.registry import FileRegistry
from app.journal.file.store import FAILURES, Store, reason
from app.journal.file.timing import USUAL, Timing
from app.journal.file.writer import FileWriter
from app.journal.loops import Loads, cancelled, running
from app.journal.memory import MemoryJournal, MemoryLog
from app.request import StreamInfo
from app.turns import turn

# How often a record is looked at while it waits for as long as it may.
_LOOKS = 10


class FileJournal:
    """The journal at *address*, of this process alone.

    The *bounds* hold for what is on disk, and again for what is in memory, where an ended log stays for a short time.
    While the disk is full or broken, live streams wait for *patience* seconds, and then end with JournalDown.
    """

    def __init__(
        self,
        address: Address,
        bounds: Bounds,
        patience: float,
        on_evict: Callable[[str, str], None],
        log: FilteringBoundLogger,
        timing: Timing = USUAL,
        clock: Callable[[], float] | None = None,
    ) -> None:
        outbox = FileOutbox()
        self._bounds = bounds
        self._patience = patience
        self._timing = timing
        self._log = log
        self._owner: Owner
        self._outbox = outbox
        self._clock = clock or steady_clock()
        self._availability = Availability(lambda error: {"reason": reason(error)}, log)
        self._memory = MemoryJournal(replace(bounds, seconds=min(bounds.seconds, timing.ended_nearby)))
        self._store = Store(address, bounds, timing, log)
        self.budgets = FileBudgets(outbox.wake, self._clock)
        self._committer = Committer(self._store, outbox, self.budgets, self._availability, self._stop, timing)
        self.registry = FileRegistry(self._memory.registry, self._committer, self._store, self._clock)
        self._keeper = Keeper(
            self._store, self._committer, self._memory, bounds.seconds, self._clock, on_evict, timing, log
        )
        self._loads = Loads[MemoryLog]()

    def __repr__(self) -> str:
        return f"<FileJournal {self._memory!r}, {self._committer!r}>"

    def __len__(self) -> int:
        """How many streams are in this process's memory."""
        return len(self._memory)

    @property
    def size(self) -> int:
        """Bytes that they take."""
        return self._memory.size

    @property
    def ready(self) -> bool:
        return not self._availability.away

    @asynccontextmanager
    async def serving(self, owner: Owner) -> AsyncIterator[None]:
        """While the block runs, write, move and delete. At its end, what has been appended is written first."""
        self._owner = owner
        try:
            found = await self._store.open(self._clock())
            self._begin(found)
            loops = [self._committer.run, self._keeper.run, self._watch_outages, self._watch_records]
            restart, crashed = self._timing.restart, self._outbox.wake.set
            tasks = [
                asyncio.create_task(running(loop, crashed, restart, self._log), name=f"journal {loop.__name__}")
                for loop in loops
            ]
            try:
                await self._hand_over(found.orphans)
                yield
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._timing.flush):
                        await self._committer.flushed()
            finally:
                await cancelled([*tasks, *self._loads.tasks])
                self._memory.close()
        finally:
            await self._store.close()

    def _begin(self, found: Found) -> None:
        """Go on from what the last process left."""
        self.budgets.load(found.accounts)
        self._committer.last = self._store.database.last
        self._keeper.drop(found.gone)
        for stream_id, last in found.ended:
            self._log.warning("stream.producer_lost", stream_id=stream_id, records=last)
        for stream_id in found.lost:
            self._log.error("journal.lost", stream_id=stream_id)
        counts = {"ended": len(found.ended), "orphans": len(found.orphans), "lost": len(found.lost)}
        self._log.info("journal.opened", streams=found.streams, **counts)

    async def _hand_over(self, orphans: Mapping[str, Identity]) -> None:
        """Have the owner go on with the streams that the last process left live.

        Raises JournalRefused, before the owner has begun with any.
        """
        try:
            loaded = [await self._load_orphan(stream_id, identity) for stream_id, identity in orphans.items()]
        except (JournalDown, *FAILURES):
            raise JournalRefused("what it holds cannot be read or written") from None
        for orphan in loaded:
            if orphan is not None:
                await self._owner.adopt(orphan)

    async def _load_orphan(self, stream_id: str, identity: Identity) -> Orphan | None:
        """Return a stream that can be gone on with; None for one that cannot be loaded, which has an end now.

        Raises JournalDown or one of `FAILURES`.
        """
        found = await self._store.read(reading.live, stream_id)
        assert found is not None  # noqa: S101 - it was found so just now
        try:
            log = await self._read(found)
        except JournalDown:
            raise  # a process that can read it may still go on with it
        except StreamError as error:
            self._log.warning("stream.producer_lost", stream_id=stream_id, records=found.last, reason=error.code)
            ended = Tail(identity, found.last, pack([Failure.of(ProducerLost())]))
            move = moved_of(stream_id, ended, "error", self._clock(), self._bounds.seconds)
            self._keeper.drop(await self._store.write(self._store.database.move, move))
            return None
        writer = FileWriter(self._outbox, log, identity)
        writer.acked = writer.moved = log.last
        writer.stored = identity
        self._committer.adopt(writer)
        return Orphan(stream_id, log, writer, identity.note or "")

    async def _watch_outages(self) -> None:
        while True:
            await self._availability.outage(self._patience)
            await self._committer.give_up()

    async def _watch_records(self) -> None:
        """End the streams of which a record has waited too long, although the disk has not refused for as long."""
        while True:
            await asyncio.sleep(min(self._patience / _LOOKS, self._timing.slow / 2))
            await self._committer.check(self._patience)

    def _stop(self, stream_id: str, error: StreamError) -> None:
        self._owner.stop(stream_id, error)

    async def create(self, stream_id: str, info: StreamInfo) -> FileWriter:
        log = await self._memory.create(stream_id, info)
        writer = FileWriter(self._outbox, log, self.registry.identity_of(stream_id, info))
        try:
            await self._committer.create(writer)
        except BaseException:
            self._memory.drop(log)
            raise
        self.registry.begun(stream_id)
        return writer

    async def open(self, stream_id: str, after: int = 0) -> MemoryLog:
        log = await self._open(stream_id)
        if after > log.last and log.ended and _is_producer_lost(log):
            raise JournalLost(log.info)  # the process that died had sent more than it has left
        return log

    async def _open(self, stream_id: str) -> MemoryLog:
        if stream_id not in self._loads:
            writer = self._committer.writer(stream_id)
            log = self._memory.get(stream_id) if writer is None or writer.removed else writer.log
            if log is not None:
                return log
        return await self._loads.load(stream_id, lambda: self._load(stream_id))

    async def _load(self, stream_id: str) -> MemoryLog:
        """Return a log that is on disk. Raises UnknownStream, JournalDown, JournalLost or Overloaded."""
        found = await self._store.read(reading.find, stream_id, self._clock())
        if found is None:
            raise UnknownStream
        if found.state == "lost":
            raise JournalLost(found.info)
        return await self._read(found)

    async def _read(self, found: reading.Kept) -> MemoryLog:
        log = MemoryLog(self._memory, found.id, found.info)
        self._memory.adopt(log)
        try:
            while log.last < found.last:
                rows = await self._store.read(reading.rows, found, log.last)
                if not rows:
                    raise UnknownStream  # it was dropped just now
                for first, data in rows:
                    events = decode(data)
                    if first != log.last + 1:
                        raise JournalLost(found.info)
                    await turn(len(events))
                    if not log.kept:
                        raise UnknownStream  # it was removed just now
                    log.publish(events, _reserve(log, events))
        except ValueError:
            self._memory.drop(log)
            raise JournalLost(found.info) from None
        except BaseException:
            self._memory.drop(log)
            raise
        return log

    async def live(self, stream_id: str) -> StreamInfo | None:
        writer = self._committer.writer(stream_id)
        return None if writer is None or writer.removed or writer.log.ended else writer.log.info

    async def streams_of(self, owner: str, limit: int, before: int | None = None, *, live: bool = False) -> Listing:
        nearby = self._memory.holder(owner).listing(limit, before, live=live)
        # What is being loaded looks as if it were live.
        nearby = nearby._replace(streams=[each for each in nearby.streams if each.stream_id not in self._loads])
        if live:
            return nearby
        kept = await self._store.read(reading.listed, owner_of(owner), limit + 1, before, self._clock())
        found = {each.stream_id: each for each in [*kept, *nearby.streams]}
        newest = sorted(found.values(), key=lambda each: each.info.created, reverse=True)
        more = len(newest) > limit or nearby.before is not None
        return Listing(newest[:limit], newest[:limit][-1].info.created if more else None)

    async def remove(self, stream_id: str) -> None:
        writer = self._committer.writer(stream_id)
        if writer is not None:
            writer.removed = True
            self._committer.release(writer)
        try:
            await self._store.write(self._store.database.remove, stream_id)
        except FAILURES as error:
            self._availability.failed(error)
            self._outbox.wake.set()
            raise JournalDown from None
        await self._memory.remove(stream_id)  # now, because a reader may have loaded it meanwhile

    def stop(self, stream_id: str) -> None:
        """Do nothing: there is no other process."""

    def drain(self) -> None:
        """Do nothing: there is no other process."""


def steady_clock() -> Callable[[], float]:
    """Return a clock in seconds since the epoch that does not jump when the system's is set."""
    start = time.time() - time.monotonic()
    return lambda: start + time.monotonic()


def _reserve(log: MemoryLog, events: Sequence[Event]) -> int:
    """Count the memory of *events* that were read: they are unpacked, and so may take more than the stream may."""
    try:
        return log.reserve(events)
    except StreamTooLarge:
        return log.reserve(events, unbounded=True)


def _is_producer_lost(log: MemoryLog) -> bool:
    [end] = log.records(log.last - 1, log.last)
    return isinstance(end, Failure) and end.code == ProducerLost.code
