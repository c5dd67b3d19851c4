"""One HTTP/1.1 request and its response, as an asyncio protocol over the C parser that uvicorn uses.

It is made for answers that come in many small pieces. A read of the socket costs one call of the parser and one future,
about a third of what aiohttp's protocol and StreamReader take. And it reads on demand: while two reads lie here that
nobody took, the rest waits in the kernel, which joins it for nothing, and bounds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import httpx
from httptools import HttpParserError, HttpResponseParser

# A head is at most this many bytes; and so is all else that is not a body, between two pieces of one or after the last.
_MOST_OVERHEAD = 64 * 1024
_MOST_FIELDS = 256
# A request's body goes to the socket in pieces of this many bytes, each when there is room for it.
_SLICE = 64 * 1024


class _Refused(Exception):
    """A response that may be HTTP, and is not taken. Raised in the parser's callbacks, to stop the parser."""


class Exchange(asyncio.Protocol, httpx.AsyncByteStream):
    """One request and its response, on a connection that is its own meanwhile. One task sends and reads.

    *leave* is called at its end, with the connection if that is fit for another exchange, else with None.

    The attributes that begin with `on_` are the parser's callbacks. It calls those that exist, and each costs: a piece
    of the body goes right into the list.
    """

    def __init__(self, method: str, leave: Callable[[Exchange, asyncio.Transport | None], None]) -> None:
        self.status = 0  # until the head of the final response is here
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self._bodiless = method == "HEAD"
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        self._connection: asyncio.Transport | None = None
        self._pieces: list[bytes] = []  # what arrived of the body and was not read
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False  # reading
        self._resumption: asyncio.TimerHandle | None = None
        self._blocked = False  # writing
        self._complete = False
        self._keep_alive = False
        self._broken: type[httpx.TransportError] = httpx.WriteError  # what it is if the connection breaks
        self._failure: tuple[type[httpx.TransportError], str] | None = None
        self._head = 0  # bytes of this head's fields so far
        self._overhead = 0  # bytes that came since a piece of the body was read
        self.on_body = self._pieces.append
        self._parser = HttpResponseParser(self)
        # As much as aiohttp takes. The first is for folded headers.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._feed: Callable[[bytes], None] = self._parser.feed_data

    async def send(self, connection: asyncio.Transport, head: bytes, content: bytes) -> None:
        """Send what `encoded` made of a request, and return when the head of the response is here.

        A server may answer before it has read everything. If it refuses, the rest is for nobody. Else the rest is
        handed over at once, because there is only one task here, and it is to read.

        Raises httpx.TransportError.
        """
        first = content[: max(0, _SLICE - len(head))]
        connection.write(head + first)
        rest = memoryview(content)[len(first) :]
        while rest and not self._settled:
            if self._blocked:
                await self._change()
            else:
                connection.write(rest[:_SLICE])
                rest = rest[_SLICE:]
        if rest and self.status < 300:
            connection.write(rest)
        elif rest:
            self._keep_alive = False
        self._broken = httpx.ReadError
        while not self._settled:
            await self._change()
        if not self.status:
            self._check()

    async def read(self, pause: float | None = None) -> bytes:
        """Return all that has arrived of the body, or wait for some; b"" at its end. Raises httpx.TransportError.

        With a *pause* (seconds) the kernel alone takes what comes meanwhile: one read for all of it, and one waking.
        """
        if pause and not (self._pieces or self._complete or self._failure):
            self._pause()
            self._resumption = self._loop.call_later(pause, self._resume)
        elif self._paused:
            await self._catch_up()
        pieces = self._pieces
        while not pieces:
            if self._complete:
                return b""
            if self._failure is not None:
                self._check()
            waiter = self._waiter = self._loop.create_future()
            await waiter
        self._overhead = 0
        data = b"".join(pieces)  # of one piece, it is that piece
        pieces.clear()
        return data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.read():
            yield data

    async def aclose(self) -> None:
        """Give the connection back if the response is complete and the server keeps it open; else abort it, at once."""
        connection = self._connection
        if connection is not None and self._complete and self._keep_alive and not connection.is_closing():
            self._resume()
            if not connection.get_write_buffer_size():
                self._connection = None
                self._leave(self, connection)
                return
        self.abort()

    def abort(self) -> None:
        """Close the connection, if there is one, without ado."""
        self._end(httpx.ReadError, "The response was closed.")
        self._leave(self, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        pieces = self._pieces
        if pieces:
            self._pause()
        try:
            self._feed(data)
        except HttpParserError as error:
            self._end(httpx.RemoteProtocolError, str(error.__context__ or error))
        if not pieces:
            self._overhead += len(data)
            if self._overhead > _MOST_OVERHEAD:
                self._end(httpx.RemoteProtocolError, "Too much that is not a body.")
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def eof_received(self) -> None:
        self.connection_lost(None)  # left alone, asyncio would first send all that is still to be sent

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and self.status and self._failure is None and not self._delimited():
            self._complete = True  # as far as anyone can tell (H14)
        self._end(self._broken, "The server closed the connection early.")

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self._wake()

    def on_message_begin(self) -> None:
        if self._complete:
            raise _Refused("More than one response.")

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            return  # a trailer, which nobody may take for a header (RFC 9110, 6.5.1)
        self._head += len(name) + len(value)
        if len(self.headers) >= _MOST_FIELDS or self._head > _MOST_OVERHEAD or b"\0" in value:
            raise _Refused("A head beyond reason.")
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 100 or status == 101:
            raise _Refused("A status that was not asked for.")
        if status < 200:
            self.headers.clear()
            self.reason, self._head = b"", 0
            return
        self.status = status
        self._keep_alive = self._parser.should_keep_alive()
        if self._bodiless:
            self._complete = True
            raise _Refused("The parser cannot be told that no body comes.")

    def on_message_complete(self) -> None:
        if self.status:
            self._complete = True

    @property
    def _settled(self) -> bool:
        return self.status != 0 or self._failure is not None

    def _delimited(self) -> bool:
        """Whether the head says how long the body is; if not, the connection's end is its end (RFC 9112, 6.3)."""
        coding = b",".join(value for name, value in self.headers if name.lower() == b"transfer-encoding")
        if coding:
            return coding.rpartition(b",")[2].strip().lower() == b"chunked"
        return any(name.lower() == b"content-length" for name, _ in self.headers)

    def _end(self, kind: type[httpx.TransportError], reason: str) -> None:
        """Close the connection, and say why where the response is not complete. What came of it can still be read."""
        if not self._complete and self._failure is None:
            self._failure = kind, reason
        self._keep_alive = self._paused = False
        if self._resumption is not None:
            self._resumption.cancel()
        if self._connection is not None:
            self._connection.abort()
        self._wake()

    def _check(self) -> None:
        if self._failure is not None:
            kind, reason = self._failure
            raise kind(reason)

    async def _change(self) -> None:
        """Wait until something has happened."""
        self._waiter = self._loop.create_future()
        await self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _pause(self) -> None:
        if not self._paused and not self._complete and self._connection is not None:
            self._paused = True
            self._connection.pause_reading()

    def _resume(self) -> None:
        if self._paused and self._connection is not None:
            self._paused = False
            self._connection.resume_reading()

    async def _catch_up(self) -> None:
        """Read on, and let the loop look once for what the kernel has, so that it comes with what lies here.

        uvloop calls back while it looks, asyncio in its next turn.
        """
        here = len(self._pieces)
        self._resume()
        for _ in range(2):
            await asyncio.sleep(0)
            if len(self._pieces) > here:
                break


def encoded(request: httpx.Request) -> tuple[bytes, bytes]:
    """Return the bytes of a request whose content is read: its head and, framed as that says, its content.

    httpx asks for chunks where it did not know the length. Raises httpx.LocalProtocolError if a header would break its
    line.
    """
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b" % header for header in request.headers.raw]
    head = b"\r\n".join(lines)
    if not head.count(b"\r") == head.count(b"\n") == len(lines) - 1 or b"\0" in head:
        raise httpx.LocalProtocolError("A header of the request holds a line end.")
    content = request.content
    if "transfer-encoding" in request.headers:
        content = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content) if content else b"0\r\n\r\n"
    return head + b"\r\n\r\n", content
