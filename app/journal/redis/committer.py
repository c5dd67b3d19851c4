"""Writing: the new records of all streams of a process, in one pipeline.

A writer takes records without waiting. The committer sends what all writers have, and what comes meanwhile with the
next pipeline. Only what Redis has acknowledged becomes readable. So a busy process, or one with a slow Redis, sends
fewer and larger pipelines, and a record takes no task.

The id of an entry is the number of its first record, and Redis refuses an id that is not above the last one. If two
processes believe that a stream is theirs, the second to write a number is refused: a producer that was taken for dead
cannot write after the end that another process wrote for it, or after another process has adopted the stream.

After Redis was away, what it has of each live stream is compared with what it had acknowledged, and what is missing is
written again, header and all. This process has all of it until the stream has ended, and for a while longer, because a
Redis that crashed, or failed over to a replica, may have lost the end of a stream, too.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from redis.exceptions import RedisError
from structlog.typing import FilteringBoundLogger

from app.errors import InternalError, JournalDown, JournalLost, ProducerLost, StreamError
from app.events import TERMINAL, Event, Failure
from app.journal.encoding import encode
from app.journal.redis import entries, keys, messages, notes
from app.journal.redis.client import Command
from app.journal.redis.connection import Reconnected, RecordConnection, RedisConnection, Unanswered, is_foreign
from app.journal.redis.ended import Ended
from app.journal.redis.entries import Tail, entries_after, read_tail
from app.journal.redis.kept import Kept
from app.journal.redis.lifetimes import Lifetimes
from app.journal.redis.outbox import RedisOutbox
from app.journal.redis.reconcile import Adopted, Agreed, Arrived, Behind, Ours, TakenOver, reconcile
from app.journal.redis.registry import RedisRegistry, removal
from app.journal.redis.rewriter import Rewriter
from app.journal.redis.timing import Timing
from app.journal.redis.writer import RedisWriter
from app.turns import ROOM

# About how many bytes an entry takes in Redis besides its data.
_ENTRY = 32
# Logs that are compared in one pipeline.
_COMPARED_AT_ONCE = 256
# Seconds between two looks whether all was sent, at the end of the process.
_LOOK = 0.002


class Committer:
    """Sends what is in *outbox*: the records over *records*, and the messages with them.

    *keep* is how many seconds an ended log stays in Redis. *on_lost* is told which stream this process may not write
    any more, and why; *on_left* which one another process goes on with, or may go on with.
    """

    def __init__(
        self,
        connection: RedisConnection,
        records: RecordConnection,
        outbox: RedisOutbox,
        registry: RedisRegistry,
        kept: Kept,
        on_lost: Callable[[str, StreamError], None],
        on_left: Callable[[str], None],
        keep: int,
        timing: Timing,
        log: FilteringBoundLogger,
    ) -> None:
        self._connection = connection
        self._records = records
        self._outbox = outbox
        self._registry = registry
        self._kept = kept
        self._on_lost = on_lost
        self._on_left = on_left
        self._keep = keep
        self._lifetimes = Lifetimes(timing.live, keep, timing.label)
        self._rewriter = Rewriter(connection, self._lifetimes, log)
        self._timing = timing
        self._log = log
        self._live: dict[str, RedisWriter] = {}
        self._expected: set[str] = set()
        self._unreconciled: dict[RedisWriter, None] = {}
        self._ended = Ended(timing.ended_nearby)
        self._failures = 0
        self._losses = 0  # how often Redis may have lost something
        self._restored = 0  # after how many of these times the ends of streams were compared
        self._sending = False
        self._renewed_at = 0.0

    def __repr__(self) -> str:
        return f"<Committer {len(self._live)} live, {len(self._unreconciled)} to be compared>"

    @property
    def writers(self) -> list[RedisWriter]:
        """The writers of this process's live streams."""
        return [*self._live.values()]

    def writer(self, stream_id: str) -> RedisWriter | None:
        """Return the writer of a live stream of this process."""
        return self._live.get(stream_id)

    def last(self, stream_id: str) -> int:
        """Return the number of the last record that Redis has of a live stream of ours; -1 if there is none."""
        writer = self._live.get(stream_id)
        if writer is None and self._restored != self._losses:
            writer = self._ended.get(stream_id)  # its end may have to be written again
        if writer is not None:
            return writer.acked
        return 0 if stream_id in self._expected else -1

    async def create(self, writer: RedisWriter) -> None:
        """Begin a log in Redis, which its labels stand for from then on. Raises JournalDown.

        Redis may have begun the log although its answer was lost, or not waited for. A request with the same
        idempotency key may then read it, so the log gets an end as soon as Redis is back.
        """
        try:
            with self.expecting(writer.id):
                await self._begin(writer)
            self._live[writer.id] = writer
        except (Unanswered, asyncio.CancelledError) as error:
            # No upstream was asked. So its claim goes when it ends, as a label does: the same key may be used again.
            if writer.claim is not None:
                writer.labels.append(writer.claim)
                writer.claim = None
            self._live[writer.id] = writer
            self._end(writer, error if isinstance(error, Unanswered) else InternalError())
            raise

    @contextmanager
    def expecting(self, stream_id: str) -> Iterator[None]:
        """Say in the block that a stream is ours: others may see so in Redis before this process has its answer."""
        self._expected.add(stream_id)
        try:
            yield
        finally:
            self._expected.discard(stream_id)

    async def _begin(self, writer: RedisWriter) -> None:
        commands = self._lifetimes.begin(writer)
        if writer.claim is None:
            await self._connection.request(*commands)
            return
        # If claiming took too long, another request has taken the key over, and the stream is that one's to begin.
        *_, claimed = await self._connection.request(*commands, ("GET", writer.claim.key))
        if claimed != writer.claim.value:
            await self._connection.request(("DEL", writer.key), *map(removal, writer.labels))
            raise JournalDown

    def adopt(self, writer: RedisWriter) -> None:
        """Go on with a stream of another process: see first what Redis has of it."""
        self._live[writer.id] = writer
        self._unreconciled[writer] = None
        self._renewed_at = -math.inf  # its claim may be near its end
        self._outbox.wake.set()

    def renewals(self, now: float) -> list[Command]:
        """Return the commands that keep live logs and their claims; none if they were returned shortly before *now*."""
        self._ended.prune(now)
        if now - self._renewed_at < self._timing.live / 4:
            return []
        self._renewed_at = now
        return self._lifetimes.renewals(self.writers)

    def removed(self, stream_id: str) -> None:
        """Keep no copy of a stream that was deleted, and write nothing more of it."""
        self._ended.remove(stream_id)
        if stream_id in self._live:  # it was given up, and Redis has not taken its end
            self._retire(self._live[stream_id])

    async def flushed(self) -> None:
        """Wait until all that was appended is in Redis, and told; not while Redis is away."""
        while not self._connection.away and self._busy():  # noqa: ASYNC110 - once in a process's life
            await asyncio.sleep(_LOOK)

    def _busy(self) -> bool:
        unsent = any(writer.waiting or writer.taken for writer in self.writers)
        return self._sending or unsent or not self._outbox.empty

    def require_reconcile(self) -> None:
        """Compare what Redis has of every live stream before anything more is sent; what was told may be lost."""
        self._outbox.take_messages()
        self._unreconciled.update(dict.fromkeys(self.writers))
        self._losses += 1
        self._outbox.wake.set()

    def give_up(self) -> None:
        """End all live streams, because Redis has been away too long."""
        for writer in self.writers:
            self._end(writer, JournalDown())

    def give_up_waiting(self, since: float) -> None:
        """End the live streams that have a record which Redis was to acknowledge *since* that time or longer."""
        for writer in self.writers:
            if writer.unacknowledged_since <= since:
                self._end(writer, JournalDown())

    def _end(self, writer: RedisWriter, error: StreamError) -> None:
        if not writer.given_up:
            writer.give_up(Failure.of(error))
            self._outbox.mark(writer.id)
            for process in writer.followers:
                self.tell_end(writer, process)
            if writer.noted is not None and self._connection.away:
                self._on_left(writer.id)  # another process, for which Redis is there, may have adopted it
            else:
                self._on_lost(writer.id, error)

    def tell_end(self, writer: RedisWriter, process: str) -> None:
        """Tell another *process* that its readers are to end as ours have: Redis may not take the end for a while."""
        last = writer.log.last
        self._outbox.tell(process, messages.pack_records(writer.id, last, encode(writer.log.records(last - 1, last))))

    async def run(self) -> None:
        """Send, for ever. Raises nothing that Redis may do."""
        pause = self._timing.first_pause
        while True:
            await self._outbox.wake.wait()
            # What other streams append in this turn of the loop shares the pipeline. To wait for longer (uvloop's
            # shortest timer is 1 ms) would save up to an eighth of the processor time at 200 streams and none at 20,
            # and add nearly 2 ms to each record, and more than 3 ms where it is read in another process.
            await asyncio.sleep(0)
            self._outbox.wake.clear()
            self._sending = True
            try:
                if self._failures != self._connection.failures:
                    self._failures = self._connection.failures
                    self.require_reconcile()
                await self._reconcile_all()
                if self._restored != self._losses:
                    await self._restore_ends()
                if await self._send():
                    self._connection.answered()
                pause = self._timing.first_pause
            except Reconnected:
                self._records.trust()
                self.require_reconcile()
            except (RedisError, OSError) as error:
                self._connection.failed(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, self._timing.last_pause)
            finally:
                self._sending = False

    async def _send(self) -> bool:
        """Send what waits, and return whether anything did. Raises RedisError, OSError or Reconnected."""
        told = self._outbox.take_messages()
        commands: list[Command] = [messages.publish(keys.inbox(process), each) for process, each in told.items()]
        sent: list[tuple[RedisWriter, int, bytes]] = []
        expiries: list[Command] = []
        late: dict[RedisWriter, list[Command]] = {}  # the same for streams that another process may have adopted
        room = ROOM  # after an outage, each of many streams has some hundred records: more than the loop has time for
        for stream_id in self._outbox.take_streams():
            if room <= 0:
                self._outbox.mark(stream_id)
                continue
            writer = self._live.get(stream_id)
            if writer is not None and writer.note_due:
                writer.note_due = False
                commands += notes.put(writer, self._timing.live)
            if writer is None or not writer.waiting:
                continue
            room -= len(writer.waiting) + writer.waiting_size // 1024
            first, events = writer.take()
            try:
                data = encode(events)
            except TypeError:  # an upstream's usage may be nested deeper than JSON is written
                self._end(writer, InternalError())
                writer.put_back()
                continue
            sent.append((writer, first, data))
            if isinstance(end := events[-1], TERMINAL):
                ending = self._lifetimes.end(writer, first + len(events) - 1, end)
                if writer.noted is None:
                    expiries += ending
                else:
                    late[writer] = ending
        appends = [entries.append(writer.key, first, data, writer.epoch) for writer, first, data in sent]
        if not commands and not appends:
            return False
        replies = await self._records.send([*commands, *appends, *expiries])
        refusal: Exception | None = None
        ended: list[tuple[RedisWriter, int, bytes]] = []
        for (writer, first, data), reply in zip(sent, replies[len(commands) :], strict=False):
            if isinstance(reply, bytes):
                if writer in late:
                    ended.append((writer, first, data))
                else:
                    self._acknowledge(writer, first, data)
            elif entries.is_taken(reply):
                self._unreconciled[writer] = None
                self._outbox.wake.set()
            elif is_foreign(reply):
                self._lose(writer, JournalLost())
            else:
                refusal = refusal or reply
        if ended:
            # Until this has come through, their writers are live: if it fails, it is done by `_arrived`.
            await self._connection.execute(*(command for writer, *_ in ended for command in late[writer]))
            for writer, first, data in ended:
                self._acknowledge(writer, first, data)
        if refusal is not None:
            raise refusal
        return True

    def _acknowledge(self, writer: RedisWriter, first: int, data: bytes) -> None:
        """Make readable what was sent: here, and in the processes that follow the stream."""
        ended = isinstance(writer.taken[-1], TERMINAL)
        writer.stored += len(data) + _ENTRY
        writer.acknowledge()
        if writer.followers:
            message = messages.pack_records(writer.id, first, data)
            for process in writer.followers:
                self._outbox.tell(process, message)
        if ended:
            info = writer.log.info
            self._kept.ended(info.owner, writer.id, writer.stored, entries.seconds_kept(info, self._keep))
            self._retire(writer)
            if not writer.given_up:
                self._ended.add(writer, asyncio.get_running_loop().time())
        elif writer.waiting:
            self._outbox.mark(writer.id)

    def _retire(self, writer: RedisWriter) -> None:
        self._live.pop(writer.id, None)
        self._unreconciled.pop(writer, None)
        self._registry.retire(writer.id)

    async def _restore_ends(self) -> None:
        """Write again what Redis has lost of streams that have ended. Raises RedisError or OSError.

        A log that is gone as a whole stays so, because its owner may have deleted it.
        """
        losses = self._losses  # there may be more while this waits for Redis
        writers = self._ended.writers
        for start in range(0, len(writers), _COMPARED_AT_ONCE):
            page = writers[start : start + _COMPARED_AT_ONCE]
            for writer, found in zip(page, await self._last_entries(page), strict=True):
                if is_foreign(found) or self._ended.get(writer.id) is None:
                    continue
                if isinstance(found, Exception):
                    raise found
                await self._restore_end(writer, found)
        self._restored = losses

    async def _restore_end(self, writer: RedisWriter, found: Sequence[Any]) -> None:
        """Write the records again that come after the last entry, *found*, of an ended log."""
        try:
            tail = read_tail(found, writer.acked)
        except ValueError:
            return  # the entry is not this service's
        [end] = writer.log.records(writer.acked - 1, writer.acked)
        lost = tail.last < writer.acked and tail.ending is None and tail.epoch <= writer.epoch
        if found and lost and isinstance(end, TERMINAL):
            await self._rewriter.write_again(writer, tail)
            await self._connection.execute(*self._lifetimes.end(writer, writer.acked, end))

    async def _last_entries(self, writers: Sequence[RedisWriter]) -> list[Any]:
        """Return what Redis has as the last entry of each log, refusals among them. Raises RedisError or OSError."""
        return await self._connection.pipeline([("XREVRANGE", it.key, "+", "-", "COUNT", 1) for it in writers])

    async def _reconcile_all(self) -> None:
        while page := [*islice(self._unreconciled, _COMPARED_AT_ONCE)]:
            for writer in page:  # before this waits for Redis, which may lose something more meanwhile
                del self._unreconciled[writer]
            for writer, last in zip(page, await self._last_entries(page), strict=True):
                if is_foreign(last):
                    self._lose(writer, JournalLost())
                elif isinstance(last, Exception):
                    raise last
                else:
                    try:
                        await self._reconcile(writer, last)
                    except ValueError:  # the entries are not this service's
                        self._lose(writer, JournalLost())

    async def _reconcile(self, writer: RedisWriter, last: Sequence[Any]) -> None:
        """Make Redis and this process agree on what a log holds; *last* is its last entry.

        Raises RedisError, OSError, or ValueError for an entry that is not ours.
        """
        theirs = await self._theirs(writer, last)
        pending = writer.taken + writer.waiting
        ours = Ours(writer.acked, pending, writer.given_up, writer.epoch, writer.claimed)
        match reconcile(ours, theirs):
            case Arrived(events):
                await self._arrived(writer, events)
                return
            case TakenOver(events) if events and isinstance(events[-1], TERMINAL):
                self._lose(writer, ProducerLost(), events)
                return
            case TakenOver() if writer.noted is None:
                self._lose(writer, JournalLost())
                return
            case TakenOver():
                self._leave(writer, [Failure.of(JournalLost())])
                return
            case Adopted():
                self._leave(writer)
                return
            case Behind() if writer.id in self._live:  # otherwise it was deleted
                await self._rewriter.write_again(writer, theirs)
            case Agreed(acked):
                writer.acked = acked
        writer.put_back()
        writer.note_due = writer.noted is not None
        if writer.waiting or writer.note_due:
            self._outbox.mark(writer.id)

    async def _theirs(self, writer: RedisWriter, last: Sequence[Any]) -> Tail | None:
        """Return the tail of a log after what is acknowledged. The *last* entry alone nearly always says it."""
        if not last:
            return None
        tail = read_tail(last, writer.acked)
        return await entries_after(self._connection.execute, writer.key, writer.acked) if tail.gap else tail

    async def _arrived(self, writer: RedisWriter, events: Sequence[Event]) -> None:
        """Take *events* for acknowledged.

        They had arrived before the connection broke. Or they arrived late, out of a buffer on the way, while they were
        sent again together with later ones.
        """
        if isinstance(end := events[-1], TERMINAL):
            await self._connection.execute(*self._lifetimes.end(writer, writer.acked + len(events), end))
        writer.arrived(events)
        self._acknowledge(writer, writer.acked + 1, encode(events))

    def _lose(self, writer: RedisWriter, error: StreamError, events: Sequence[Event] = ()) -> None:
        """Note that a stream is no longer ours. It ends with what another process wrote, *events*, or with *error*."""
        known = writer.given_up
        writer.lose(events or [Failure.of(error)])
        self._retire(writer)
        if not known:
            self._on_lost(writer.id, error)

    def _leave(self, writer: RedisWriter, events: Sequence[Event] = ()) -> None:
        """Leave a stream to another process, which goes on with it. Here it ends with *events*, if there are any."""
        writer.lose(events)
        self._retire(writer)
        self._log.warning("journal.fenced", stream_id=writer.id, records=writer.acked)
        self._on_left(writer.id)
