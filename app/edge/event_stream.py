"""One subscriber's reading of a stream, as an ASGI response.

Where the answer's status may still be a failure's, it is held back until the stream's first batch of records, or until
the commit deadline.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import AppStatus
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from app.edge.context import request_context
from app.edge.error_responses import UNTRANSFORMED, error_response
from app.edge.pacing import smoothed
from app.errors import Draining
from app.events import TERMINAL, Batch, Failure
from app.hub import Subscription
from app.journal import Sink
from app.wire import Encoder

# Importing sse-starlette hooks it into uvicorn's signal handler, where it would cut every stream half a second after
# SIGTERM. The hub drains instead.
AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]  # its signature lacks "-> None"


class _KeepAlive(ServerSentEvent):
    """A comment line without the blank line: the one form in which no client library sees an event."""

    def __init__(self, line: bytes) -> None:
        super().__init__()
        self._line = line

    def encode(self) -> bytes:
        return self._line


Batches = AsyncGenerator[Batch, None]

# The extension of ASGI that our server offers: a function that writes a frame of the body at once, or returns False.
WRITE = "chat_sse.write"
_COMMENT = _KeepAlive(b":\n")
_NOTHING = _KeepAlive(b"")
# Milliseconds after which a reader that is sent away comes back: soon, for there is somebody who serves it, and spread,
# for there may be thousands. What it was told for connections that break it is told again then.
_COME_BACK = 250, 1500


def _declined(data: bytes) -> bool:
    """Write nothing: the server has no such extension, and gets everything by `send`."""
    return False


class StreamResponse(EventSourceResponse):
    """sse-starlette's response over ready-made bytes.

    The library pings on a fixed beat whatever else is sent. So it is asked to ping twice per *keep_alive* interval, and
    given nothing to send, which the server skips, unless no frame went out since the last beat.

    A stream that fails within *hold* seconds, before it starts, is answered with the failure's status. *smooth* spreads
    bursts over so many seconds.

    A reader that the hub dismisses is told so in its dialect, and its body ends as any other does; one whose answer has
    not begun gets 503.
    """

    def __init__(
        self,
        subscription: Subscription,
        encoder: Encoder,
        keep_alive: float,
        request: Request,
        *,
        smooth: float = 0.0,
        hold: float = 0.0,
    ) -> None:
        stream_id = subscription.stream_id
        super().__init__(
            iter(()),  # `_send_batches` has its own
            headers={
                **UNTRANSFORMED,
                "X-Stream-Id": stream_id,
                "Content-Location": f"/v1/streams/{stream_id}",
                **encoder.headers,
            },
            ping=keep_alive / 2,
            ping_message_factory=self._beat,
            sep="\n",
        )
        del self.headers["connection"]  # the server's to say, and a second value where it says close
        subscription.resumable = encoder.resumable
        self._subscription = subscription
        self._encode = encoder.__call__  # a method of Python's costs less than an object to call
        self._dismissal = encoder.dismissal
        self._smooth = smooth
        self._hold = hold
        self._context = request_context(request.scope)
        self._log = self._context.log.bind(stream_id=stream_id)
        self._send_body: Send
        self._write: Callable[[bytes], bool] = request.scope.get("extensions", {}).get(WRITE, _declined)
        self._news: asyncio.Future[None]
        self._refused: Batch | None = None  # what the server did not take
        self._unsent = b""  # what was encoded, and is not with the server yet
        self._silent = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        subscription = self._subscription
        try:
            async with subscription as batches:
                self._log.info("subscriber.attached", after=subscription.after)
                if self._hold:
                    await self._hold_back(batches, scope, receive, send)
                else:
                    await self._stream(batches, receive, send)
        finally:
            sent = subscription.sent
            whole = bool(sent.events) and isinstance(sent.events[-1], TERMINAL)
            sent_away = {"dismissed": True} if subscription.dismissed else {}
            self._log.info("subscriber.detached", last_record=sent.last, whole=whole, **sent_away)

    async def _hold_back(self, batches: Batches, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer once it is known how, or has waited long enough; not at all if the client hangs up meanwhile."""
        subscription = self._subscription
        first = asyncio.ensure_future(self._first())
        subscription.on_dismiss = first.cancel
        try:
            if not await unless_gone(first, receive, self._hold):
                return
        finally:
            first.cancel()
            await asyncio.wait((first,))
        if subscription.dismissed:
            raise Draining(retry_after=1)
        batch = subscription.log.pending(subscription.after)
        if batch is not None and isinstance(failure := batch.events[0], Failure):
            subscription.sent = batch
            await error_response(failure, self._context)(scope, receive, send)
        else:
            await self._stream(batches, receive, send)

    async def _first(self) -> None:
        """Wait until there is a record to send."""
        if self._subscription.log.pending(self._subscription.after) is None:
            await self._follow(self._wake)

    async def _stream(self, batches: Batches, receive: Receive, send: Send) -> None:
        """Send the stream, beside the library's watch for a client that hangs up and its keep-alives.

        Its own way takes two tasks more, one of them to watch for a shutdown that is the hub's business here; and per
        frame a cancel scope for a send timeout that is not set (the listener's TCP_USER_TIMEOUT does that) and a debug
        line: without these two, 48 instead of 62 µs of CPU per delta in all.
        """
        subscription = self._subscription
        self._send_body = send
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with anyio.create_task_group() as group:

            async def until_gone() -> None:
                await self._listen_for_disconnect(receive)
                group.cancel_scope.cancel()

            group.start_soon(until_gone)
            group.start_soon(self._ping, send)
            # What is cut off by this was not sent at all: a send waits first, and then writes the whole of its frame.
            # So it goes before the last words, since the encoder takes it for said.
            subscription.on_dismiss = group.cancel_scope.cancel
            if not subscription.dismissed:
                await (self._send_smoothed(batches) if self._smooth else self._send_batches())
            group.cancel_scope.cancel()
        if self.active:
            self.active = False
            retry_ms = random.randint(*_COME_BACK)  # noqa: S311 - no secret
            last_words = self._unsent + self._dismissal(retry_ms) if subscription.dismissed else b""
            await send({"type": "http.response.body", "body": last_words, "more_body": False})

    async def _send_batches(self) -> None:
        """Send what is in the log, one batch after another; at its end, have each new one pushed."""
        subscription, log = self._subscription, self._subscription.log
        while self.active:
            batch = log.pending(subscription.sent.last)
            if batch is not None:
                await self._send(batch, self._encode(batch))
            elif log.ended:
                return
            else:
                await self._follow(self._push)
                if self._refused is not None:
                    batch, self._refused = self._refused, None
                    await self._send(batch, self._unsent)

    async def _send_smoothed(self, batches: Batches) -> None:
        async with aclosing(smoothed(batches, self._smooth)) as spread:
            async for batch in spread:
                await self._send(batch, self._encode(batch))
                if not self.active:
                    return

    async def _send(self, batch: Batch, data: bytes) -> None:
        self._unsent = data
        await self._send_body({"type": "http.response.body", "body": data, "more_body": True})
        self._unsent = b""
        if self.active:  # else the client has hung up: the server takes what is sent now, and drops it
            self._subscription.sent = batch
            self._silent = self._silent and not data

    async def _follow(self, sink: Sink) -> None:
        """Have *sink* given what is appended from now on, until it says by `_news` that there is something to do."""
        log = self._subscription.log
        self._news = asyncio.get_running_loop().create_future()
        log.follow(sink)
        try:
            await self._news
        finally:
            log.unfollow(sink)

    def _wake(self, batch: Batch) -> None:
        if not self._news.done():
            self._news.set_result(None)

    def _push(self, batch: Batch) -> None:
        """Write *batch* as it is appended, which wakes no task: half of what a reader costs otherwise.

        Runs in the stream's producer, to which it is nothing if this fails, or if this client takes no more for now.
        """
        if self._news.done():
            return  # what is not written here is in the log
        try:
            data = self._encode(batch)
            written = self._write(data)
        except Exception as error:
            self._news.set_exception(error)
            return
        if written:
            self._subscription.sent = batch
            self._silent = self._silent and not data  # a dialect may have no word for it
        else:
            self._refused, self._unsent = batch, data
        if not written or self._subscription.log.ended:
            self._news.set_result(None)

    def _beat(self) -> ServerSentEvent:
        silent = self._silent
        self._silent = not silent  # a comment breaks the silence as well as a frame does
        return _COMMENT if silent else _NOTHING


async def unless_gone(future: asyncio.Future[Any], receive: Receive, seconds: float | None = None) -> bool:
    """Wait until *future* is done, but at most *seconds*; return False if the client hangs up before."""
    gone = asyncio.ensure_future(_hang_up(receive))
    try:
        await asyncio.wait((future, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return future.done() or not gone.done()
    finally:
        gone.cancel()
        await asyncio.wait((gone,))


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
