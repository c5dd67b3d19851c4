"""Copies of logs in Redis. Those that other processes write are kept up as long as readers read them here.

The log of a stream that this process produces is such a copy, too: if another process adopts the stream, its readers
here read on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from weakref import WeakValueDictionary

from redis.exceptions import RedisError
from structlog.typing import FilteringBoundLogger

from app.errors import JournalDown, JournalLost, ProducerLost, StreamError, UnknownStream
from app.events import Event, Failure
from app.journal.encoding import encode
from app.journal.memory import MemoryJournal, MemoryLog
from app.journal.redis import entries, keys, notes
from app.journal.redis.adoption import Adoption
from app.journal.redis.connection import RedisConnection
from app.journal.redis.entries import HEADER, MOST_ENTRIES, Tail, entries_after, info_of, read_header, read_tail
from app.journal.redis.messages import Cancel, Following, Records, pack
from app.journal.redis.notes import Note
from app.journal.redis.outbox import RedisOutbox
from app.request import StreamInfo

# Streams of a dead process that are ended at once.
_AT_ONCE = 16


class Replica(MemoryLog):
    """The copy of a log that *producer* writes: this process, if it is *ours*. The log begins with *header* in Redis.

    An *adopted* one is ours, and was not at first. A *cancelled* one is to end, as a client here wishes.
    """

    __slots__ = ("__weakref__", "_replicas", "adopted", "cancelled", "header", "key", "ours", "producer")

    def __init__(
        self,
        journal: MemoryJournal,
        replicas: Replicas,
        stream_id: str,
        header: dict[bytes, bytes],
        *,
        ours: bool = False,
    ) -> None:
        super().__init__(journal, stream_id, info_of(header))
        self.key = keys.log(stream_id)
        self.header = header
        self.producer = header[b"process"].decode()
        self.ours = ours
        self.adopted = False
        self.cancelled = False
        self._replicas = replicas

    def extend(self, events: Sequence[Event]) -> None:
        """Append *events*. Their producer has held them to the bounds."""
        self.publish(events, self.reserve(events, unbounded=True))

    def entered(self) -> None:
        super().entered()
        if self.reading == 1 and not self.ended:
            self._replicas.follow(self)

    def left(self) -> None:
        super().left()
        if not self.reading and not self.ended:
            self._replicas.announce(self)


class Replicas:
    """The replicas of *process*, in *memory*, which keeps those that have ended.

    *keep* is how many seconds Redis keeps a log that is ended here because its producer is dead. Of what is adopted
    by way of *adoption*, *on_presence* is told whether there are readers here, and *on_cancel* that it is to end.
    """

    def __init__(
        self,
        connection: RedisConnection,
        memory: MemoryJournal,
        outbox: RedisOutbox,
        adoption: Adoption,
        on_presence: Callable[[str, int], None],
        on_cancel: Callable[[str], None],
        process: str,
        keep: int,
        log: FilteringBoundLogger,
    ) -> None:
        self._connection = connection
        self._memory = memory
        self._outbox = outbox
        self._adoption = adoption
        self._on_presence = on_presence
        self._on_cancel = on_cancel
        self._process = process
        self._keep = keep
        self._log = log
        self.draining = False
        self._followed: dict[str, Replica] = {}
        # While a request holds a replica and may begin to read it, there is never a second one of the same stream.
        self._known: WeakValueDictionary[str, Replica] = WeakValueDictionary()
        self._unread: set[str] = set()  # the replicas that had no reader at the last `drop_unread`
        self._checks: dict[str, asyncio.Task[None]] = {}
        self._orphans: set[str] = set()  # streams of dead processes that are being adopted or ended

    def __repr__(self) -> str:
        return f"<Replicas: {len(self._followed)} followed, {len(self._checks)} being checked>"

    @property
    def followed(self) -> list[Replica]:
        """The replicas that are kept up."""
        return [*self._followed.values()]

    @property
    def checks(self) -> list[asyncio.Task[None]]:
        """The tasks that compare replicas with their originals."""
        return [*self._checks.values()]

    def stop(self, stream_id: str) -> None:
        """Ask the producer of a stream that is followed here to cancel it, and the process that adopts it."""
        replica = self._known.get(stream_id)
        if replica is not None and not replica.ended:
            replica.cancelled = True
            self._outbox.tell(replica.producer, pack(Cancel(stream_id)))

    def drain(self) -> None:
        """Tell producers no more of readers that leave: they are on their way to another process."""
        self.draining = True

    def revived(self, stream_id: str) -> Replica | None:
        """Return a replica that was dropped and that a request still holds, followed again; or None."""
        replica = self._known.get(stream_id)
        if replica is None or replica.ended:
            return None
        self.follow(replica)
        return replica

    def create(self, stream_id: str, header: dict[bytes, bytes]) -> Replica:
        """Return the log of a new stream of ours. Raises Overloaded."""
        replica = Replica(self._memory, self, stream_id, header, ours=True)
        self._memory.adopt(replica)
        return replica

    def release(self, replica: Replica) -> None:
        """Follow a stream that was ours, and that another process goes on with."""
        replica.ours = replica.adopted = False
        self.follow(replica)
        self.check(replica, disowned=True)  # which finds that process

    def follow(self, replica: Replica) -> None:
        """Keep *replica* up with the original until it has ended, or has no readers any more."""
        if replica.ours:
            self.announce(replica)
            return
        if replica.id not in self._followed:
            self._memory.readopt(replica)
            self._followed[replica.id] = replica
            self._known[replica.id] = replica
        self._unread.discard(replica.id)
        self.announce(replica)

    def drop_unread(self) -> None:
        """Drop the replicas that have had no reader since the last time."""
        for stream_id in self._unread:
            replica = self._followed.get(stream_id)
            if replica is not None and not replica.reading:
                del self._followed[stream_id]
                self._memory.drop(replica)
                self.announce(replica)
        self._unread = {replica.id for replica in self._followed.values() if not replica.reading}

    def announce(self, replica: Replica) -> None:
        """Tell the producer that this process follows a stream, and whether it has readers; or that it does not."""
        if replica.ours:
            if replica.adopted:  # those who read it already count as readers of one more process
                self._on_presence(replica.id, 1 if replica.reading else -1)
            return
        if self.draining:
            return
        followed = self._followed.get(replica.id) is replica
        following = Following(self._process, {replica.id: replica.reading > 0 if followed else None})
        self._outbox.tell(replica.producer, pack(following))

    def announce_all(self) -> None:
        """Tell each producer which of its streams are followed here, and are to end: it may not have heard it."""
        streams: dict[str, dict[str, bool | None]] = {}
        for replica in self._followed.values():
            streams.setdefault(replica.producer, {})[replica.id] = replica.reading > 0
            if replica.cancelled:
                self.stop(replica.id)
        for producer, followed in streams.items():
            self._outbox.tell(producer, pack(Following(self._process, followed)))

    async def load(self, stream_id: str) -> Replica:
        """Copy a log out of Redis, and follow it if it has not ended.

        Raises UnknownStream, Overloaded, JournalDown, or JournalLost if records are missing.
        """
        key = keys.log(stream_id)
        found, [noted] = await self._connection.request(
            ("XRANGE", key, HEADER, "+", "COUNT", MOST_ENTRIES), notes.find(stream_id)
        )
        if not found or found[0][0] != HEADER:
            raise self._absence()
        try:
            replica = Replica(self._memory, self, stream_id, read_header(found[0]))
        except ValueError:
            raise JournalLost from None
        if (note := notes.read(noted)) is not None:
            replica.producer = note.process
        self._memory.adopt(replica)
        try:
            while found and not replica.ended:
                if not replica.kept:
                    raise UnknownStream  # it was removed just now
                tail = read_tail(found, replica.last)
                if tail.gap:
                    raise JournalLost(replica.info)
                if tail.newer:
                    replica.extend(tail.newer)
                if not replica.ended:
                    [found] = await self._connection.request(
                        ("XRANGE", key, b"(" + found[-1][0], "+", "COUNT", MOST_ENTRIES)
                    )
        except ValueError:
            self._memory.drop(replica)
            raise JournalLost(replica.info) from None
        except BaseException:
            self._memory.drop(replica)
            raise
        if not replica.ended:
            self.follow(replica)
        return replica

    async def live(self, stream_id: str) -> StreamInfo | None:
        """See `Journal.live`: this looks at the first and the last entry of the log in Redis. Raises JournalDown."""
        key = keys.log(stream_id)
        found, last = await self._connection.request(
            ("XRANGE", key, HEADER, HEADER), ("XREVRANGE", key, "+", "-", "COUNT", 1)
        )
        try:
            return info_of(read_header(found[0])) if found and read_tail(last, 0).ending is None else None
        except ValueError:  # the entry is not this service's
            return None

    async def caught_up(self, replica: Replica) -> Replica:
        """Return *replica* with what it has missed. Raises UnknownStream, JournalDown or JournalLost."""
        if await self._catch_up(replica) is None:
            raise self._absence()
        [[noted]] = await self._connection.request(notes.find(replica.id))
        self._moved(replica, notes.read(noted))
        return replica

    def _moved(self, replica: Replica, note: Note | None) -> None:
        """Follow the process that produces the stream now, as its *note* says."""
        if note is not None and note.process not in (replica.producer, self._process):
            replica.producer = note.process
            self.announce(replica)
            if replica.cancelled:
                self.stop(replica.id)

    def _absence(self) -> StreamError:
        """Return what it means that Redis does not have a log."""
        return UnknownStream() if self._connection.settled else JournalDown()

    async def reach(self, replica: Replica, after: int) -> None:
        """Have record number *after* in *replica*, if there is one.

        Raises JournalDown if that cannot be known: Redis is away, or may not have been given all records again since.
        """
        with suppress(JournalLost):  # the next check of the replica will find that too
            await self._catch_up(replica)
        if after > replica.last and not replica.ended and not self._connection.settled:
            raise JournalDown

    def on_records(self, records: Records) -> None:
        """Take in what the producer has sent. If records are missing before it, look for them."""
        replica = self._followed.get(records.stream_id)
        if replica is not None:
            if records.first == replica.last + 1:
                self._append(replica, records.events)
            elif records.first > replica.last:
                self.check(replica)

    def on_position(self, stream_id: str, last: int) -> None:
        """Take in what the producer says of its last record: -1 if the stream is no longer its own."""
        replica = self._followed.get(stream_id)
        if replica is not None and not 0 <= last <= replica.last:
            self.check(replica, disowned=last < 0)

    def check(self, replica: Replica, *, disowned: bool = False) -> None:
        """Compare *replica* with the original, if that is not being done.

        If the producer has *disowned* the stream, the original has to have ended.
        """
        if replica.id not in self._checks:
            task = asyncio.create_task(self._check(replica, disowned), name=f"check {replica.id}")
            self._checks[replica.id] = task
            task.add_done_callback(lambda _: self._checks.pop(replica.id, None))

    async def _check(self, replica: Replica, disowned: bool) -> None:
        try:
            tail = await self._catch_up(replica)
            if disowned and not replica.ended:
                if tail is None:
                    raise JournalLost(replica.info)  # the stream has ended, and is no longer kept
                # The producer has left the stream, or the log was begun, and the producer was never told so.
                await self._end_orphan(replica)
        except JournalDown:
            pass  # the next announcement leads here again
        except (RedisError, OSError) as error:
            self._connection.failed(error)
        except JournalLost as error:
            self._append(replica, [Failure.of(error)])
            self._log.error("journal.lost", stream_id=replica.id)

    async def end_orphans(self, process: str) -> None:
        """Adopt or end the streams of a dead *process* that are followed here. Raises RedisError or OSError."""
        dead = [replica for replica in self.followed if replica.producer == process]
        for start in range(0, len(dead), _AT_ONCE):
            await asyncio.gather(*[self._end_orphan(replica) for replica in dead[start : start + _AT_ONCE]])

    async def _end_orphan(self, replica: Replica) -> None:
        if replica.id in self._orphans:
            return
        self._orphans.add(replica.id)
        try:
            tail = await self._catch_up(replica)
            note = await self._adoption.note_of(replica.id)
            if replica.ended or self._followed.get(replica.id) is not replica:
                return
            if note is None or tail is None:
                await self._end(replica, tail)
            elif note.process not in (replica.producer, self._process):
                self._moved(replica, note)
            elif self.draining:
                pass  # another process has more time for it
            elif not await self._adoption.is_alive(note.process):  # who disowned it may have been the one before
                await self._adopt(replica, tail, note)
        except (JournalDown, JournalLost):
            self.check(replica)  # which knows what to do then
        finally:
            self._orphans.discard(replica.id)

    async def _adopt(self, replica: Replica, tail: Tail, note: Note) -> None:
        """Have this process go on with a stream, unless another one does."""
        known = await self._adoption.claim(replica.id, tail, note)
        if known is None or known.process != self._process:
            self._moved(replica, known)
            self.check(replica)
            return
        self._followed.pop(replica.id, None)
        self._memory.readopt(replica)
        replica.ours = replica.adopted = True
        await self._adoption.go_on(replica, replica.header, tail, known)
        if replica.reading:
            self._on_presence(replica.id, 1)
        if replica.cancelled:
            self._on_cancel(replica.id)

    async def _end(self, replica: Replica, tail: Tail | None) -> None:
        """End the stream of a dead process, which no process can go on with."""
        last, epoch = (0, 0) if tail is None else (tail.last, tail.epoch)
        if tail is None:
            await self._connection.pipeline(entries.begin(replica.key, replica.header, self._keep))
        # What Redis has lost of the stream is in this replica, and no producer is left to write it again. All of it is
        # one entry, so that nothing comes between if another process does the same.
        ending = Failure.of(ProducerLost())
        data = encode([*replica.records(last, replica.last), ending])
        [reply] = await self._connection.pipeline([entries.append(replica.key, last + 1, data, epoch)])
        if entries.is_taken(reply):
            self.check(replica)  # another process was first
            return
        if isinstance(reply, Exception):
            raise reply
        await self._connection.execute(("EXPIRE", replica.key, entries.seconds_kept(replica.info, self._keep)))
        self._append(replica, [ending])
        self._log.warning("stream.producer_lost", stream_id=replica.id, peer=replica.producer, records=replica.last)

    async def _catch_up(self, replica: Replica) -> Tail | None:
        """Append to *replica* what the original has beyond it.

        Return the original's tail; None if it is gone. Raises JournalDown, or JournalLost if records are missing.
        """
        while True:
            after = replica.last
            try:
                tail = await entries_after(self._connection.request, replica.key, after)
            except ValueError:
                raise JournalLost(replica.info) from None
            if tail is None:
                return None
            if tail.gap:
                raise JournalLost(replica.info)
            newer = tail.newer[replica.last - after :]  # without what has come by message meanwhile
            if newer:
                self._append(replica, newer)
            if self._followed.get(replica.id) is not replica:
                return tail  # it has ended, or was dropped
            if not newer:
                if tail.ending is not None:
                    raise JournalLost(replica.info)  # the original ended before what this process has
                return tail

    def give_up(self) -> None:
        """End what is followed here, because Redis has been away too long."""
        for replica in self.followed:
            self._append(replica, [Failure.of(JournalDown())])

    def _append(self, replica: Replica, events: Sequence[Event]) -> None:
        if self._followed.get(replica.id) is replica:
            replica.extend(events)
            if replica.ended:
                del self._followed[replica.id]
