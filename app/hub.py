"""The lifetimes of streams: opened, attached to, left alone, cancelled, drained.

A stream belongs to the server. Its producer is a task of the hub's; its subscribers are counted here and read the
journal through a cursor of their own. Whoever opened the stream is a subscriber like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from types import TracebackType
from typing import Any

from structlog.typing import FilteringBoundLogger

from app.errors import Draining, Overloaded
from app.journal import Journal
from app.model import Batch, Done, Failure, StreamRequest, Usage, new_stream_id
from app.rechunk import create as create_rechunker
from app.relay import Limits, Relay
from app.upstream import Source


class Stream:
    """One producer of this process and the count of those who read it."""

    __slots__ = ("attached", "id", "log", "peak", "relay", "subscribers", "task")

    def __init__(self, stream_id: str, relay: Relay, log: FilteringBoundLogger) -> None:
        self.id = stream_id
        self.relay = relay
        self.log = log
        self.task: asyncio.Task[None] | None = None
        self.subscribers = 0
        self.attached = 0
        self.peak = 0

    def __repr__(self) -> str:
        return f"<Stream {self.id} {'ended' if self.relay.ended else 'live'}, {self.subscribers} reading>"


class Subscription:
    """One reader of one stream: an async context manager around a cursor over batches of records."""

    __slots__ = ("_cursor", "_hub", "_stream")

    @property
    def stream_id(self) -> str:
        """The id of the stream it reads."""
        return self._stream.id

    def __init__(self, hub: Hub, stream: Stream, cursor: AsyncGenerator[Batch, None]) -> None:
        self._hub = hub
        self._stream = stream
        self._cursor = cursor

    async def __aenter__(self) -> AsyncGenerator[Batch, None]:
        stream = self._stream
        stream.subscribers += 1
        stream.attached += 1
        stream.peak = max(stream.peak, stream.subscribers)
        return self._cursor

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.subscribers -= 1
        if not self._stream.subscribers:
            await self._hub.release(self._stream)
        await self._cursor.aclose()


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

    async def open(self, request: StreamRequest, log: FilteringBoundLogger | None = None) -> Subscription:
        """Start a stream and return the opener's subscription, to be entered at once.

        Raises Overloaded or Draining. Upstream's troubles are no exceptions here: they become the terminal record.
        """
        if self._draining:
            raise Draining(retry_after=1)
        if self.live >= self._max_streams:
            raise Overloaded(retry_after=1)
        stream_id = new_stream_id()
        log = (log or self._log).bind(stream_id=stream_id)
        writer = await self._journal.create(stream_id)
        relay = Relay(self._source, request, create_rechunker(request.chunk), writer, self._limits, log)
        stream = self._streams[stream_id] = Stream(stream_id, relay, log)
        self._idle.clear()
        log.info("stream.opened", model=request.model, chunk=request.chunk, messages=len(request.messages))
        stream.task = asyncio.create_task(self._produce(stream), name=f"stream {stream_id}")
        return Subscription(self, stream, await self._journal.read(stream_id))

    async def release(self, stream: Stream) -> None:
        """Do what is due when *stream* has lost its last subscriber: nobody is waiting for the answer any more."""
        if stream.id in self._streams:
            stream.relay.stop(Done("cancelled"))
        else:
            await self._journal.discard(stream.id)

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
        await self._idle.wait()

    async def _produce(self, stream: Stream) -> None:
        try:
            await stream.relay.run()
        finally:
            del self._streams[stream.id]
            if not self._streams:
                self._idle.set()
            _log_end(stream)
            if not stream.subscribers:
                await self._journal.discard(stream.id)


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
