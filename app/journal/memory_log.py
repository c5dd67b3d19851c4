"""One stream's log in memory: a list. Its journal keeps the accounts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import orjson

from app.journal import Sink
from app.model import TERMINAL, Batch, Delta, Event, Logprobs, StreamInfo, make_batch

if TYPE_CHECKING:
    from app.journal.memory import MemoryJournal

# Bounds of one batch: about uvicorn's high-water mark, so that a replay goes out in few sends, yet no send is huge.
_BATCH_RECORDS = 1024
_BATCH_SIZE = 64 * 1024
# What a record takes besides what is in it: its slot in the list; the tuple, and the garbage collector's header of it.
_SLOT = 8
_RECORD_OVERHEAD = _SLOT + 72
# Bytes that small objects take for each byte of their JSON.
_JSON = 4

# A Delta, of which nearly every log is made, is kept as its bare text: half the memory.
_Kept = Event | str


class MemoryLog:
    """One stream's log: its writer, and what its readers read."""

    full: ClassVar[bool] = False  # memory is never behind

    __slots__ = (
        "_journal",
        "_kept",
        "_readers",
        "_sinks",
        "_waiters",
        "ended",
        "ended_at",
        "id",
        "info",
        "kept",
        "size",
    )

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
        self._sinks: list[Sink] = []
        self._readers = 0

    def __repr__(self) -> str:
        waiting = len(self._waiters) + len(self._sinks)
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
        if len(events) == 1 and type(event := events[0]) is Delta and not self._waiters:  # nearly always: a short cut
            text, kept = event.text, self._kept
            self._journal.grow(self, _SLOT + text.__sizeof__())
            kept.append(text)
            if self._sinks:
                batch = make_batch((len(kept), events))
                for sink in self._sinks:
                    sink(batch)
            return
        kept, terminal = _keep(events), isinstance(events[-1], TERMINAL)
        self._journal.grow(self, sum(map(_size, kept)), unbounded=terminal)
        self._add(events, kept, terminal)

    def reserve(self, events: Sequence[Event]) -> None:
        """Account for *events*, which `publish` will make readable. Raises StreamTooLarge or Overloaded."""
        self._journal.grow(self, sum(map(_size, _keep(events))), unbounded=isinstance(events[-1], TERMINAL))

    def publish(self, events: Sequence[Event]) -> None:
        """Make *events* readable."""
        self._add(events, _keep(events), isinstance(events[-1], TERMINAL))

    def extend(self, events: Sequence[Event]) -> None:
        """Append *events* that are bounded where they were made."""
        kept = _keep(events)
        self._journal.grow(self, sum(map(_size, kept)), unbounded=True)
        self._add(events, kept, isinstance(events[-1], TERMINAL))

    def _add(self, events: Sequence[Event], kept: list[_Kept], terminal: bool) -> None:
        first = len(self._kept) + 1
        self._kept += kept
        if terminal:
            self.ended = True
            self._journal.end(self)
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        if self._sinks:
            batch = Batch(first, events)
            for sink in self._sinks:
                sink(batch)

    def follow(self, sink: Sink) -> None:
        self._sinks.append(sink)

    def unfollow(self, sink: Sink) -> None:
        self._sinks.remove(sink)

    def records(self, after: int, last: int) -> list[Event]:
        """Return the records after number *after*, up to *last*."""
        return [Delta(it) if isinstance(it, str) else it for it in self._kept[after:last]]

    async def drain(self) -> None:
        """Return at once."""

    def pending(self, after: int) -> Batch | None:
        if after >= len(self._kept):
            return None
        return Batch(after + 1, self.records(after, self._batch_end(after)))

    async def read(self, after: int = 0) -> AsyncGenerator[Batch, None]:
        create_future = asyncio.get_running_loop().create_future
        self.entered()
        try:
            while True:
                if (batch := self.pending(after)) is not None:
                    yield batch
                    after = batch.last
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


def _keep(events: Sequence[Event]) -> list[_Kept]:
    return [event.text if type(event) is Delta else event for event in events]


def _size(it: _Kept) -> int:
    """What a record takes in memory, in bytes, near enough to bound it."""
    if isinstance(it, str):
        return _SLOT + it.__sizeof__()
    if isinstance(it, Logprobs):  # small objects, many deep
        return _RECORD_OVERHEAD + _JSON * len(orjson.dumps(it[:]))
    return _RECORD_OVERHEAD + sum(map(sys.getsizeof, it))
