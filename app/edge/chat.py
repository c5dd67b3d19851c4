"""Streams over HTTP: opening one and reading it.

The answer's status is held back until the stream's first batch of records: if that is a failure, it is an HTTP error.
The relay sees to it that the first record comes within the commit deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import AppStatus
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from app.edge.guard import error_response
from app.edge.requests import parse_chat, read_json
from app.hub import Hub, Subscription
from app.model import TERMINAL, Batch, Failure
from app.wire import Encoder
from app.wire.events import EventEncoder

# Importing sse-starlette hooks it into uvicorn's signal handler, where it would cut every stream half a second after
# SIGTERM. The hub drains instead.
AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]  # its signature lacks "-> None"


@dataclass(frozen=True, slots=True)
class Options:
    """What the settings say about requests and answers."""

    default_model: str
    default_chunk: str
    max_body: int
    keep_alive: float
    reconnect_ms: int


class Chat:
    """The endpoints of the native dialect."""

    def __init__(self, hub: Hub, options: Options) -> None:
        self._hub = hub
        self._options = options

    async def open(self, request: Request) -> Response:
        """`POST /v1/chat`: start a stream and answer with it."""
        options, log = self._options, request.state.log
        body = await read_json(request, options.max_body)
        asked = parse_chat(body, default_model=options.default_model, default_chunk=options.default_chunk)
        subscription = await self._hub.open(asked, log)
        encoder = EventEncoder(subscription.stream_id, options.reconnect_ms)
        return StreamResponse(subscription, encoder, options.keep_alive, request.state.request_id, log)


class _KeepAlive(ServerSentEvent):
    """A comment line without the blank line: the one form in which no client library sees an event."""

    def __init__(self, line: bytes) -> None:
        super().__init__()
        self._line = line

    def encode(self) -> bytes:
        return self._line


_COMMENT = _KeepAlive(b":\n")
_NOTHING = _KeepAlive(b"")


class StreamResponse(EventSourceResponse):
    """One subscriber's reading of a stream, as sse-starlette's response over ready-made bytes.

    The library pings on a fixed beat whatever else is sent. So it is asked to ping twice per *keep_alive* interval, and
    given nothing to send, which the server skips, unless no frame went out since the last beat.
    """

    def __init__(
        self,
        subscription: Subscription,
        encoder: Encoder,
        keep_alive: float,
        request_id: str,
        log: FilteringBoundLogger,
    ) -> None:
        stream_id = subscription.stream_id
        super().__init__(
            self._frames(),
            headers={
                "Cache-Control": "no-store, no-transform",
                "X-Content-Type-Options": "nosniff",
                "X-Stream-Id": stream_id,
                "Content-Location": f"/v1/streams/{stream_id}",
            },
            ping=keep_alive / 2,
            ping_message_factory=self._beat,
            sep="\n",
        )
        self._subscription = subscription
        self._encoder = encoder
        self._request_id = request_id
        self._log = log.bind(stream_id=stream_id)
        self._batches: AsyncGenerator[Batch, None]
        self._sent = Batch(1, ())
        self._silent = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._log.info("subscriber.attached")
        try:
            async with self._subscription as self._batches:
                first = await _unless_gone(self._batches, receive)
                if first is None:
                    return
                self._sent = first
                if isinstance(first.events[0], Failure):
                    await error_response(first.events[0], self._request_id)(scope, receive, send)
                else:
                    await super().__call__(scope, receive, send)
        finally:
            whole = bool(self._sent.events) and isinstance(self._sent.events[-1], TERMINAL)
            self._log.info("subscriber.detached", last_record=self._sent.last, whole=whole)

    async def _frames(self) -> AsyncGenerator[bytes, None]:
        encode = self._encoder
        yield encode(self._sent)
        async for batch in self._batches:
            yield encode(batch)
            self._sent = batch
            self._silent = False

    def _beat(self) -> ServerSentEvent:
        silent, self._silent = self._silent, True
        return _COMMENT if silent else _NOTHING


async def _unless_gone(batches: AsyncGenerator[Batch, None], receive: Receive) -> Batch | None:
    """Return the first batch, or None if the client hangs up before there is one."""
    first = asyncio.ensure_future(anext(batches))
    gone = asyncio.ensure_future(_hang_up(receive))
    try:
        await asyncio.wait((first, gone), return_when=asyncio.FIRST_COMPLETED)
        return first.result() if first.done() else None
    finally:
        first.cancel()
        gone.cancel()
        await asyncio.wait((first, gone))


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
