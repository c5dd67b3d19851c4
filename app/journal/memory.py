"""The journal of one process: a list per stream.

Strategy: the log *is* the buffer. A subscriber is a cursor, an integer into a list, so a slow one is merely behind and
a gone one costs nothing. Readers that are at the end wait on one future each, and an append wakes them all once,
however many records it brought.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from itertools import islice

from app.errors import StreamTooLarge, UnknownStream
from app.model import TERMINAL, TEXT, Batch, Event

# Bounds of one batch: about uvicorn's high-water mark, so that a replay goes out in few sends, yet no send is huge.
_BATCH_RECORDS = 1024
_BATCH_SIZE = 64 * 1024
# What a record takes besides its text: the tuple, its slot in the list, the garbage collector's header.
_RECORD_OVERHEAD = 80


class MemoryWriter:
    """One stream's log and its writer."""

    __slots__ = ("_events", "_max_size", "_size", "_waiters")

    def __init__(self, max_size: int) -> None:
        self._events: list[Event] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._size = 0
        self._max_size = max_size

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self._events)} records, {self._size} bytes, {len(self._waiters)} waiting>"

    def append(self, events: Sequence[Event]) -> None:
        log = self._events
        if log and isinstance(log[-1], TERMINAL):
            raise RuntimeError("a stream's log ends with its terminal record")
        size = self._size + sum(map(_size, events))
        if size > self._max_size and not isinstance(events[-1], TERMINAL):
            raise StreamTooLarge
        self._size = size
        log += events
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def drain(self) -> None:
        """Return at once: memory is never behind."""

    async def cursor(self, after: int) -> AsyncGenerator[Batch, None]:
        """Yield the log's records after number *after*, in batches, up to and including the terminal one."""
        log = self._events
        while True:
            if after < len(log):
                events = log[after : self._batch_end(after)]
                yield Batch(after + 1, events)
                if isinstance(events[-1], TERMINAL):
                    return
                after += len(events)
            elif log and isinstance(log[-1], TERMINAL):
                return
            else:
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.append(waiter)
                try:
                    await waiter
                except asyncio.CancelledError:
                    # Else a silent stream would collect one dead future per reader that came and went.
                    with suppress(ValueError):
                        self._waiters.remove(waiter)
                    raise

    def _batch_end(self, start: int) -> int:
        log = self._events
        if len(log) - start == 1:  # a reader that keeps up
            return start + 1
        size = 0
        for end, event in enumerate(islice(log, start, start + _BATCH_RECORDS), start + 1):
            size += _size(event)
            if size >= _BATCH_SIZE:
                return end
        return min(len(log), start + _BATCH_RECORDS)


class MemoryJournal:
    """All streams of this process. *max_stream_size* bounds one stream's log, in bytes of memory."""

    def __init__(self, max_stream_size: int) -> None:
        self._logs: dict[str, MemoryWriter] = {}
        self._max_stream_size = max_stream_size

    async def create(self, stream_id: str) -> MemoryWriter:
        log = self._logs[stream_id] = MemoryWriter(self._max_stream_size)
        return log

    async def read(self, stream_id: str, after: int = 0) -> AsyncGenerator[Batch, None]:
        log = self._logs.get(stream_id)
        if log is None:
            raise UnknownStream
        return log.cursor(after)

    async def discard(self, stream_id: str) -> None:
        self._logs.pop(stream_id, None)

    def __len__(self) -> int:
        return len(self._logs)


def _size(event: Event) -> int:
    """What a record takes in memory, in bytes, near enough to bound it."""
    if isinstance(event, TEXT):
        return _RECORD_OVERHEAD + sys.getsizeof(event.text)
    return _RECORD_OVERHEAD + sum(sys.getsizeof(value) for value in event)
