"""What processes do for one another: they read, count the readers of, stop, and end each other's streams.

A process that wants to read a stream of another process copies its log, says so to the producer, and is sent each batch
once Redis has it. A message may be lost, and the log is not: a gap in the numbers, a new connection, and what the
producer says of its last number at every renewal, make the replica look there. Each renewal repeats which streams have
readers, and which are to end.

A process lives as long as it renews its lease. The streams of a process that is gone are adopted, or else ended, by
those that read them, with the number that the producer would have written next: if it is alive after all, its own next
record is refused. A list of all processes, and one for each of the streams that others can adopt, let any process find
what has no reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from redis.exceptions import RedisError
from structlog.typing import FilteringBoundLogger

from app.errors import JournalDown, Overloaded, StreamError
from app.journal.redis import keys, messages
from app.journal.redis.budgets import RedisBudgets
from app.journal.redis.client import Client, Command
from app.journal.redis.committer import Committer
from app.journal.redis.connection import RedisConnection, is_foreign
from app.journal.redis.messages import Cancel, Following, Message, Positions, Records
from app.journal.redis.outbox import RedisOutbox
from app.journal.redis.registry import RedisRegistry
from app.journal.redis.replicas import Replicas
from app.journal.redis.timing import Timing
from app.journal.redis.writer import Follower, RedisWriter

# Puts a process on the list of those that are there, for so many seconds. Returns some that should have renewed. If
# something else is at the key, or Redis is full, there is no list.
_SIGN = (
    "local now=tonumber(redis.call('TIME')[1]) "
    "redis.pcall('ZADD',KEYS[1],now+ARGV[2],ARGV[1]) "
    "redis.pcall('EXPIRE',KEYS[1],ARGV[3]) "
    "local late=redis.pcall('ZRANGEBYSCORE',KEYS[1],'-inf',now,'LIMIT',0,16) "
    "return late.err and {} or late"
)
# Streams of a dead process that are found at once.
_FOUND_AT_ONCE = 64


class Peers:
    """The other processes, as *process* sees them. It listens over *subscriber*.

    *on_presence* is told that another process has begun to read a stream of ours (1), or that none of its readers is
    left (-1); *on_cancel* that a client of another process wishes a stream's end. *find* opens a stream.
    """

    def __init__(
        self,
        connection: RedisConnection,
        subscriber: Client,
        outbox: RedisOutbox,
        committer: Committer,
        replicas: Replicas,
        registry: RedisRegistry,
        budgets: RedisBudgets,
        on_presence: Callable[[str, int], None],
        on_cancel: Callable[[str], None],
        find: Callable[[str], Awaitable[object]],
        process: str,
        timing: Timing,
        log: FilteringBoundLogger,
    ) -> None:
        self._connection = connection
        self._subscriber = subscriber
        self._outbox = outbox
        self._committer = committer
        self._replicas = replicas
        self._registry = registry
        self._budgets = budgets
        self._on_presence = on_presence
        self._on_cancel = on_cancel
        self._find = find
        self._process = process
        self._timing = timing
        self._log = log
        self._late: set[str] = set()  # processes that should have renewed, by their list
        self._missing: set[str] = set()  # processes whose lease was missing at the last renewal
        self._grace_until = 0.0

    async def listen(self) -> None:
        """Take in what other processes tell, for ever."""
        while True:
            pubsub = self._subscriber.pubsub()
            try:
                await pubsub.subscribe(keys.inbox(self._process))
                while True:
                    # Each renewal publishes something; when nothing comes for so long, the connection is dead.
                    message = await pubsub.get_message(timeout=self._timing.lease)
                    match message:
                        case {"type": "message", "data": bytes(body)}:
                            self._take(body)
                        case {"type": "subscribe"}:
                            self._replicas.announce_all()  # the answers say what was missed until now
                        case None:
                            break
            except (RedisError, OSError) as error:
                self._connection.failed(error)
                await asyncio.sleep(self._timing.renewal_retry)
            finally:
                await pubsub.aclose()  # type: ignore[no-untyped-call]  # untyped in redis-py

    async def acquire_lease(self) -> None:
        """Take our lease. Raises RedisError or OSError."""
        await self._connection.execute(self._lease())

    async def release_lease(self) -> None:
        """Give our lease back, so that no process waits for it to end. Others look for the streams that are left."""
        commands: list[Command] = [("DEL", keys.lease(self._process))]
        if all(writer.noted is None for writer in self._committer.writers):
            commands.append(("ZREM", keys.processes(), self._process))
        with suppress(RedisError, OSError):
            await self._connection.execute(*commands)

    def _lease(self) -> tuple[bytes | str | int, ...]:
        return ("SET", keys.lease(self._process), b"1", "PX", round(self._timing.lease * 1000))

    async def renew_lease(self) -> None:
        """Renew our lease and look after those of the others, for ever."""
        while True:
            pause = self._timing.renewal
            try:
                await self._renew()
                self._connection.answered()
            except (RedisError, OSError) as error:
                self._connection.failed(error)
                self._grant_grace()
                pause = min(pause, self._timing.renewal_retry)
            await asyncio.sleep(pause)

    def _grant_grace(self) -> None:
        """Give all processes the time to renew their leases, and to say again what they follow."""
        self._missing.clear()
        self._grace_until = asyncio.get_running_loop().time() + self._timing.lease

    async def _renew(self) -> None:
        now = asyncio.get_running_loop().time()
        producers = sorted({replica.producer for replica in self._replicas.followed} | self._late)
        commands: list[Command] = [(*self._lease(), "GET"), messages.publish(keys.inbox(self._process)), self._sign()]
        commands += [("EXISTS", keys.lease(process)) for process in producers]
        commands += self._registry.renewals()
        commands += self._budgets.renewals()
        commands += self._committer.renewals(now)
        renewed, _, late, *rest = await self._connection.execute(*commands)
        if vacated := self._registry.vacated():
            await self._connection.execute(*vacated)
        self._late = {process.decode() for process in late}
        await self._budgets.store()
        if renewed is None:  # this process was asleep, or Redis has forgotten the lease
            self._grant_grace()
            self._committer.require_reconcile()
        if now >= self._grace_until:
            missing = {process for process, alive in zip(producers, rest, strict=False) if not alive}
            for process in sorted(missing & self._missing):
                self._log.warning("peer.gone", peer=process)
                found = await self._find_orphans(process)
                await self._replicas.end_orphans(process)
                await self._forget(process, found)
            self._missing = missing
            self._drop_followers(now - self._timing.lease)
        self._replicas.drop_unread()
        self._replicas.announce_all()

    def _sign(self) -> Command:
        return ("EVAL", _SIGN, 1, keys.processes(), self._process, self._timing.lease, self._timing.live)

    async def _find_orphans(self, process: str) -> list[bytes] | None:
        """Follow streams of a dead *process* that can be adopted, and return them; None if there is no room for any.

        Raises RedisError or OSError.
        """
        if self._replicas.draining:
            return None
        [found] = await self._connection.pipeline([("SRANDMEMBER", keys.noted(process), _FOUND_AT_ONCE)])
        if is_foreign(found):
            return []
        if isinstance(found, Exception):
            raise found
        settled = [each for each in found if await self._is_settled(each.decode())]
        return settled if settled or not found else None

    async def _is_settled(self, stream_id: str) -> bool:
        """Open a stream, and return whether it is followed now, or need not be: it has ended, or is gone."""
        try:
            await self._find(stream_id)
        except (Overloaded, JournalDown):
            return False
        except StreamError:
            pass
        return True

    async def _forget(self, process: str, found: list[bytes] | None) -> None:
        """Take off the lists what was *found* of a dead *process*; if that is nothing, the process."""
        if found:
            await self._connection.execute(("SREM", keys.noted(process), *found))
        elif found is not None:
            await self._connection.pipeline([("ZREM", keys.processes(), process)])  # if that is a list

    def _drop_followers(self, before: float) -> None:
        """Count out the followers that were last heard *before*: they are gone, or were not heard when they left."""
        for writer in self._committer.writers:
            silent = [process for process, follower in writer.followers.items() if follower.seen < before]
            for process in silent:
                self._set_follower(writer, process, None)

    def _take(self, body: bytes) -> None:
        try:
            received = messages.read(body)
        except ValueError as error:  # it comes from another version, or from another program
            self._log.error("peer.garbled", reason=str(error)[:100])
            return
        for message in received:
            self._handle(message)

    def _handle(self, message: Message) -> None:
        match message:
            case Records():
                self._replicas.on_records(message)
            case Positions(last):
                for stream_id, number in last.items():
                    self._replicas.on_position(stream_id, number)
            case Following(process, streams):
                self._on_following(process, streams)
            case Cancel(stream_id):
                self._on_cancel(stream_id)

    def _on_following(self, process: str, streams: Mapping[str, bool | None]) -> None:
        for stream_id, reading in streams.items():
            writer = self._committer.writer(stream_id)
            if writer is not None:
                self._set_follower(writer, process, reading)
                if writer.given_up and reading is not None:
                    self._committer.tell_end(writer, process)
        # What was committed until now was told to others. The follower compares, and looks for what it lacks.
        last = {each: self._committer.last(each) for each, reading in streams.items() if reading is not None}
        if last:
            self._outbox.tell(process, messages.pack(Positions(last)))

    def _set_follower(self, writer: RedisWriter, process: str, reading: bool | None) -> None:
        before = writer.followers.pop(process, None)
        if reading is not None:
            writer.followers[process] = Follower(asyncio.get_running_loop().time(), reading)
        was_reading = before is not None and before.reading
        if bool(reading) is not was_reading:
            self._on_presence(writer.id, 1 if reading else -1)
