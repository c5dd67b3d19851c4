"""The lifetimes of streams: opened, attached to, left alone, cancelled, drained.

A stream belongs to the server. Its producer is a task of the hub's; its subscribers are counted here and read the
journal through a cursor of their own. Whoever opened the stream is a subscriber like any other.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple

from structlog.typing import FilteringBoundLogger

from app.errors import Draining, KeyReused, Overloaded, UnknownStream
from app.journal import Journal, Log
from app.model import Batch, Done, Failure, StreamInfo, StreamRequest, Usage, new_stream_id
from app.rechunk import create as create_rechunker
from app.relay import Limits, Relay
from app.upstream import Source

# A stream that was started without a reader has at least this many seconds to get one, whatever its policy.
FIRST_READER = 10.0
# How long a drain waits for stopped producers to let their upstream connections go.
_LET_GO = 5.0
_CANCELLED = Done("cancelled")
_POLICY = re.compile(r"cancel|continue|grace:(\d{1,6}(?:\.\d{1,3})?)", re.ASCII)


def parse_policy(text: str) -> float:
    """Return how many seconds a stream goes on without a reader: `cancel` 0, `grace:S` S, `continue` infinity.

    Raises ValueError, with a sentence.
    """
    match = _POLICY.fullmatch(text)
    if match is None:
        raise ValueError("is one of: cancel; continue; grace:SECONDS")
    return float(match[1]) if match[1] else 0.0 if text == "cancel" else math.inf


class Stream:
    """One producer of this process, and the count of those who read it."""

    __slots__ = ("attached", "grace", "id", "log", "orphaned", "peak", "relay", "subscribers", "task")

    def __init__(self, stream_id: str, relay: Relay, grace: float, log: FilteringBoundLogger) -> None:
        self.id = stream_id
        self.relay = relay
        self.grace = grace
        self.log = log
        self.task: asyncio.Task[None] | None = None
        self.orphaned: asyncio.TimerHandle | None = None
        self.subscribers = 0
        self.attached = 0
        self.peak = 0

    def __repr__(self) -> str:
        return f"<Stream {self.id} {'ended' if self.relay.ended else 'live'}, {self.subscribers} reading>"

    def cancel(self) -> None:
        """End it as its clients' wish, and abort upstream. Harmless once it has ended."""
        self.relay.stop(_CANCELLED)

    def entered(self) -> None:
        """Count a subscriber in."""
        self.subscribers += 1
        self.attached += 1
        self.peak = max(self.peak, self.subscribers)
        self.claim()

    def left(self) -> None:
        """Count a subscriber out; the last one's leaving starts the grace."""
        self.subscribers -= 1
        if not self.subscribers and self.relay.ended is None:
            self.abandon(self.grace)

    def abandon(self, grace: float) -> None:
        """Let it go on for *grace* seconds without a reader."""
        if grace == 0:
            self.cancel()
        elif grace < math.inf:
            self.orphaned = asyncio.get_running_loop().call_later(grace, self._orphan)

    def claim(self) -> None:
        """Forget the grace: there is a reader, or an end."""
        if self.orphaned is not None:
            self.orphaned.cancel()
            self.orphaned = None

    def _orphan(self) -> None:
        self.orphaned = None
        self.log.info("stream.orphaned", grace=self.grace)
        self.cancel()


class Subscription:
    """One reader of one stream: an async context manager around a cursor over batches of records."""

    __slots__ = ("_cursor", "_stream", "after", "log", "stream_id")

    def __init__(self, stream_id: str, log: Log, stream: Stream | None, after: int) -> None:
        self.stream_id = stream_id
        self.log = log
        self.after = after
        self._stream = stream
        self._cursor = log.read(after)

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing left to read, now or ever."""
        return self.log.ended and self.after >= self.log.last

    async def __aenter__(self) -> AsyncGenerator[Batch, None]:
        if self._stream is not None:
            self._stream.entered()
        return self._cursor

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.left()
        await self._cursor.aclose()


class Key(NamedTuple):
    """An idempotency key, and what stands for the body that came with it."""

    name: str
    fingerprint: bytes


class _Claim(NamedTuple):
    fingerprint: bytes
    stream_id: str


class Hub:
    """All streams that this process produces. *max_streams* bounds the live ones."""

    def __init__(
        self, journal: Journal, source: Source, limits: Limits, max_streams: int, log: FilteringBoundLogger
    ) -> None:
        self._journal = journal
        self._source = source
        self._limits = limits
        self._max_streams = max_streams
        self._log = log
        self._streams: dict[str, Stream] = {}
        self._claims: dict[str, _Claim] = {}
        self._key_of: dict[str, str] = {}
        self.evictions: Counter[str] = Counter()  # by reason
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        reading = sum(stream.subscribers for stream in self._streams.values())
        return f"<Hub {'open' if self.ready else 'draining'}, {self.live} live, {reading} reading>"

    @property
    def ready(self) -> bool:
        """Whether new streams are taken."""
        return not self._draining

    @property
    def live(self) -> int:
        """How many producers are running."""
        return len(self._streams)

    async def open(
        self, request: StreamRequest, key: Key | None = None, log: FilteringBoundLogger | None = None
    ) -> str:
        """Start a stream and return its id; or the id of the one that was started with the same *key*.

        Raises Overloaded, Draining or KeyReused. Upstream's troubles are no exceptions here: they become the terminal
        record. A stream that nobody attaches to within its grace is cancelled.
        """
        if key is not None and (known := self._claimed(key)) is not None:
            return known
        if self._draining:
            raise Draining(retry_after=1)
        if self.live >= self._max_streams:
            raise Overloaded(retry_after=1)
        stream_id = new_stream_id()
        if key is not None:
            self._claims[key.name] = _Claim(key.fingerprint, stream_id)
            self._key_of[stream_id] = key.name
        try:
            writer = await self._journal.create(stream_id, StreamInfo(request.chunk))
        except BaseException:
            self._forget(stream_id)
            raise
        log = (log or self._log).bind(stream_id=stream_id)
        relay = Relay(self._source, request, create_rechunker(request.chunk), writer, self._limits, log)
        stream = self._streams[stream_id] = Stream(stream_id, relay, request.grace, log)
        self._idle.clear()
        stream.task = asyncio.create_task(self._produce(stream), name=f"stream {stream_id}")
        stream.abandon(max(FIRST_READER, request.grace))
        log.info("stream.opened", model=request.model, chunk=request.chunk, messages=len(request.messages))
        return stream_id

    async def attach(self, stream_id: str, after: int = 0) -> Subscription:
        """Return a subscription to the records after number *after*. Raises UnknownStream."""
        log = await self._journal.open(stream_id)
        if after > log.last:
            raise UnknownStream  # a record that this stream never had
        return Subscription(stream_id, log, self._streams.get(stream_id), after)

    async def cancel(self, stream_id: str) -> Log:
        """End a stream, if it has not ended, and return its log. Raises UnknownStream."""
        log = await self._journal.open(stream_id)
        stream = self._streams.get(stream_id)
        if stream is not None and stream.task is not None:
            stream.cancel()
            await asyncio.wait([stream.task], timeout=1)
        return log

    async def log_of(self, stream_id: str) -> Log:
        """Return a stream's log. Raises UnknownStream."""
        return await self._journal.open(stream_id)

    def evicted(self, stream_id: str, reason: str) -> None:
        """Take note that the journal no longer keeps a stream: its time is up, or there was no room for it."""
        self._forget(stream_id)
        self.evictions[reason] += 1
        # That time is up is in the order of things; that there was no room is not.
        write = self._log.debug if reason == "time" else self._log.warning
        write("journal.evicted", stream_id=stream_id, reason=reason, so_far=self.evictions[reason])

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

    def _claimed(self, key: Key) -> str | None:
        claim = self._claims.get(key.name)
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
            if not self._streams:
                self._idle.set()
            if stream.relay.first_token_ms is None:
                self._forget(stream.id)  # nothing was answered, and nothing paid for: the same key may try again
            _log_end(stream)


def _log_end(stream: Stream) -> None:
    """Write the canonical line of *stream*: all there is to know of it but its content."""
    relay, trace = stream.relay, stream.relay.trace
    facts: dict[str, Any] = {
        "deltas": relay.deltas,
        "output_bytes": relay.output_bytes,
        "first_token_ms": relay.first_token_ms,
        "duration_ms": relay.duration_ms,
        "upstream_status": trace.status,
        "upstream_attempts": trace.attempts,
        "upstream_request_id": trace.request_id,
        "upstream_model": trace.model,
        "cut_after_finish": trace.cut_after_finish,
        "replaced_bytes": trace.replaced_bytes,
        "subscribers_peak": stream.peak,
        "subscribers_total": stream.attached,
    }
    match relay.ended:
        case Done(finish_reason=reason, usage=usage):
            stream.log.info("stream.finished", reason=reason, **_usage(usage), **facts)
        case Failure(code=code, usage=usage):
            stream.log.warning("stream.failed", reason=code, **_usage(usage), **facts)


def _usage(usage: Usage | None) -> dict[str, Any]:
    if usage is None:
        return {}
    fields = usage.fields
    return {
        "prompt_tokens": fields.get("prompt_tokens"),
        "completion_tokens": fields.get("completion_tokens"),
        "usage_estimated": usage.estimated,
    }
