"""Reading what other processes write, and what processes tell one another for that.

A process has one inbox, a channel, whatever the number of its streams and readers. Who wants to read a stream of
another process copies its log, says so to the producer, and is sent each batch once Redis has it. A channel may lose
messages and the log does not: a gap in the numbers, a new connection, and what the producer says of its own last number
at every beat of the clock, make the copy look there. What is told of readers is told anew with every beat, too.

A process lives as long as it renews its lease. The streams of one that is gone are ended by whoever reads them, with
the number that the producer would have written next: should it be alive after all, its own next record is refused.

Messages, each a line: `t PROCESS (STREAM 0|1)*` that process follows these streams, without readers or with;
`u PROCESS STREAM` it no longer does; `o (STREAM LAST)*` so many records these have; `d STREAM FIRST DATA` records;
`c STREAM` it is to be cancelled; `p` the inbox works.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NamedTuple, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog.typing import FilteringBoundLogger

from app.errors import StreamError
from app.journal.redis import keys
from app.journal.redis.cluster import Cluster
from app.journal.redis.codec import split
from app.journal.redis.committer import Committer
from app.journal.redis.connection import Command, Link
from app.journal.redis.registry import RedisRegistry
from app.journal.redis.replicas import Copies, Copy

# Seconds between two beats, and for which a lease is good. A process counts as gone when its lease was not there twice
# in a row; but not until everybody has had the time to renew, after Redis was away or has lost leases.
BEAT = 2.0
LEASE = 10.0
_RETRY = 0.5


class Owner(Protocol):
    """Who owns the streams of this process, and is told what others want of them."""

    @property
    def draining(self) -> bool:
        """Whether the process is shutting down."""
        ...

    def presence(self, stream_id: str, change: int) -> None:
        """Another process has begun to read the stream (1), or none of its readers is left (-1)."""
        ...

    def stop(self, stream_id: str, error: StreamError | None) -> None:
        """Cancel the stream, as its client wishes; or end it with *error*, because it is no longer ours to write."""
        ...


class Follower(NamedTuple):
    """A process that follows a stream of ours: when it last said so, and whether it has readers."""

    seen: float
    reading: bool


class Peers:
    """The other processes, as this one, *process*, sees them. Its `owner` is to be set before it is used."""

    def __init__(
        self,
        ears: Redis | Cluster,
        link: Link,
        committer: Committer,
        registry: RedisRegistry,
        copies: Copies,
        process: str,
        log: FilteringBoundLogger,
    ) -> None:
        self._ears = ears
        self._link = link
        self._committer = committer
        self._registry = registry
        self._copies = copies
        self._process = process
        self._log = log
        self.owner: Owner
        self._followers: dict[str, dict[str, Follower]] = {}  # by stream of ours, by process
        self._missing: set[str] = set()  # processes whose lease was not there at the last beat
        self._lenient_until = 0.0
        committer.on_commit = self._forward
        committer.on_retired = self._retired
        copies.on_change = self._changed

    def __repr__(self) -> str:
        return f"<Peers of {self._process}: {len(self._followers)} of its streams followed>"

    def stop(self, stream_id: str) -> None:
        """Ask the producer of a stream that we follow to cancel it."""
        copy = self._copies.get(stream_id)
        if copy is not None:
            self._tell(copy.producer, b"c %b" % stream_id.encode())

    async def listen(self) -> None:
        """Take in what others tell, for ever."""
        while True:
            pubsub = self._ears.pubsub()
            try:
                await pubsub.subscribe(keys.inbox(self._process))
                while True:
                    # Each beat says something; where nothing is heard for so long, the connection is dead.
                    message = await pubsub.get_message(timeout=LEASE)
                    match message:
                        case {"type": "message", "data": bytes(data)}:
                            for each in split(data):
                                self._take(each)
                        case {"type": "subscribe"}:
                            self._follow_all()  # what was told meanwhile is lost
                        case None:
                            break
            except (RedisError, OSError) as error:
                self._link.failed(error)
                await asyncio.sleep(_RETRY)
            finally:
                await pubsub.aclose()  # type: ignore[no-untyped-call]  # untyped in redis-py

    async def beat(self) -> None:
        """Renew our lease and look after everybody else's, for ever."""
        while True:
            pause = BEAT
            try:
                await self._beat()
                self._link.answered()
            except (RedisError, OSError) as error:
                self._link.failed(error)
                self._excuse()
                pause = min(BEAT, _RETRY)
            await asyncio.sleep(pause)

    async def greet(self) -> None:
        """Take our lease. Raises RedisError or OSError."""
        await self._link.asked(("SET", keys.lease(self._process), b"1", "PX", round(LEASE * 1000)))

    async def leave(self) -> None:
        """Give our lease back, so that nobody waits for us."""
        with suppress(RedisError, OSError):
            await self._link.asked(("DEL", keys.lease(self._process)))

    def _excuse(self) -> None:
        """Give everybody the time to renew, and to say again what they follow."""
        self._missing.clear()
        self._lenient_until = asyncio.get_running_loop().time() + LEASE

    async def _beat(self) -> None:
        now = asyncio.get_running_loop().time()
        others = sorted({copy.producer for copy in self._copies.followed})
        commands: list[Command] = [
            ("SET", keys.lease(self._process), b"1", "PX", round(LEASE * 1000), "GET"),
            ("PUBLISH", keys.inbox(self._process), b"p"),
        ]
        commands += [("EXISTS", keys.lease(process)) for process in others]
        commands += [*self._registry.renewals(), *self._committer.renewals(now)]
        renewed, _, *rest = await self._link.asked(*commands)
        if renewed is None:  # this process was asleep, or Redis has forgotten
            self._excuse()
            self._committer.doubt()
        missing = {process for process, alive in zip(others, rest, strict=False) if not alive}
        if now >= self._lenient_until:
            for process in sorted(missing & self._missing):
                self._log.warning("peer.gone", peer=process)
                await self._copies.bury(process)
            self._missing = missing
            self._forget(now - LEASE)
        self._copies.drop_idle()
        self._follow_all()

    def _forget(self, before: float) -> None:
        """Count out who has not said for long that it follows a stream: it is gone, or was not heard when it left."""
        for stream_id, followers in list(self._followers.items()):
            for process, follower in list(followers.items()):
                if follower.seen < before:
                    self._left(stream_id, process)

    def _follow_all(self) -> None:
        """Say what we follow, each producer its own."""
        told: dict[str, list[bytes]] = {}
        for copy in self._copies.followed:
            told.setdefault(copy.producer, []).append(b" %b %d" % (copy.id.encode(), copy.reading > 0))
        for producer, streams in told.items():
            self._tell(producer, b"t %b%b" % (self._process.encode(), b"".join(streams)))

    def _changed(self, copy: Copy) -> None:
        """Tell the producer that we follow a stream, and whether it has readers here; or that we do not."""
        if self.owner.draining:  # readers that were sent away are on their way to another process
            return
        names = self._process.encode(), copy.id.encode()
        if self._copies.get(copy.id) is copy:
            self._tell(copy.producer, b"t %b %b %d" % (*names, copy.reading > 0))
        else:
            self._tell(copy.producer, b"u %b %b" % names)

    def _take(self, message: bytes) -> None:
        kind, _, rest = message.partition(b" ")
        try:
            if kind == b"d":
                name, first, data = rest.split(b" ", 2)
                self._copies.told(name.decode(), int(first), data)
            elif kind == b"o":
                words = rest.split(b" ")
                for name, last in zip(words[::2], words[1::2], strict=True):
                    self._copies.compare(name.decode(), int(last))
            elif kind == b"t":
                process, *words = rest.split(b" ")
                self._joined(process.decode(), list(zip(words[::2], words[1::2], strict=True)))
            elif kind == b"u":
                process, name = rest.split(b" ")
                self._left(name.decode(), process.decode())
            elif kind == b"c":
                self.owner.stop(rest.decode(), None)
        except ValueError:  # from a process of another version
            self._log.error("peer.garbled", kind=kind[:1].decode("ascii", "replace"))

    def _joined(self, process: str, streams: list[tuple[bytes, bytes]]) -> None:
        now = asyncio.get_running_loop().time()
        answers = []
        for name, reading in streams:
            stream_id = name.decode()
            writer = self._committer.writer(stream_id)
            if writer is not None:
                followers = self._followers.setdefault(stream_id, {})
                before = followers.get(process)
                follower = followers[process] = Follower(now, reading == b"1")
                was = before is not None and before.reading
                if follower.reading is not was:
                    self.owner.presence(stream_id, 1 if follower.reading else -1)
            # What we have committed until now was told to others; this one compares, and looks for what it lacks.
            answers.append(b" %b %d" % (name, self._committer.last(stream_id)))
        self._tell(process, b"o%b" % b"".join(answers))

    def _left(self, stream_id: str, process: str) -> None:
        followers = self._followers.get(stream_id, {})
        follower = followers.pop(process, None)
        if follower is not None:
            if not followers:
                del self._followers[stream_id]
            if follower.reading:
                self.owner.presence(stream_id, -1)

    def _forward(self, stream_id: str, first: int, data: bytes, ended: bool) -> None:
        """Tell who reads the stream elsewhere what was committed."""
        followers = self._followers.get(stream_id)
        if followers:
            message = b"d %b %d %b" % (stream_id.encode(), first, data)
            for process in followers:
                self._tell(process, message)

    def _retired(self, stream_id: str) -> None:
        self._followers.pop(stream_id, None)
        self._registry.retired(stream_id)

    def _tell(self, process: str, message: bytes) -> None:
        self._committer.tell(keys.inbox(process), message)
