"""The journal of one process: a list per stream.

Strategy: the log *is* the buffer. A subscriber is a cursor, an integer into a list, so a slow one is merely behind and
a gone one costs nothing. Readers that are at the end wait on one future each, and an append wakes them all once,
however many records it brought.

What is kept is bounded four ways: bytes per stream, bytes of all, number of ended streams, and time after the end. The
streams that ended first go first; a live one never goes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from app.errors import KeyReused, Overloaded, StreamTooLarge, UnknownStream
from app.model import TERMINAL, Batch, Delta, Event, StreamInfo

# Bounds of one batch: about uvicorn's high-water mark, so that a replay goes out in few sends, yet no send is huge.
_BATCH_RECORDS = 1024
_BATCH_SIZE = 64 * 1024
# What has to be free for one more stream to be taken: a usual answer.
_ROOM = 64 * 1024
# What a record takes besides what is in it: its slot in the list; the tuple, and the garbage collector's header of it.
_SLOT = 8
_RECORD_OVERHEAD = _SLOT + 72

# A Delta, of which nearly every log is made, is kept as its bare text: half the memory.
_Kept = Event | str


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be kept: *stream* and *total* in bytes of memory, *ended* in streams, *seconds* after a stream's end."""

    stream: int
    total: int
    ended: int
    seconds: float


class Accounts(Protocol):
    """Who keeps the accounts of logs."""

    def grow(self, log: MemoryLog, size: int, *, unbounded: bool) -> None:
        """Account for *size* more bytes in *log*. Raises StreamTooLarge or Overloaded unless *unbounded*."""
        ...

    def end(self, log: MemoryLog) -> None:
        """Note that *log* has its terminal record."""
        ...

    def hold(self, log: MemoryLog) -> None:
        """Account for an evicted log that is read once more."""
        ...

    def let_go(self, log: MemoryLog) -> None:
        """Account for a log that nobody holds any more."""
        ...


class MemoryLog:
    """One stream's log: its writer, and what its readers read."""

    __slots__ = (
        "_journal",
        "_kept",
        "_readers",
        "_waiters",
        "ended",
        "ended_at",
        "id",
        "info",
        "kept",
        "size",
    )

    def __init__(self, journal: Accounts, stream_id: str, info: StreamInfo) -> None:
        self.id = stream_id
        self.info = info
        self.size = 0
        self.kept = True
        self.ended = False
        self.ended_at = 0.0
        self._journal = journal
        self._kept: list[_Kept] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._readers = 0

    def __repr__(self) -> str:
        waiting = len(self._waiters)
        return f"<MemoryLog {self.last} records, {self.size} bytes, {self._readers} reading, {waiting} waiting>"

    @property
    def last(self) -> int:
        return len(self._kept)

    @property
    def reading(self) -> int:
        """How many cursors there are."""
        return self._readers

    @property
    def pinned(self) -> bool:
        """Whether it is in memory: kept, or read by someone who began before it was evicted."""
        return self.kept or self._readers > 0

    def append(self, events: Sequence[Event]) -> None:
        if self.ended:
            raise RuntimeError("a stream's log ends with its terminal record")
        self.reserve(events)
        self.publish(events)

    def reserve(self, events: Sequence[Event]) -> None:
        """Account for *events*, which `publish` will make readable. Raises StreamTooLarge or Overloaded."""
        size = sum([_size(event.text if type(event) is Delta else event) for event in events])
        self._journal.grow(self, size, unbounded=isinstance(events[-1], TERMINAL))

    def publish(self, events: Sequence[Event]) -> None:
        """Make *events* readable."""
        self._kept += [event.text if type(event) is Delta else event for event in events]
        if isinstance(events[-1], TERMINAL):
            self.ended = True
            self._journal.end(self)
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def extend(self, events: Sequence[Event]) -> None:
        """Append *events* that are bounded where they were made."""
        size = sum([_size(event.text if type(event) is Delta else event) for event in events])
        self._journal.grow(self, size, unbounded=True)
        self.publish(events)

    def records(self, after: int, last: int) -> list[Event]:
        """Return the records after number *after*, up to *last*."""
        return [Delta(it) if isinstance(it, str) else it for it in self._kept[after:last]]

    async def drain(self) -> None:
        """Return at once: memory is never behind."""

    async def read(self, after: int = 0) -> AsyncGenerator[Batch, None]:
        kept = self._kept
        create_future = asyncio.get_running_loop().create_future
        self.entered()
        try:
            while True:
                if after < len(kept):
                    events = self.records(after, self._batch_end(after))
                    yield Batch(after + 1, events)
                    after += len(events)
                elif self.ended:
                    return
                else:
                    waiter = create_future()
                    self._waiters.append(waiter)
                    await waiter
        except asyncio.CancelledError:
            # Else a silent stream would collect one dead future per reader that came and went.
            self._waiters = [waiter for waiter in self._waiters if not waiter.cancelled()]
            raise
        finally:
            self.left()

    def entered(self) -> None:
        """Count a cursor in."""
        if not self.pinned:
            self._journal.hold(self)  # whoever opened it before it was evicted begins to read only now
        self._readers += 1

    def left(self) -> None:
        """Count a cursor out."""
        self._readers -= 1
        if not self.pinned:
            self._journal.let_go(self)

    def _batch_end(self, start: int) -> int:
        kept = self._kept
        if len(kept) - start == 1:  # a reader that keeps up
            return start + 1
        size = 0
        for end, it in enumerate(islice(kept, start, start + _BATCH_RECORDS), start + 1):
            size += _size(it)
            if size >= _BATCH_SIZE:
                return end
        return min(len(kept), start + _BATCH_RECORDS)


class MemoryJournal:
    """All streams of this process.

    *on_evict* is told the id of each stream that goes, and why: `time`, `count` or `memory`.
    """

    def __init__(self, bounds: Bounds, on_evict: Callable[[str, str], None] | None = None) -> None:
        self._bounds = bounds
        self._on_evict = on_evict
        self._logs: dict[str, MemoryLog] = {}
        self._ended: dict[str, MemoryLog] = {}  # in the order in which they ended
        self._claims: dict[tuple[str, str], tuple[bytes, str]] = {}  # by owner and name: fingerprint and stream
        self._claim_of: dict[str, tuple[str, str]] = {}
        self._slots: dict[str, set[str]] = {}  # live streams, by owner
        self._sweep: asyncio.TimerHandle | None = None
        self.ready = True
        self.size = 0

    def __repr__(self) -> str:
        return f"<MemoryJournal {len(self._logs)} streams, {len(self._ended)} ended, {self.size} bytes>"

    def __len__(self) -> int:
        """How many streams are kept, live ones included."""
        return len(self._logs)

    async def create(self, stream_id: str, info: StreamInfo) -> MemoryLog:
        # Refused now, a stream costs nothing; once upstream has answered, it was paid for.
        if not self._make_room(min(_ROOM, self._bounds.total // 8)):
            raise Overloaded(retry_after=1)
        log = self._logs[stream_id] = MemoryLog(self, stream_id, info)
        return log

    async def open(self, stream_id: str, after: int = 0) -> MemoryLog:
        log = self._logs.get(stream_id)
        if log is None:
            raise UnknownStream
        return log

    async def claim(self, owner: str, name: str, fingerprint: bytes, stream_id: str) -> str | None:
        known = self._claims.get((owner, name))
        if known is None:
            self._claims[owner, name] = fingerprint, stream_id
            self._claim_of[stream_id] = owner, name
            return None
        if known[0] != fingerprint:
            raise KeyReused
        return known[1]

    async def release(self, stream_id: str) -> None:
        self._release(stream_id)

    def _release(self, stream_id: str) -> None:
        key = self._claim_of.pop(stream_id, None)
        if key is not None:
            del self._claims[key]

    async def occupy(self, owner: str, stream_id: str, limit: int) -> bool:
        slots = self._slots.get(owner, set())
        if len(slots) >= limit:
            return False
        self._slots.setdefault(owner, slots).add(stream_id)
        return True

    async def vacate(self, owner: str, stream_id: str) -> None:
        slots = self._slots.get(owner, set())
        slots.discard(stream_id)
        if not slots:
            self._slots.pop(owner, None)  # there is no end to names

    def stop(self, stream_id: str) -> None:
        """Do nothing: there is no other process."""

    def get(self, stream_id: str) -> MemoryLog | None:
        """Return a stream's log, or None."""
        return self._logs.get(stream_id)

    def adopt(self, log: MemoryLog) -> None:
        """Keep a log that was not created here. Raises Overloaded if there is no room for it."""
        if not self._make_room(min(_ROOM, self._bounds.total // 8)):
            raise Overloaded(retry_after=1)
        self._logs[log.id] = log

    def readopt(self, log: MemoryLog) -> None:
        """Keep a live log again that was dropped."""
        if not log.kept:
            if not log.pinned:
                self.hold(log)
            log.kept = True
            self._logs[log.id] = log

    def drop(self, log: MemoryLog) -> None:
        """Keep a log no longer."""
        if log.kept:
            del self._logs[log.id]
            self._ended.pop(log.id, None)
            log.kept = False
            if not log.pinned:
                self.let_go(log)

    def grow(self, log: MemoryLog, size: int, *, unbounded: bool) -> None:
        """Account for *size* more bytes in *log*. Raises StreamTooLarge or Overloaded unless *unbounded*."""
        if not unbounded and log.size + size > self._bounds.stream:
            raise StreamTooLarge
        if self.size + size > self._bounds.total and not self._make_room(size) and not unbounded:
            raise Overloaded(retry_after=1)
        log.size += size
        self.size += size

    def end(self, log: MemoryLog) -> None:
        """Note that *log* has its terminal record: from now on it is kept only within bounds."""
        if not log.kept:
            return
        log.ended_at = asyncio.get_running_loop().time()
        self._ended[log.id] = log
        while len(self._ended) > self._bounds.ended:
            self._evict("count")
        self._arm()

    def hold(self, log: MemoryLog) -> None:
        """Account for an evicted log that is read once more."""
        self.size += log.size

    def let_go(self, log: MemoryLog) -> None:
        """Account for a log that nobody holds any more."""
        self.size -= log.size

    @asynccontextmanager
    async def serving(self, owner: object) -> AsyncIterator[None]:
        """Forget everything at the end of the block. (There is nobody to serve but this process.)"""
        try:
            yield
        finally:
            self.close()

    def close(self) -> None:
        """Forget everything, without a word."""
        if self._sweep is not None:
            self._sweep.cancel()
        self._logs.clear()
        self._ended.clear()

    def _make_room(self, size: int) -> bool:
        """Evict what ended first until *size* more bytes fit; return whether they do."""
        while self._ended and self.size + size > self._bounds.total:
            self._evict("memory")
        return self.size + size <= self._bounds.total

    def _evict(self, reason: str) -> None:
        stream_id, log = next(iter(self._ended.items()))
        del self._ended[stream_id], self._logs[stream_id]
        self._release(stream_id)
        log.kept = False
        if not log.pinned:
            self.let_go(log)
        if self._on_evict is not None:
            self._on_evict(stream_id, reason)

    def _expire(self) -> None:
        self._sweep = None
        now = asyncio.get_running_loop().time()
        while self._ended and next(iter(self._ended.values())).ended_at + self._bounds.seconds <= now:
            self._evict("time")
        self._arm()

    def _arm(self) -> None:
        if self._sweep is None and self._ended:
            oldest = next(iter(self._ended.values()))
            self._sweep = asyncio.get_running_loop().call_at(oldest.ended_at + self._bounds.seconds, self._expire)


def _size(it: _Kept) -> int:
    """What a record takes in memory, in bytes, near enough to bound it."""
    if isinstance(it, str):
        return _SLOT + sys.getsizeof(it)
    return _RECORD_OVERHEAD + sum(map(sys.getsizeof, it))
