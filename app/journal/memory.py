"""The journal of one process: a list of records per stream, the older part of it packed.

Strategy: the log *is* the buffer. A reader is a cursor, an integer into a list, so a slow reader is merely behind and a
reader that left costs nothing. Every append is handed to the readers that are at the end, by the call that brought it.

What is kept is bounded five ways: bytes per stream, bytes of an owner's streams, bytes of all streams, number of ended
streams, and time after a stream's end. Where room is needed for all, the owner that has most loses the stream that
ended first, so that one owner cannot crowd out the others. A live stream is never dropped.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar
from weakref import WeakValueDictionary

from structlog.typing import FilteringBoundLogger

from app.errors import Overloaded, StreamTooLarge, UnknownStream
from app.events import TERMINAL, Batch, Delta, Event, Extra, Logprobs
from app.journal import Bounds, Listing, Sink
from app.journal.budgets import MemoryBudgets
from app.journal.holder import Holder
from app.journal.page import PAGE, REFERENCE, Kept, Page, keep, pack, size_of, unkept
from app.journal.registry import MemoryRegistry
from app.request import StreamInfo

FORMS = ("memory",)
SHARED = False


def check(url: str) -> None:
    """See `app.journal`: there is nothing to be wrong."""


def about(url: str) -> str:
    """See `app.journal`."""
    return "memory"


# Bytes that have to be free for one more stream to be taken: a usual answer.
_ROOM = 64 * 1024
# Bounds of one batch: about uvicorn's high-water mark, so that a replay goes out in few sends and no send is huge.
_BATCH_RECORDS = 1024
_BATCH_SIZE = 64 * 1024
# How many records may belong to the one before them: log probabilities, and other fields.
_MOST_RIDERS = 2
# The most bytes of memory that are pushed within one append, to all readers together: a thousand short records, which
# take some milliseconds to be encoded and written.
_MOST_PUSHED = 64 * 1024


class MemoryLog:
    """One stream's log, and its writer. Its *journal* counts the bytes.

    To write is to `reserve` memory for events, and then to `publish` them; `append` does both.
    """

    full: ClassVar[bool] = False  # memory is never behind

    __slots__ = (
        "_journal",
        "_pages",
        "_readers",
        "_sinks",
        "_tail",
        "ended",
        "holder",
        "id",
        "info",
        "kept",
        "last",
        "size",
        "timer",
    )

    def __init__(self, journal: MemoryJournal, stream_id: str, info: StreamInfo) -> None:
        self.id = stream_id
        self.info = info
        self.holder = journal.holder(info.owner)
        self.size = 0
        self.kept = True
        self.ended = False
        self.timer: asyncio.TimerHandle | None = None  # evicts it when its time is up
        self.last = 0
        self._journal = journal
        self._pages: list[Page | list[Kept]] = []  # of `PAGE` records each
        self._tail: list[Kept] = []  # the records after the pages: fewer than `PAGE`
        self._sinks: dict[Sink, None] = {}
        self._readers = 0

    def __repr__(self) -> str:
        return f"<MemoryLog {self.last} records, {self.size} bytes, {self._readers} reading>"

    @property
    def reading(self) -> int:
        """How many readers there are."""
        return self._readers

    @property
    def pinned(self) -> bool:
        """Whether it is in memory: it is kept, or a reader began before it was evicted."""
        return self.kept or self._readers > 0

    def append(self, events: Sequence[Event]) -> None:
        if self.ended:
            raise RuntimeError("a stream's log ends with its terminal record")
        event = events[0]
        if len(events) == 1 and type(event) is Delta:  # the usual case, by the shortest way
            text = event.text
            tail = self._tail
            size = REFERENCE + text.__sizeof__()
            self._journal.grow(self, size)
            tail.append(text)
            self.last += 1
            if len(tail) == PAGE:
                self._turn_page()
            sinks = self._sinks
            if sinks:
                batch = Batch(self.last, events) if len(sinks) * size <= _MOST_PUSHED else None
                for sink in sinks:
                    sink(batch)
            return
        self.publish(events, self.reserve(events))

    def reserve(self, events: Sequence[Event], *, unbounded: bool = False) -> int:
        """Count the memory of *events*, which `publish` will make readable, and return how many bytes that is.

        Raises StreamTooLarge or Overloaded, unless *unbounded*, or unless the last event is terminal.
        """
        unbounded = unbounded or isinstance(events[-1], TERMINAL)
        size = _size_of(events)
        self._journal.grow(self, size, unbounded=unbounded)
        return size

    def publish(self, events: Sequence[Event], size: int | None = None) -> None:
        """Make *events*, of *size* bytes, readable, and hand them to the readers that follow."""
        first = self.last + 1
        end = events[-1]
        self._tail += [end.text] if len(events) == 1 and type(end) is Delta else keep(events)
        self.last += len(events)
        while len(self._tail) >= PAGE:
            self._turn_page()
        if isinstance(end, TERMINAL):
            self.ended = True
            self._journal.end(self)
        if self._sinks:
            size = _size_of(events) if size is None else size
            batch = Batch(first, events) if len(self._sinks) * size <= _MOST_PUSHED else None
            for sink in self._sinks:
                sink(batch)

    async def drain(self) -> None:
        """Return at once."""

    def note(self, text: str) -> bool:
        """Keep nothing: no process can go on with what is in this one's memory."""
        return False

    def records(self, after: int, last: int) -> list[Event]:
        """Return the records after number *after*, up to *last*."""
        events: list[Event] = []
        paged = len(self._pages) * PAGE
        for number in range(after // PAGE, -(-min(last, paged) // PAGE)):
            start = max(0, after - number * PAGE)
            end = min(PAGE, last - number * PAGE)
            page = self._pages[number]
            events += page.events(start, end) if isinstance(page, Page) else unkept(page[start:end])
        if last > paged:
            events += unkept(self._tail[max(0, after - paged) : last - paged])
        return events

    def pending(self, after: int, last: int | None = None) -> Batch | None:
        last = self.last if last is None else last
        return Batch(after + 1, self.records(after, self._batch_end(after, last))) if after < last else None

    def follow(self, sink: Sink) -> None:
        self._sinks[sink] = None

    def unfollow(self, sink: Sink) -> None:
        del self._sinks[sink]

    async def read(self, after: int = 0) -> AsyncGenerator[Batch, None]:
        self.entered()
        try:
            while True:
                batch = self.pending(after)
                if batch is not None:
                    yield batch
                    after = batch.last
                elif self.ended:
                    return
                else:
                    await self._appended()
        finally:
            self.left()

    async def _appended(self) -> None:
        """Wait for the next append."""
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake(batch: Batch | None) -> None:
            if not news.done():
                news.set_result(None)

        self.follow(wake)
        try:
            await news
        finally:
            self.unfollow(wake)

    def entered(self) -> None:
        """Count a reader in."""
        if not self.pinned:
            self._journal.hold(self)  # the reader opened the log before it was evicted, and begins only now
        self._readers += 1

    def left(self) -> None:
        """Count a reader out."""
        self._readers -= 1
        if not self.pinned:
            self._journal.let_go(self)

    def stop_timer(self) -> None:
        """Let go of the timer, which would hold the log in memory until its time is up."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _turn_page(self) -> None:
        """Move the first `PAGE` records of the tail to a page, packed if they can be."""
        kept = self._tail[:PAGE]
        self._tail = self._tail[PAGE:]
        if (page := pack(kept)) is not None:
            self._journal.shrink(self, page.saved)
        self._pages.append(page or kept)

    def _batch_end(self, start: int, last: int) -> int:
        """Return the last record of a batch of those after record *start*, up to *last*."""
        if last == self.last and last - start <= _BATCH_RECORDS and self.size <= _BATCH_SIZE:
            return last  # all that is there
        end, size = start, 0
        while end < last and end - start < _BATCH_RECORDS and size < _BATCH_SIZE:
            number, index = divmod(end, PAGE)
            page = self._pages[number] if number < len(self._pages) else self._tail
            if isinstance(page, Page):
                size += page.size
                end = min(end + PAGE - index, last)
            else:
                size += size_of(page[index])
                end += 1
        for _ in range(_MOST_RIDERS):
            if end < self.last and isinstance(self.records(end, end + 1)[0], (Logprobs, Extra)):
                end += 1  # it is in one batch with what it came with
        return end


def _size_of(events: Sequence[Event]) -> int:
    event = events[0]
    if len(events) == 1 and type(event) is Delta:  # nearly always
        return REFERENCE + event.text.__sizeof__()
    return sum(map(size_of, keep(events)))


class MemoryJournal:
    """All streams of this process.

    *on_evict* is told the id of each stream that is dropped, and why: `time`, `count` or `memory`.
    """

    def __init__(self, bounds: Bounds, on_evict: Callable[[str, str], None] | None = None) -> None:
        self._bounds = bounds
        self._on_evict = on_evict
        self._logs: dict[str, MemoryLog] = {}
        self._ended: dict[str, MemoryLog] = {}  # in the order in which they ended
        self._holders = WeakValueDictionary[str, Holder[MemoryLog]]()  # by owner: their logs have them
        self.registry = MemoryRegistry()
        self.budgets = MemoryBudgets()
        self.ready = True
        self.size = 0

    def __repr__(self) -> str:
        return f"<MemoryJournal {len(self._logs)} streams, {len(self._ended)} ended, {self.size} bytes>"

    def __len__(self) -> int:
        """How many streams are kept, live ones included."""
        return len(self._logs)

    @asynccontextmanager
    async def serving(self, owner: object) -> AsyncIterator[None]:
        """Forget everything at the end of the block. There is no other process to tell *owner* anything."""
        try:
            yield
        finally:
            self.close()

    def close(self) -> None:
        """Forget everything, and tell `on_evict` nothing."""
        for log in self._ended.values():
            log.stop_timer()
        self._logs.clear()
        self._ended.clear()

    async def create(self, stream_id: str, info: StreamInfo) -> MemoryLog:
        log = MemoryLog(self, stream_id, info)
        self.adopt(log)
        if info.label:
            self.registry.label(info.owner, info.label, stream_id)
        return log

    async def open(self, stream_id: str, after: int = 0) -> MemoryLog:
        log = self._logs.get(stream_id)
        if log is None:
            raise UnknownStream
        return log

    async def live(self, stream_id: str) -> StreamInfo | None:
        log = self._logs.get(stream_id)
        return None if log is None or log.ended else log.info

    async def streams_of(self, owner: str, limit: int, before: int | None = None, *, live: bool = False) -> Listing:
        return self.holder(owner).listing(limit, before, live=live)

    async def remove(self, stream_id: str) -> None:
        if (log := self._logs.get(stream_id)) is not None:
            self.drop(log)

    def stop(self, stream_id: str) -> None:
        """Do nothing: there is no other process."""

    def drain(self) -> None:
        """Do nothing: there is no other process."""

    def get(self, stream_id: str) -> MemoryLog | None:
        """Return a stream's log, or None."""
        return self._logs.get(stream_id)

    def holder(self, owner: str) -> Holder[MemoryLog]:
        """Return what counts the *owner*'s bytes. Callers without credentials are one owner, which has no bound."""
        holder = self._holders.get(owner)
        if holder is None:
            holder = self._holders[owner] = Holder(self._bounds.owner if owner else math.inf)
        return holder

    def adopt(self, log: MemoryLog) -> None:
        """Keep a new log. Raises Overloaded if there is no room for it."""
        # A stream that is refused now costs nothing; after the upstream has answered, it has been paid for.
        room = min(_ROOM, self._bounds.total // 8, self._bounds.owner // 8)
        if not self._make_room_of(log.holder, room) or not self._make_room(room):
            raise Overloaded(retry_after=1)
        self._keep(log)
        texts = (log.info.asked, log.info.metadata, log.info.model, log.info.label)
        self.grow(log, sum(text.__sizeof__() for text in texts if text), unbounded=True)

    def readopt(self, log: MemoryLog) -> None:
        """Keep a live log again that was dropped."""
        if not log.kept:
            if not log.pinned:
                self.hold(log)
            log.kept = True
            self._keep(log)

    def _keep(self, log: MemoryLog) -> None:
        self._logs[log.id] = log
        log.holder.logs[log.id] = log

    def drop(self, log: MemoryLog) -> None:
        """Stop keeping a log. Its readers read on."""
        if log.kept:
            del self._logs[log.id]
            del log.holder.logs[log.id]
            self._ended.pop(log.id, None)
            log.holder.ended.pop(log.id, None)
            self.registry.forget(log.info.owner, log.info.label, log.id)
            log.stop_timer()
            log.kept = False
            if not log.pinned:
                self.let_go(log)

    def grow(self, log: MemoryLog, size: int, *, unbounded: bool = False) -> None:
        """Count *size* more bytes in *log*. Raises StreamTooLarge or Overloaded unless *unbounded*."""
        if not unbounded and log.size + size > self._bounds.stream:
            raise StreamTooLarge
        holder = log.holder
        if holder.size + size > holder.most and not self._make_room_of(holder, size) and not unbounded:
            raise Overloaded(retry_after=1)
        if self.size + size > self._bounds.total and not self._make_room(size) and not unbounded:
            raise Overloaded(retry_after=1)
        log.size += size
        holder.size += size
        self.size += size

    def shrink(self, log: MemoryLog, size: int) -> None:
        """Count *size* bytes fewer in *log*."""
        log.size -= size
        log.holder.size -= size
        self.size -= size

    def hold(self, log: MemoryLog) -> None:
        """Count an evicted log that is read once more."""
        log.holder.size += log.size
        self.size += log.size

    def let_go(self, log: MemoryLog) -> None:
        """Stop counting a log that is neither kept nor read."""
        log.holder.size -= log.size
        self.size -= log.size

    def end(self, log: MemoryLog) -> None:
        """Note that *log* has its terminal record: from now on it is kept only within bounds."""
        if not log.kept:
            return
        seconds = min(log.info.keep, self._bounds.seconds)
        log.timer = asyncio.get_running_loop().call_later(seconds, self._evict, log, "time")
        self._ended[log.id] = log
        log.holder.ended[log.id] = log
        while len(self._ended) > self._bounds.ended:
            self._evict_first(max(self._holders.values(), key=lambda holder: len(holder.ended)), "count")

    def _make_room(self, size: int) -> bool:
        """Evict streams of the owners that have most until *size* more bytes fit; return whether they do."""
        while self._ended and self.size + size > self._bounds.total:
            largest = max((it for it in self._holders.values() if it.ended), key=lambda holder: holder.size)
            self._evict_first(largest, "memory")
        return self.size + size <= self._bounds.total

    def _make_room_of(self, holder: Holder[MemoryLog], size: int) -> bool:
        """Evict streams of one owner until it may have *size* more bytes; return whether it may."""
        while holder.ended and holder.size + size > holder.most:
            self._evict_first(holder, "memory")
        return holder.size + size <= holder.most

    def _evict_first(self, holder: Holder[MemoryLog], reason: str) -> None:
        self._evict(next(iter(holder.ended.values())), reason)

    def _evict(self, log: MemoryLog, reason: str) -> None:
        self.drop(log)
        if self._on_evict is not None:
            self._on_evict(log.id, reason)


def create(
    url: str, bounds: Bounds, patience: float, on_evict: Callable[[str, str], None], log: FilteringBoundLogger
) -> MemoryJournal:
    """See `app.journal.create`. Memory is never away, so that *patience* is not needed."""
    return MemoryJournal(bounds, on_evict)
