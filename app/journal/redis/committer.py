"""Writing: every stream's new records, all streams of a process in one round trip.

A writer takes records without waiting; the committer sends what all writers have, and what comes while that is under
way with the next trip. Only what Redis has acknowledged becomes readable. So a busy process, or one with a slow Redis,
makes fewer, larger trips, and a record's way costs no task.

The id of an entry is the number of its first record. Redis refuses an id that is not above the last one, so of two who
believe that a stream is theirs, the second to write a number is refused: a producer that was given up for dead cannot
write after the end that others wrote for it.

After Redis was away, nothing is taken for granted: what it still has of each live stream is compared with what readers
were given, and what is missing is written anew, header and all. This process has all of it until the stream has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError, ResponseError
from structlog.typing import FilteringBoundLogger

from app.errors import InternalError, JournalDown, JournalLost, ProducerLost, StreamError
from app.events import TERMINAL, Event, Failure
from app.journal.redis import codec, keys
from app.journal.redis.codec import encode, read_entry
from app.journal.redis.connection import Command, Link, Reconnected, Wire
from app.journal.redis.registry import REMOVE
from app.journal.redis.writer import RedisWriter

# Seconds that a record waits for others to share a trip with it: for one turn of the loop. Two milliseconds (a timer of
# uvloop's has no less than one) would save up to an eighth of the processor time at 200 streams and none at 20, and
# add nearly two to each record, and more than three where it is read in another process.
_WINDOW = 0.0
# Seconds between two looks whether all was sent.
_LOOK = 0.002
# Seconds between two tries while Redis is away; doubles from the first to the last.
_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
# Records in one entry, where a log is written anew; logs that are compared in one trip.
_CHUNK, _COMPARED = 512, 256


class Committer:
    """Sends what writers have, and what processes tell one another.

    *keep* is how many seconds an ended log is kept, *life* a live one that its producer no longer renews. `on_lost` is
    told that a stream is no longer this process's to write, and why; `on_commit` of every entry: its stream, its first
    record's number, its bytes, and whether it is the last; `on_retired` that a stream has no writer any more.
    """

    def __init__(self, link: Link, wire: Wire, keep: int, life: int, log: FilteringBoundLogger) -> None:
        self._link = link
        self._wire = wire
        self._keep = keep
        self._life = life
        self._log = log
        self.on_lost: Callable[[str, StreamError], None] = lambda stream_id, error: None
        self.on_commit: Callable[[str, int, bytes, bool], None] = lambda stream_id, first, data, ended: None
        self.on_retired: Callable[[str], None] = lambda stream_id: None
        self._live: dict[str, RedisWriter] = {}
        self._beginnings: set[str] = set()
        self._marked: dict[RedisWriter, None] = {}
        self._suspect: dict[RedisWriter, None] = {}
        self._outbox: dict[bytes, list[bytes]] = {}  # by channel
        self._wake = asyncio.Event()
        self._sending = False
        self._renewed_at = 0.0

    def __repr__(self) -> str:
        return f"<Committer {len(self._live)} live, {len(self._suspect)} to be compared>"

    def writer(self, stream_id: str) -> RedisWriter | None:
        """Return the writer of a live stream of this process."""
        return self._live.get(stream_id)

    def last(self, stream_id: str) -> int:
        """Return the number of the last record that Redis has of a stream of ours; -1 if it is not, or no longer."""
        writer = self._live.get(stream_id)
        return writer.acked if writer is not None else 0 if stream_id in self._beginnings else -1

    async def create(self, writer: RedisWriter) -> None:
        """Begin a log in Redis. Raises JournalDown."""
        self._beginnings.add(writer.id)  # others may see it before we know of it
        try:
            await self._begin(writer)
            self._live[writer.id] = writer
        finally:
            self._beginnings.discard(writer.id)

    async def _begin(self, writer: RedisWriter) -> None:
        commands = self._beginning(writer)
        if writer.claim is not None:
            # If claiming took so long that somebody else took the key over, the stream is theirs to begin.
            *_, claimed = await self._link.ask(*commands, ("GET", writer.claim.key))
            if claimed != writer.claim.value:
                await self._link.ask(("DEL", writer.key))
                raise JournalDown
        else:
            await self._link.ask(*commands)

    def mark(self, writer: RedisWriter) -> None:
        """Note that *writer* has something to send."""
        self._marked[writer] = None
        self._wake.set()

    def tell(self, channel: bytes, message: bytes) -> None:
        """Send *message* with the next trip. It may be lost, as messages on channels may."""
        if not self._link.away:
            self._outbox.setdefault(channel, []).append(message)
            self._wake.set()

    def renewals(self, now: float) -> list[Command]:
        """Return what has to be sent now and then for live logs to be kept."""
        if now - self._renewed_at < self._life / 4:
            return []
        self._renewed_at = now
        kept = [writer.key for writer in self._live.values()]
        kept += [writer.claim.key for writer in self._live.values() if writer.claim is not None]
        return [("EXPIRE", key, self._life) for key in kept]

    async def emptied(self) -> None:
        """Wait until all that was appended is in Redis, and told; not if that is away."""
        while not self._link.away and (self._sending or self._outbox or self._behind()):  # noqa: ASYNC110 - at the end
            await asyncio.sleep(_LOOK)

    def _behind(self) -> bool:
        return any(writer.waiting or writer.taken for writer in self._live.values())

    def doubt(self) -> None:
        """Take nothing for granted of what Redis has, or what was told."""
        self._outbox.clear()
        self._suspect.update(dict.fromkeys(self._live.values()))
        self._wake.set()

    def give_up(self) -> None:
        """End what has waited for Redis too long."""
        for writer in list(self._live.values()):
            self._end(writer, JournalDown())

    def _end(self, writer: RedisWriter, error: StreamError) -> None:
        if not writer.given_up:
            writer.give_up(Failure.of(error))
            self.mark(writer)
            self.on_lost(writer.id, error)

    async def run(self) -> None:
        """Send, for ever. Raises nothing that Redis may do."""
        pause = _PAUSE
        while True:
            await self._wake.wait()
            await asyncio.sleep(_WINDOW)
            self._wake.clear()
            self._sending = True
            try:
                if self._suspect:
                    await self._compare_all()
                if await self._trip():
                    self._link.answered()
            except Reconnected:
                self._wire.trust()
                self.doubt()
            except (RedisError, OSError) as error:
                self._link.failed(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                self._wake.set()
            else:
                pause = _PAUSE
            finally:
                self._sending = False

    async def _trip(self) -> bool:
        """Send what there is, and return whether there was any. Raises RedisError or OSError."""
        messages, self._outbox = self._outbox, {}
        writers = [writer for writer in self._marked if writer.waiting]
        self._marked.clear()
        # One message per process and trip: to part them is cheaper for the other one than to take each in.
        commands: list[Command] = [codec.publish(channel, told) for channel, told in messages.items()]
        sent: list[tuple[RedisWriter, int, bytes, int]] = []
        for writer in writers:
            first, events = writer.take()
            try:
                data = encode(events)
            except TypeError:  # upstream's usage may be nested deeper than JSON is written
                self._end(writer, InternalError())
                writer.refused()
                continue
            sent.append((writer, first, data, len(commands)))
            commands.append(codec.append(writer.key, first, data))
            if isinstance(events[-1], TERMINAL):
                commands += self._expiry(writer)
        if not commands:
            return False
        replies = await self._wire.send(commands)
        trouble: Exception | None = None
        for writer, first, data, place in sent:
            reply = replies[place]
            if isinstance(reply, bytes):
                self._acknowledge(writer, first, data)
            elif reply is None or "equal or smaller" in str(reply):
                self._suspect[writer] = None
                self._wake.set()
            elif "WRONGTYPE" in str(reply):  # not our key: no reason to stop all others
                self._lose(writer, [], JournalLost())
            else:
                trouble = trouble or reply
        if trouble is not None:
            raise trouble
        return True

    def _acknowledge(self, writer: RedisWriter, first: int, data: bytes) -> None:
        ended = isinstance(writer.taken[-1], TERMINAL)
        writer.acknowledged()
        self.on_commit(writer.id, first, data, ended)
        if ended:
            self._retire(writer)
        elif writer.waiting:
            self.mark(writer)

    def _retire(self, writer: RedisWriter) -> None:
        self._live.pop(writer.id, None)
        self._suspect.pop(writer, None)
        self._marked.pop(writer, None)
        self.on_retired(writer.id)

    async def _compare_all(self) -> None:
        suspects = list(self._suspect)
        for start in range(0, len(suspects), _COMPARED):
            page = suspects[start : start + _COMPARED]
            commands: list[Command] = [("XREVRANGE", writer.key, "+", "-", "COUNT", 1) for writer in page]
            for writer, tops in zip(page, await self._link.exchange(commands), strict=True):
                if isinstance(tops, ResponseError) and "WRONGTYPE" in str(tops):
                    self._lose(writer, [], JournalLost())
                elif isinstance(tops, Exception):
                    raise tops
                else:
                    await self._compare(writer, tops)

    async def _compare(self, writer: RedisWriter, tops: Sequence[Any]) -> None:
        """Make Redis and this process agree on what a log holds; *tops* is its last entry. Raises RedisError."""
        last, top = 0, list[Event]()
        if tops:
            first, top = read_entry(tops[0])
            last = first + len(top) - 1
        else:
            await self._link.asked(*self._beginning(writer))
        ended = bool(top) and isinstance(top[-1], TERMINAL)
        if last > writer.acked:
            newer = await self._newer(writer)
            pending = writer.taken + writer.waiting
            if newer and newer == pending[: len(newer)]:
                # It had arrived, and what was lost is the answer; or it has only now, out of a buffer on the way, while
                # we were sending it again with what had come since.
                if ended:
                    await self._link.asked(*self._expiry(writer))
                pending = writer.taken + writer.waiting  # there may be more by now
                writer.taken, writer.waiting = newer, pending[len(newer) :]
                self._suspect.pop(writer, None)
                self._acknowledge(writer, writer.acked + 1, encode(newer))
                return
            if ended or not writer.given_up:
                self._lose(writer, newer)
                return
            writer.acked = last  # it was given up while that was under way
        if ended:
            self._lose(writer, top[-1:])  # for want of what Redis has lost since
            return
        if last < writer.acked:
            await self._write_again(writer, last)
        writer.refused()
        self._suspect.pop(writer, None)
        if writer.waiting:
            self.mark(writer)

    async def _newer(self, writer: RedisWriter) -> list[Event]:
        """Return what Redis has beyond what it has acknowledged. Raises RedisError."""
        # The entry with the next record may begin before it, if another process wrote it.
        upto = b"%d-0" % (writer.acked + 1)
        [before] = await self._link.asked(("XREVRANGE", writer.key, upto, keys.HEADER, "COUNT", 1))
        start = before[0][0] if before else upto
        [entries] = await self._link.asked(("XRANGE", writer.key, start, "+"))
        newer: list[Event] = []
        for entry in entries:
            first, events = read_entry(entry)
            newer += events[max(0, writer.acked + 1 - first) :]
        return newer

    def _lose(self, writer: RedisWriter, newer: Sequence[Event], error: StreamError | None = None) -> None:
        """Take note that a stream is no longer ours: another process ended it, having taken this one for dead."""
        error = error or (ProducerLost() if newer and isinstance(newer[-1], TERMINAL) else JournalLost())
        told = writer.given_up
        writer.lose(newer if isinstance(error, ProducerLost) else [Failure.of(error)])
        self._retire(writer)
        if not told:
            self.on_lost(writer.id, error)

    async def _write_again(self, writer: RedisWriter, last: int) -> None:
        if writer.given_up:
            # Of what was acknowledged after that, there is no copy; and the end is in the copy, but not acknowledged.
            writer.acked = max(last, min(writer.acked, writer.log.last - 1))
        records = writer.log.records(last, writer.acked)
        commands = [
            codec.append(writer.key, last + 1 + start, encode(records[start : start + _CHUNK]))
            for start in range(0, len(records), _CHUNK)
        ]
        if commands:
            await self._link.asked(*commands)
        self._log.warning("journal.rewritten", stream_id=writer.id, records=len(records))

    def _beginning(self, writer: RedisWriter) -> list[Command]:
        fields = [part for item in writer.header.items() for part in item]
        commands: list[Command] = [("XADD", writer.key, keys.HEADER, *fields), ("EXPIRE", writer.key, self._life)]
        if writer.begun and writer.claim is not None:
            # Whatever lost the log has lost the claim as well.
            commands.append(("SET", writer.claim.key, writer.claim.value, "NX", "EX", self._life))
        writer.begun = True
        return commands

    def _expiry(self, writer: RedisWriter) -> list[Command]:
        kept = [writer.key] if writer.claim is None else [writer.key, writer.claim.key]
        commands: list[Command] = [("EXPIRE", key, self._keep) for key in kept]
        if writer.label is not None:  # it is of no use for a stream that has ended, unlike the key
            commands.append(("EVAL", REMOVE, 1, writer.label.key, writer.label.value))
        return commands
