"""The journal of one process: a list per stream, the older part of it packed.

Strategy: the log *is* the buffer. A subscriber is a cursor, an integer into a list, so a slow one is merely behind and
a gone one costs nothing. Readers that are at the end have each batch handed to them by the append that brought it, or
wait on one future each, and an append wakes them all once, however many records it brought.

What is kept is bounded four ways: bytes per stream, bytes of all, number of ended streams, and time after the end. The
streams that ended first go first; a live one never goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.errors import Overloaded, StreamTooLarge, UnknownStream
from app.journal.memory_log import MemoryLog
from app.journal.registry import MemoryRegistry
from app.request import StreamInfo

# What has to be free for one more stream to be taken: a usual answer.
_ROOM = 64 * 1024


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be kept: *stream* and *total* in bytes of memory, *ended* in streams, *seconds* after a stream's end."""

    stream: int
    total: int
    ended: int
    seconds: float


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
        self.registry = MemoryRegistry()
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
        if info.label:
            self.registry.label(info.owner, info.label, stream_id)
        return log

    async def open(self, stream_id: str, after: int = 0) -> MemoryLog:
        log = self._logs.get(stream_id)
        if log is None:
            raise UnknownStream
        return log

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
            self.registry.forget(log.info.owner, log.info.label, log.id)
            log.kept = False
            if not log.pinned:
                self.let_go(log)

    def grow(self, log: MemoryLog, size: int, *, unbounded: bool = False) -> None:
        """Account for *size* more bytes in *log*. Raises StreamTooLarge or Overloaded unless *unbounded*."""
        if not unbounded and log.size + size > self._bounds.stream:
            raise StreamTooLarge
        if self.size + size > self._bounds.total and not self._make_room(size) and not unbounded:
            raise Overloaded(retry_after=1)
        log.size += size
        self.size += size

    def shrink(self, log: MemoryLog, size: int) -> None:
        """Account for *size* bytes fewer in *log*."""
        log.size -= size
        self.size -= size

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
        self.registry.forget(log.info.owner, log.info.label, stream_id)
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
