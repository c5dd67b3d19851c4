"""Copies of logs that other processes write, kept up with the originals as long as somebody reads them here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

from redis.exceptions import RedisError, ResponseError
from structlog.typing import FilteringBoundLogger

from app.errors import JournalDown, JournalLost, ProducerLost, StreamError, UnknownStream
from app.events import TERMINAL, Event, Failure
from app.journal.memory import MemoryJournal, MemoryLog
from app.journal.redis import codec, keys
from app.journal.redis.codec import decode, encode, read_entry
from app.journal.redis.connection import Link
from app.request import StreamInfo

# Entries that are read in one trip.
_PAGE = 1000
# Streams of a dead process that are ended at once.
_AT_ONCE = 16


def header_of(info: StreamInfo, process: str) -> dict[bytes, bytes]:
    """Return what the log of a stream of *process*'s begins with in Redis."""
    return {
        b"chunk": info.chunk.encode(),
        b"owner": info.owner.encode(errors="surrogatepass"),  # a name may be anything
        b"readers": b"%d" % info.readers,
        b"label": info.label.encode(errors="surrogatepass"),
        b"process": process.encode(),
    }


def _info(header: dict[bytes, bytes]) -> StreamInfo:
    owner = header[b"owner"].decode(errors="surrogatepass")
    # A process of an earlier version says neither of these.
    readers, label = int(header.get(b"readers", b"0")), header.get(b"label", b"").decode(errors="surrogatepass")
    return StreamInfo(header[b"chunk"].decode(), owner, readers, label)


class Copy(MemoryLog):
    """The copy of a stream's log, which begins with *header* in Redis; *producer* writes the original."""

    __slots__ = ("__weakref__", "_copies", "header", "producer")

    def __init__(self, journal: MemoryJournal, copies: Copies, stream_id: str, header: dict[bytes, bytes]) -> None:
        super().__init__(journal, stream_id, _info(header))
        self.header = header
        self.producer = header[b"process"].decode()
        self._copies = copies

    def extend(self, events: Sequence[Event]) -> None:
        """Append *events*, whose number is bounded where they were made."""
        self.reserve(events, unbounded=True)
        self.publish(events)

    def entered(self) -> None:
        super().entered()
        if self.reading == 1 and not self.ended:
            self._copies.follow(self)

    def left(self) -> None:
        super().left()
        if not self.reading and not self.ended:
            self._copies.on_change(self)


class Copies:
    """The copies of this process, in *journal*, by stream; an ended one is for that to keep.

    *keep* is how many seconds Redis keeps a log that is ended here, its producer being dead. `on_change` is told of a
    copy that is followed from now on, or no longer, or whose first reader has come, or whose last has left.
    """

    def __init__(self, link: Link, journal: MemoryJournal, keep: int, log: FilteringBoundLogger) -> None:
        self._link = link
        self._journal = journal
        self._keep = keep
        self._log = log
        self.on_change: Callable[[Copy], None] = lambda copy: None
        self._followed: dict[str, Copy] = {}
        # There is never a second copy while somebody holds the first, who may begin to read it at any time.
        self._known: WeakValueDictionary[str, Copy] = WeakValueDictionary()
        self._idle: set[str] = set()  # what nobody read at the last beat
        self._looking: dict[str, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<Copies: {len(self._followed)} followed, {len(self._looking)} being looked after>"

    @property
    def followed(self) -> list[Copy]:
        """The copies that are kept up."""
        return list(self._followed.values())

    @property
    def looking(self) -> list[asyncio.Task[None]]:
        """The tasks that look into originals."""
        return list(self._looking.values())

    def get(self, stream_id: str) -> Copy | None:
        """Return the copy that is kept up, or None."""
        return self._followed.get(stream_id)

    def revived(self, stream_id: str) -> Copy | None:
        """Return a copy that was dropped and is still held by somebody, kept up again; or None."""
        copy = self._known.get(stream_id)
        if copy is None or copy.ended:
            return None
        self.follow(copy)
        return copy

    def follow(self, copy: Copy) -> None:
        """Keep *copy* up with the original until it has ended, or nobody reads it any more."""
        if copy.id not in self._followed:
            self._journal.readopt(copy)
            self._followed[copy.id] = self._known[copy.id] = copy
        self._idle.discard(copy.id)
        self.on_change(copy)

    def drop_idle(self) -> None:
        """Drop what nobody has read since the last time."""
        for stream_id in self._idle:
            copy = self._followed.get(stream_id)
            if copy is not None and not copy.reading:
                del self._followed[stream_id]
                self._journal.drop(copy)
                self.on_change(copy)
        self._idle = {copy.id for copy in self._followed.values() if not copy.reading}

    async def load(self, stream_id: str) -> Copy:
        """Copy a log out of Redis, and follow it if it has not ended.

        Raises UnknownStream, Overloaded, JournalDown, or JournalLost if records are missing.
        """
        key = keys.log(stream_id)
        [entries] = await self._link.ask(("XRANGE", key, keys.HEADER, "+", "COUNT", _PAGE))
        if not entries or entries[0][0] != keys.HEADER:
            raise UnknownStream if self._link.settled else JournalDown
        copy = Copy(self._journal, self, stream_id, _fields(entries.pop(0)))
        self._journal.adopt(copy)
        try:
            while entries:
                for entry in entries:
                    first, events = read_entry(entry)
                    if first != copy.last + 1:
                        raise JournalLost
                    copy.extend(events)
                    if copy.ended:
                        return copy
                [entries] = await self._link.ask(("XRANGE", key, b"(" + entries[-1][0], "+", "COUNT", _PAGE))
        except ValueError:
            self._journal.drop(copy)
            raise JournalLost from None
        except BaseException:
            self._journal.drop(copy)
            raise
        if not copy.ended:
            self.follow(copy)
        return copy

    async def caught_up(self, copy: Copy) -> Copy:
        """Return *copy* with what it has missed. Raises UnknownStream, JournalDown or JournalLost."""
        try:
            if await self._catch_up(copy) is None:
                raise UnknownStream if self._link.settled else JournalDown
        except ValueError:
            raise JournalLost from None
        return copy

    async def reach(self, copy: Copy, after: int) -> None:
        """Have record number *after* in *copy*, if there is one.

        Raises JournalDown if that is not to be known, as Redis is away, or may not have been given all again since.
        """
        with suppress(JournalLost, ValueError):  # whoever looks after the copy will see that, too
            await self._catch_up(copy)
        if after > copy.last and not copy.ended and not self._link.settled:
            raise JournalDown

    def told(self, stream_id: str, first: int, data: bytes) -> None:
        """Take in an entry that the producer has sent. Raises ValueError."""
        copy = self._followed.get(stream_id)
        if copy is not None:
            if first == copy.last + 1:
                self._append(copy, decode(data))
            elif first > copy.last:
                self.look(copy)

    def compare(self, stream_id: str, last: int) -> None:
        """Take in what the producer says of its last record: -1 if the stream is no longer its own."""
        copy = self._followed.get(stream_id)
        if copy is not None and not 0 <= last <= copy.last:
            self.look(copy, disowned=last < 0)

    def look(self, copy: Copy, *, disowned: bool = False) -> None:
        """Look into the original, if that is not being done. If it was *disowned*, it had better be there."""
        if copy.id not in self._looking:
            task = asyncio.create_task(self._look(copy, disowned), name=f"look {copy.id}")
            self._looking[copy.id] = task
            task.add_done_callback(lambda _: self._looking.pop(copy.id, None))

    async def _look(self, copy: Copy, disowned: bool) -> None:
        try:
            last = await self._catch_up(copy)
            if disowned and not copy.ended:
                if last is None:
                    raise JournalLost  # it ended, and is no longer kept
                await self._bury(copy)  # it was begun, and its producer was never told so
        except JournalDown:
            pass  # with the next beat again
        except (RedisError, OSError) as error:
            self._link.failed(error)
        except (JournalLost, ValueError) as error:
            self._end(copy, JournalLost())
            self._log.error("journal.lost", stream_id=copy.id, error=type(error).__name__)

    async def bury(self, process: str) -> None:
        """End the streams of a dead *process* that are read here. Raises RedisError or OSError."""
        dead = [copy for copy in self.followed if copy.producer == process]
        for start in range(0, len(dead), _AT_ONCE):
            await asyncio.gather(*[self._bury(copy) for copy in dead[start : start + _AT_ONCE]])

    async def _bury(self, copy: Copy) -> None:
        try:
            last = await self._catch_up(copy)
        except (JournalDown, JournalLost, ValueError):
            return self.look(copy)  # which knows what to do
        if copy.ended or self._followed.get(copy.id) is not copy:
            return None
        key, ending = keys.log(copy.id), Failure.of(ProducerLost())
        if last is None:
            header = [part for item in copy.header.items() for part in item]
            await self._link.exchange([("XADD", key, keys.HEADER, *header), ("EXPIRE", key, self._keep, "NX")])
        # What Redis has lost of it is in our copy, and nobody else is left to write it again. It is one entry, lest
        # that of another who does the same comes between.
        first = (last or 0) + 1
        data = encode([*copy.records(first - 1, copy.last), ending])
        [reply] = await self._link.exchange([codec.append(key, first, data)])
        if reply is None or (isinstance(reply, ResponseError) and "equal or smaller" in str(reply)):
            return self.look(copy)  # somebody else was first
        if isinstance(reply, Exception):
            raise reply
        await self._link.asked(("EXPIRE", key, self._keep))
        self._append(copy, [ending])
        self._log.warning("stream.buried", stream_id=copy.id, peer=copy.producer, records=copy.last)
        return None

    async def _catch_up(self, copy: Copy) -> int | None:
        """Append to *copy* what the original has beyond it.

        Return the number of the original's last record; None if it is gone. Raises JournalDown, JournalLost if records
        are missing, or ValueError.
        """
        key = keys.log(copy.id)
        while True:
            # The entry with the next record may begin before it: a log that was written anew is cut differently.
            upto = b"%d-0" % (copy.last + 1)
            [before] = await self._link.ask(("XREVRANGE", key, upto, keys.HEADER, "COUNT", 1))
            if not before:
                return None
            [entries] = await self._link.ask(("XRANGE", key, before[0][0], "+", "COUNT", _PAGE))
            last, events, grown = 0, list[Event](), False
            for entry in entries:
                first, events = read_entry(entry)
                if first > copy.last + 1:
                    raise JournalLost
                last = first + len(events) - 1
                if last > copy.last:
                    self._append(copy, events[copy.last + 1 - first :])
                    grown = True
            if copy.ended or not grown or copy.id not in self._followed:
                if events and isinstance(events[-1], TERMINAL) and not copy.ended:
                    raise JournalLost  # it ended before what we have
                return last

    def give_up(self) -> None:
        """End what is read here and cannot be read on, because Redis has been away for too long."""
        for copy in self.followed:
            self._end(copy, JournalDown())

    def _append(self, copy: Copy, events: Sequence[Event]) -> None:
        if self._followed.get(copy.id) is copy:
            copy.extend(events)
            if copy.ended:
                del self._followed[copy.id]

    def _end(self, copy: Copy, error: StreamError) -> None:
        self._append(copy, [Failure.of(error)])


def _fields(entry: Any) -> dict[bytes, bytes]:
    flat = entry[1]
    return dict(zip(flat[::2], flat[1::2], strict=True))
