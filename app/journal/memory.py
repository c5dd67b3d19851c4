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
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from app.errors import Overloaded, StreamTooLarge, UnknownStream
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


class MemoryLog:
    """One stream's log: its writer, and what its readers read."""

    __slots__ = ("_journal", "_kept", "_readers", "_waiters", "ended", "ended_at", "id", "info", "kept", "size")

    def __init__(self, journal: MemoryJournal, stream_id: str, info: StreamInfo) -> None:
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
    def pinned(self) -> bool:
        """Whether it is in memory: kept, or read by someone who began before it was evicted."""
        return self.kept or self._readers > 0

    def append(self, events: Sequence[Event]) -> None:
        if self.ended:
            raise RuntimeError("a stream's log ends with its terminal record")
        terminal = isinstance(events[-1], TERMINAL)
        kept: list[_Kept] = [event.text if type(event) is Delta else event for event in events]
        self._journal.grow(self, sum(map(_size, kept)), unbounded=terminal)
        self._kept += kept
        if terminal:
            self.ended = True
            self._journal.end(self)
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def drain(self) -> None:
        """Return at once: memory is never behind."""

    async def read(self, after: int = 0) -> AsyncGenerator[Batch, None]:
        kept = self._kept
        create_future = asyncio.get_running_loop().create_future
        self._readers += 1
        try:
            while True:
                if after < len(kept):
                    events = [Delta(it) if isinstance(it, str) else it for it in kept[after : self._batch_end(after)]]
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
        self._sweep: asyncio.TimerHandle | None = None
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

    async def open(self, stream_id: str) -> MemoryLog:
        log = self._logs.get(stream_id)
        if log is None:
            raise UnknownStream
        return log

    def grow(self, log: MemoryLog, size: int, *, unbounded: bool) -> None:
        """Account for *size* more bytes in *log*. Raises StreamTooLarge or Overloaded unless *unbounded*."""
        if not unbounded:
            if log.size + size > self._bounds.stream:
                raise StreamTooLarge
            if self.size + size > self._bounds.total and not self._make_room(size):
                raise Overloaded(retry_after=1)
        log.size += size
        self.size += size

    def end(self, log: MemoryLog) -> None:
        """Note that *log* has its terminal record: from now on it is kept only within bounds."""
        log.ended_at = asyncio.get_running_loop().time()
        self._ended[log.id] = log
        while len(self._ended) > self._bounds.ended:
            self._evict("count")
        self._arm()

    def let_go(self, log: MemoryLog) -> None:
        """Account for a log that nobody holds any more."""
        self.size -= log.size

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
