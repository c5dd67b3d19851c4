"""The lifetimes of streams: opened, attached to, left alone, cancelled, drained.

A stream belongs to the server. Its producer is a task of the hub's; its subscribers are counted here and read the
journal through a cursor of their own. Whoever opened the stream is a subscriber like any other.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from structlog.typing import FilteringBoundLogger

from app.errors import Draining, KeyReused, Overloaded, StreamError, TooManyReaders, TooManyStreams, UnknownStream
from app.hub.stream import Stream, count_end, log_end, parse_policy
from app.hub.subscription import Subscription
from app.journal import Journal, Log
from app.meter import Meter
from app.model import ANYONE, Allowance, Principal, StreamInfo, StreamRequest, new_stream_id
from app.rechunk import create as create_rechunker
from app.relay import Limits, Relay
from app.upstream import Source

__all__ = ["FIRST_READER", "Capacity", "Hub", "Key", "Observer", "Stream", "Subscription", "parse_policy"]

# A stream that was started without a reader has at least this many seconds to get one, whatever its policy.
FIRST_READER = 10.0
# How long a drain waits for stopped producers to let their upstream connections go.
_LET_GO = 5.0


class Observer(Protocol):
    """Who is told of every stream that this process produces. Neither may raise."""

    def opened(self, stream_id: str, request: StreamRequest) -> str:
        """Take note of a new stream. Return the traceparent that goes upstream, or "" to leave the request's."""
        ...

    async def ended(self, stream: Stream) -> None:
        """Take note of its end: its relay and the trace of that say how."""
        ...


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many may be live or attached at once in one process, whoever's they are."""

    streams: int = 2000
    readers: int = 10_000


class Key(NamedTuple):
    """An idempotency key, and what stands for the body that came with it."""

    name: str
    fingerprint: bytes


class _Claim(NamedTuple):
    fingerprint: bytes
    stream_id: str


class Hub:
    """All streams that this process produces, and all readers that it serves.

    A principal sees its own streams only: another's is unknown to it.
    """

    def __init__(
        self,
        journal: Journal,
        source: Source,
        limits: Limits,
        capacity: Capacity,
        meter: Meter,
        log: FilteringBoundLogger,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._journal = journal
        self._source = source
        self._limits = limits
        self._capacity = capacity
        self._meter = meter
        self._log = log
        self._observers = observers
        self._streams: dict[str, Stream] = {}
        self._streams_of: Counter[str] = Counter()  # live ones, by owner
        self._readers: set[Subscription] = set()
        self._readers_of: Counter[str] = Counter()
        self._claims: dict[tuple[str, str], _Claim] = {}
        self._key_of: dict[str, tuple[str, str]] = {}
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"<Hub {'open' if self.ready else 'draining'}, {self.live} live, {self.reading} reading>"

    @property
    def ready(self) -> bool:
        """Whether new streams are taken."""
        return not self._draining

    @property
    def live(self) -> int:
        """How many producers are running."""
        return len(self._streams)

    @property
    def reading(self) -> int:
        """How many readers are attached, to live streams and to ended ones."""
        return len(self._readers)

    @property
    def lag(self) -> int:
        """How many records the slowest reader is behind."""
        return max((reader.lag for reader in self._readers), default=0)

    async def open(
        self,
        request: StreamRequest,
        principal: Principal = ANYONE,
        key: Key | None = None,
        log: FilteringBoundLogger | None = None,
        refusal: StreamError | None = None,
    ) -> str:
        """Start a stream and return its id; or the id of the one that was started with the same *key*.

        Raises *refusal*, if there is one, rather than start anything. Raises Overloaded, Draining, TooManyStreams or
        KeyReused. Upstream's troubles are no exceptions here: they
        become the terminal record. A stream that nobody attaches to within its grace is cancelled.
        """
        owner = principal.name
        if key is not None and (known := self._claimed(owner, key)) is not None:
            return known
        if refusal is not None:
            raise refusal
        if self._draining:
            raise Draining(retry_after=1)
        if self._streams_of.total() >= self._capacity.streams:
            raise Overloaded(retry_after=1)
        if 0 < principal.allowance.streams <= self._streams_of[owner]:
            raise TooManyStreams
        stream_id = new_stream_id()
        if key is not None:
            self._claims[owner, key.name] = _Claim(key.fingerprint, stream_id)
            self._key_of[stream_id] = owner, key.name
        self._streams_of[owner] += 1
        try:
            writer = await self._journal.create(
                stream_id, StreamInfo(request.chunk, owner, principal.allowance.readers)
            )
        except BaseException:
            self._forget(stream_id)
            _count_out(self._streams_of, owner)
            raise
        for observer in self._observers:
            request = replace(request, traceparent=observer.opened(stream_id, request) or request.traceparent)
        log = (log or self._log).bind(stream_id=stream_id)
        rechunker = create_rechunker(request.chunk)
        relay = Relay(self._source, request, rechunker, writer, self._limits, self._meter, log)
        stream = self._streams[stream_id] = Stream(stream_id, owner, request, relay, log)
        self._idle.clear()
        stream.task = asyncio.create_task(self._produce(stream), name=f"stream {stream_id}")
        stream.abandon(max(FIRST_READER, request.grace))
        log.info("stream.opened", model=request.model, chunk=request.chunk, messages=len(request.messages))
        return stream_id

    async def attach(self, stream_id: str, principal: Principal = ANYONE, after: int = 0) -> Subscription:
        """Return a subscription to the records after number *after*. Raises UnknownStream or TooManyReaders."""
        log = await self.log_of(stream_id, principal)
        if after > log.last:
            raise UnknownStream  # a record that this stream never had
        if principal.stream_id:
            # Whoever has its ticket reads on the owner's account.
            principal = Principal(log.info.owner, Allowance(readers=log.info.readers))
        self.admit(principal)
        return Subscription(self, stream_id, log, self._streams.get(stream_id), after, principal)

    def admit(self, principal: Principal) -> None:
        """Raise TooManyReaders or Overloaded unless *principal* may attach one reader more."""
        if len(self._readers) >= self._capacity.readers:
            raise Overloaded(retry_after=1)
        if 0 < principal.allowance.readers <= self._readers_of[principal.name]:
            raise TooManyReaders

    async def cancel(self, stream_id: str, principal: Principal = ANYONE) -> Log:
        """End a stream, if it has not ended, and return its log. Raises UnknownStream."""
        log = await self.log_of(stream_id, principal)
        stream = self._streams.get(stream_id)
        if stream is not None and stream.task is not None:
            stream.cancel()
            await asyncio.wait([stream.task], timeout=1)
        return log

    async def log_of(self, stream_id: str, principal: Principal = ANYONE) -> Log:
        """Return a stream's log. Raises UnknownStream, also if it is another principal's."""
        log = await self._journal.open(stream_id)
        if principal.stream_id != stream_id and (principal.stream_id or principal.name != log.info.owner):
            raise UnknownStream
        return log

    def entered(self, reader: Subscription) -> None:
        """Count a reader in."""
        self._readers.add(reader)
        self._readers_of[reader.principal.name] += 1
        self._meter.attached += 1
        self._meter.resumed += reader.after > 0

    def left(self, reader: Subscription) -> None:
        """Count a reader out."""
        self._readers.discard(reader)
        _count_out(self._readers_of, reader.principal.name)

    def evicted(self, stream_id: str, reason: str) -> None:
        """Take note that the journal no longer keeps a stream: its time is up, or there was no room for it."""
        self._forget(stream_id)
        evicted = self._meter.evicted
        evicted[reason] += 1
        # That time is up is in the order of things; that there was no room is not.
        write = self._log.debug if reason == "time" else self._log.warning
        write("journal.evicted", stream_id=stream_id, reason=reason, so_far=evicted[reason])

    def _forget(self, stream_id: str) -> None:
        """Release a stream's idempotency key."""
        key = self._key_of.pop(stream_id, None)
        if key is not None:
            del self._claims[key]

    async def drain(self, grace: float) -> None:
        """Take no new streams, give the live ones *grace* seconds to finish, then end the rest with Draining."""
        if not self._draining:
            self._draining = True
            self._log.info("hub.draining", live=self.live, grace=grace)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._idle.wait()
        for stream in list(self._streams.values()):
            stream.relay.stop(Draining())
        with suppress(TimeoutError):  # each has its terminal record by now; what may take longer is upstream's socket
            async with asyncio.timeout(_LET_GO):
                await self._idle.wait()

    def _claimed(self, owner: str, key: Key) -> str | None:
        claim = self._claims.get((owner, key.name))
        if claim is None:
            return None
        if claim.fingerprint != key.fingerprint:
            raise KeyReused
        return claim.stream_id

    async def _produce(self, stream: Stream) -> None:
        try:
            await stream.relay.run()
        finally:
            stream.claim()
            del self._streams[stream.id]
            _count_out(self._streams_of, stream.owner)
            if stream.relay.first_token_ms is None:
                self._forget(stream.id)  # nothing was answered, and nothing paid for: the same key may try again
            log_end(stream)
            count_end(stream, self._meter)
            try:
                for observer in self._observers:
                    await observer.ended(stream)
            finally:
                if not self._streams:
                    self._idle.set()


def _count_out(counts: Counter[str], name: str) -> None:
    """Take one from *name*, and *name* out with the last one: there is no end to names."""
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
