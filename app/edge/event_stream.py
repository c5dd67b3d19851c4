"""One reader's stream, as an ASGI response.

Strategy: the request's own task sends the records that are in the log already. Once the reader is at the log's end, it
waits, and sends keep-alives. It is not woken for what comes: the producer writes each batch to the client as it appends
it. A second task waits for the client to hang up.

While a stream can still fail with a status, the answer is held back: until the first record, or until the commit
deadline, which the stream's producer keeps.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import cache

from sse_starlette import EventSourceResponse
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.edge.context import request_context
from app.edge.error_responses import UNTRANSFORMED, error_response
from app.edge.pacing import Pacer
from app.edge.transcripts import kilobytes
from app.errors import Draining
from app.events import TERMINAL, Batch, EventId, Failure
from app.hub import Subscription
from app.turns import turn, worked
from app.wire import Encoder, Later
from app.wire.blocks import after as blocks_after

# The extension of ASGI that our server offers: a function that writes a frame of the body at once, or returns False.
WRITE = "chat_sse.write"
# A comment line without the blank line after it: the one form in which no client library sees an event.
COMMENT = b":\n"
# When a reader that is sent away is to come back, in milliseconds: soon, because another process serves it already, and
# spread, because there may be thousands. Its first block there tells it again what to do after a broken connection.
_COME_BACK = (250, 1500)
# The most records that a reader takes out of a log in one step, and the bytes from which on a step is a long one.
_TURN = 1024
_LONG = 256 * 1024


@cache
def _head(kind: type[Encoder]) -> Sequence[tuple[bytes, bytes]]:
    """Return the head of every answer in a dialect, as sse-starlette makes it."""
    response = EventSourceResponse(iter(()), headers={**UNTRANSFORMED, **kind.headers}, ping=0)
    del response.headers["connection"]  # the server sets it
    return response.raw_headers


class StreamResponse(Response):
    """Sends what *encode* makes of a subscription's records.

    A comment goes out when nothing else did for *keep_alive* seconds at most, and for half of that at least. With
    *commit_after*, a stream that fails before its commit deadline is answered with the failure's status; in seconds,
    it is that deadline of a stream which another process produces. With *smooth*, bursts are spread over so many
    seconds.

    A client that comes back has the events up to *after*; *opening* goes out before the rest.

    A reader that the hub dismisses is told so in its dialect, and its body ends as any other does. If its answer has
    not begun, `Draining` is raised.

    sse-starlette makes the answer's head, once for each dialect. Its own way to send takes 15 KB more per reader, and a
    timeout and a log call per frame, and it pings on a fixed beat, so sending is done here.
    """

    status_code = 200

    def __init__(
        self,
        subscription: Subscription,
        encode: Encoder,
        keep_alive: float,
        *,
        after: EventId | None = None,
        opening: bytes = b"",
        smooth: float = 0.0,
        commit_after: float = 0.0,
    ) -> None:
        stream_id = subscription.stream_id.encode()
        self.raw_headers = [
            *_head(type(encode)),
            (b"x-stream-id", stream_id),
            (b"content-location", b"/v1/streams/" + stream_id),
        ]
        subscription.resumable = encode.resumable
        self._subscription = subscription
        self._encoder = encode
        self._encode: Callable[[Batch], bytes] = encode.__call__  # a bound method costs less to call than an object
        self._beat = keep_alive / 2
        self._beat_at = 0.0  # when the next keep-alive is due, in the loop's time
        self._after = after
        self._within = after if after is not None and after.place else None  # the record of which the client has some
        self._opening = opening
        self._smooth = smooth
        self._commit_after = commit_after
        self._write: Callable[[bytes], bool] = _declined
        self._gone: asyncio.Future[None]  # done once the client has hung up
        self._news: asyncio.Future[None]  # what is waited for
        self._unsent: tuple[Batch, bytes] | None = None  # what is encoded, but not with the server yet
        self._whole = False  # whether the body has its end
        self._idle = False  # whether nothing was sent since the last beat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":  # the stream has no reader more
            await self._begin(send)
            await send(_frame(b"", more=False))
            return
        self._write = scope.get("extensions", {}).get(WRITE, _declined)
        self._news = asyncio.get_running_loop().create_future()
        self._gone = asyncio.ensure_future(_hang_up(receive))
        self._gone.add_done_callback(self._wake)
        self._subscription.dismissal.add_done_callback(self._wake)
        try:
            async with self._subscription:
                if not self._commit_after or await self._held_back(scope, receive, send):
                    await self._stream(send)
        finally:
            self._gone.cancel()
            # Else the subscription would lead here and back, and its log stay in memory until a garbage collection.
            self._subscription.dismissal.remove_done_callback(self._wake)

    def _is_over(self) -> bool:
        """Whether nothing more is to be sent: the client has hung up, or the hub has dismissed it."""
        return self._gone.done() or self._subscription.dismissed

    def _wake(self, _: object = None) -> None:
        """End the wait for news."""
        if not self._news.done():
            self._news.set_result(None)

    async def _news_by(self, at: float) -> None:
        """Wait for news until *at*, in the loop's time."""
        loop = asyncio.get_running_loop()
        self._news = loop.create_future()
        timer = None if at == math.inf else loop.call_at(at, self._wake)
        try:
            await self._news
        finally:
            if timer is not None:
                timer.cancel()

    async def _held_back(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Wait until it is known how to answer; return whether that is with a stream. Raises Draining."""
        subscription = self._subscription
        log, after, committed = subscription.log, subscription.after, subscription.committed
        if not (log.last > after or log.ended or self._is_over() or (committed and committed.done())):
            if committed is not None:
                committed.add_done_callback(self._wake)
            log.follow(self._wake)
            try:
                await self._news_by(_now() + self._commit_after if committed is None else math.inf)
            finally:
                log.unfollow(self._wake)
                if committed is not None:
                    committed.remove_done_callback(self._wake)
        if self._gone.done():
            return False
        if subscription.dismissed:
            raise Draining
        first = log.records(after, after + 1) if log.last > after else ()
        if not first or not isinstance(first[0], Failure):
            return True
        subscription.sent = Batch(after + 1, first)
        await error_response(first[0], request_context(scope))(scope, receive, send)
        return False

    async def _stream(self, send: Send) -> None:
        """Send the records, and keep-alives, until the stream ends, the client hangs up, or the hub dismisses it."""
        await self._begin(send)
        self._beat_at = _now() + self._beat
        if not self._gone.done():
            self._subscription.told()
        if self._after is not None:
            await self._resume(send)
        if not self._subscription.records_behind:
            await send(_frame(b""))  # our server holds the head until the first piece of the body; this sends it now
        await (self._send_paced(send) if self._smooth else self._send_all(send))
        if not (self._whole or self._gone.done()):
            await send(_frame(self._last_words(), more=False))

    async def _begin(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

    async def _resume(self, send: Send) -> None:
        """Bring the encoder to where the client is."""
        log = self._subscription.log
        known = self._subscription.after
        skipped = 0
        while self._encoder.stateful and skipped < known:
            batch = log.pending(skipped)
            assert batch is not None  # noqa: S101 - the log has the records that the client has
            batch = Batch(batch.first, batch.events[: known - skipped])
            await turn(len(batch.events))  # the client may be far into a long stream, and one of many that come back
            self._encoder.skip(batch)
            skipped = batch.last
        if self._opening:
            await send(_frame(self._opening))

    def _last_words(self) -> bytes:
        """Return what a dismissed reader has still to be sent; nothing at the end of a stream.

        If the stream's end was sent in the turn of the loop that brought the dismissal, no other end may follow it.
        """
        last = self._subscription.sent
        if not self._subscription.dismissed or (last.events and isinstance(last.events[-1], TERMINAL)):
            return b""
        return self._encoder.dismissal(random.randint(*_COME_BACK))  # noqa: S311 - no secret

    async def _send_all(self, send: Send) -> None:
        """Send what is in the log, one batch after another; at the log's end, have each new batch pushed."""
        log = self._subscription.log
        while not self._is_over():
            if log.last > self._subscription.sent.last:
                await self._send_up_to(log.last, send)
            elif log.ended:
                return
            elif _now() >= self._beat_at:
                await self._keep_alive(send)
            else:
                await self._follow()
                if self._unsent is not None:
                    await self._send(*self._unsent, send)

    async def _send_paced(self, send: Send) -> None:
        """Send what is in the log, and then, spread, what comes."""
        log = self._subscription.log
        pacer = Pacer(self._smooth)
        live = log.last
        at = 0.0  # when the next record leaves

        def come(_: Batch | None) -> None:
            pacer.came(log.last, _now())
            if at == math.inf:
                self._wake()

        log.follow(come)
        try:
            await self._send_up_to(live, send)
            while not self._is_over():
                last, at = pacer.step(self._subscription.sent.last, _now())
                if last > self._subscription.sent.last:
                    await self._send_up_to(last, send)
                elif at == math.inf and log.ended:
                    return
                elif _now() >= self._beat_at:
                    await self._keep_alive(send)
                else:
                    await self._news_by(min(at, self._beat_at))
        finally:
            log.unfollow(come)

    async def _send_up_to(self, last: int, send: Send) -> None:
        """Send the records up to number *last*, one batch after another, until it is over."""
        subscription = self._subscription
        while subscription.sent.last < last and not self._is_over():
            await turn(min(last - subscription.sent.last, _TURN))
            batch = subscription.log.pending(subscription.sent.last, last)
            assert batch is not None  # noqa: S101 - records are never taken out of a log
            await turn(kilobytes(batch.events))
            pieces = self._encoder.pieces(batch)
            if self._within is not None:
                pieces, self._within = blocks_after(pieces, self._within), None
            for data, more in pieces:
                if data or not more:
                    await self._send(subscription.sent if more else batch, data, send)
                if more:
                    await turn(max(1, len(data) >> 10) if data else _TURN)
                    if self._is_over():
                        return

    async def _send(self, batch: Batch, data: bytes, send: Send) -> None:
        if len(data) > _LONG:
            worked(len(data) >> 10)
        log = self._subscription.log
        self._whole = log.ended and batch.last == log.last
        self._unsent = (batch, data)
        await send(_frame(data, more=not self._whole))
        self._unsent = None
        if not self._gone.done():  # a server drops what is sent to a client that has hung up
            self._subscription.sent = batch
            if data:  # a dialect may have no word for the event
                self._idle = False

    async def _follow(self) -> None:
        """Have each batch pushed that is appended until a keep-alive is due, one is refused or the stream has ended."""
        log = self._subscription.log
        log.follow(self._push)
        try:
            await self._news_by(self._beat_at)
        finally:
            log.unfollow(self._push)

    async def _keep_alive(self, send: Send) -> None:
        """Send a comment if nothing else was sent since the last beat."""
        self._beat_at = _now() + self._beat
        if self._idle:
            await send(_frame(COMMENT))
        self._idle = not self._idle  # a comment breaks the silence as well as a record does

    def _push(self, batch: Batch | None) -> None:
        """Write *batch* as it is appended, which wakes no task: half of what a reader costs otherwise.

        This runs in the stream's producer, so no error leaves it, and a client that is behind holds nothing up.
        """
        if self._news.done():
            return  # the sender finds the batch in the log
        if batch is None or self._subscription.log.ended:  # the end may be long in some dialects
            self._wake()  # and now, too
            return
        try:
            data = self._encode(batch)
            written = self._write(data)
        except Later:
            self._wake()
            return
        except Exception as error:  # of any kind: the sender raises it
            self._news.set_exception(error)
            return
        if written:
            self._subscription.sent = batch
            if data:
                self._idle = False
        else:
            self._unsent = (batch, data)
            self._wake()


async def read_whole(subscription: Subscription, receive: Receive) -> None:
    """Read a stream to its end. Raises ClientDisconnect if the client hangs up meanwhile, Draining if it is dismissed.

    A dismissed reader cannot come back for the rest here: its answer has not begun. One that has all of it has no rest.
    """
    subscription.resumable = False
    gone = asyncio.ensure_future(_hang_up(receive))
    try:
        async with subscription as batches:
            reading = asyncio.ensure_future(_read(subscription, batches))
            try:
                await asyncio.wait([reading, gone, subscription.dismissal], return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _stop(reading)
            if reading.cancelled():
                raise ClientDisconnect if gone.done() else Draining
            reading.result()
    finally:
        await _stop(gone)


async def _read(subscription: Subscription, batches: AsyncGenerator[Batch, None]) -> None:
    async for batch in batches:
        await turn(len(batch.events))
        subscription.sent = batch


def _frame(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def _declined(data: bytes) -> bool:
    """Write nothing: this server has no such extension, and gets everything by `send`."""
    return False


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _stop(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))
