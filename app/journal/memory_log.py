"""One stream's log in memory: a list, and pages of what was written before. Its journal keeps the accounts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, ClassVar

from app.events import TERMINAL, Batch, Delta, Event
from app.journal import Sink
from app.journal.page import PAGE, SLOT, Kept, Page, keep, pack, size_of, unkept
from app.request import StreamInfo

if TYPE_CHECKING:
    from app.journal.memory import MemoryJournal

# Bounds of one batch: about uvicorn's high-water mark, so that a replay goes out in few sends, yet no send is huge.
_BATCH_RECORDS = 1024
_BATCH_SIZE = 64 * 1024


class MemoryLog:
    """One stream's log: its writer, and what its readers read."""

    full: ClassVar[bool] = False  # memory is never behind

    __slots__ = (
        "_journal",
        "_pages",
        "_readers",
        "_sinks",
        "_tail",
        "_waiters",
        "ended",
        "ended_at",
        "id",
        "info",
        "kept",
        "last",
        "size",
    )

    def __init__(self, journal: MemoryJournal, stream_id: str, info: StreamInfo) -> None:
        self.id = stream_id
        self.info = info
        self.size = 0
        self.kept = True
        self.ended = False
        self.ended_at = 0.0
        self.last = 0
        self._journal = journal
        self._pages: list[Page | list[Kept]] = []  # of `PAGE` records each
        self._tail: list[Kept] = []  # what comes after them: fewer
        self._waiters: list[asyncio.Future[None]] = []
        self._sinks: list[Sink] = []
        self._readers = 0

    def __repr__(self) -> str:
        waiting = len(self._waiters) + len(self._sinks)
        return f"<MemoryLog {self.last} records, {self.size} bytes, {self._readers} reading, {waiting} waiting>"

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
            text, tail = event.text, self._tail
            self._journal.grow(self, SLOT + text.__sizeof__())
            tail.append(text)
            self.last += 1
            if len(tail) == PAGE:
                self._turn()
            if self._sinks:
                batch = Batch(self.last, events)
                for sink in self._sinks:
                    sink(batch)
            return
        kept, terminal = keep(events), isinstance(events[-1], TERMINAL)
        self._journal.grow(self, sum(map(size_of, kept)), unbounded=terminal)
        self._add(events, kept, terminal)

    def reserve(self, events: Sequence[Event]) -> None:
        """Account for *events*, which `publish` will make readable. Raises StreamTooLarge or Overloaded."""
        self._journal.grow(self, sum(map(size_of, keep(events))), unbounded=isinstance(events[-1], TERMINAL))

    def publish(self, events: Sequence[Event]) -> None:
        """Make *events* readable."""
        self._add(events, keep(events), isinstance(events[-1], TERMINAL))

    def extend(self, events: Sequence[Event]) -> None:
        """Append *events* that are bounded where they were made."""
        kept = keep(events)
        self._journal.grow(self, sum(map(size_of, kept)), unbounded=True)
        self._add(events, kept, isinstance(events[-1], TERMINAL))

    def _add(self, events: Sequence[Event], kept: list[Kept], terminal: bool) -> None:
        first = self.last + 1
        self._tail += kept
        self.last += len(kept)
        while len(self._tail) >= PAGE:
            self._turn()
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
        events: list[Event] = []
        paged = len(self._pages) * PAGE
        for number in range(after // PAGE, -(-min(last, paged) // PAGE)):
            start, end = max(0, after - number * PAGE), min(PAGE, last - number * PAGE)
            page = self._pages[number]
            events += page.events(start, end) if isinstance(page, Page) else unkept(page[start:end])
        if last > paged:
            events += unkept(self._tail[max(0, after - paged) : last - paged])
        return events

    async def drain(self) -> None:
        """Return at once."""

    def pending(self, after: int) -> Batch | None:
        if after >= self.last:
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

    def _turn(self) -> None:
        """Begin a new page: what the tail begins with is packed, if it can be."""
        kept, self._tail = self._tail[:PAGE], self._tail[PAGE:]
        page = pack(kept)
        if page is not None:
            self._journal.shrink(self, page.saved)
        self._pages.append(page or kept)

    def _batch_end(self, start: int) -> int:
        """Return the last record of a batch that begins after record *start*. A packed page is not divided."""
        end, size = start, 0
        while end < self.last and end - start < _BATCH_RECORDS and size < _BATCH_SIZE:
            number, index = divmod(end, PAGE)
            page = self._pages[number] if number < len(self._pages) else self._tail
            if isinstance(page, Page):
                size += page.size
                end += PAGE - index
            else:
                size += size_of(page[index])
                end += 1
        return end
