"""One HTTP/1.1 request and its response, as an asyncio protocol over the C parser that uvicorn uses.

It is made for answers that come in many small pieces: a read of the socket costs one call of the parser and one future.
It reads on demand: once two reads of the socket lie here untaken, the kernel keeps the rest, which bounds and joins it.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from enum import Enum, auto
from itertools import chain, repeat
from typing import cast

import httpx
from httptools import HttpParserError, HttpResponseParser

from app.errors import Disconnected, Malformed, Unreachable, UpstreamError
from app.upstream.http.proxies import authorization

# The most bytes of a head, and of everything else that is not a body: between two pieces of one, or after the last.
_MOST_OVERHEAD = 64 * 1024
_MOST_FIELDS = 256
# A request's body goes to the socket in pieces of this many bytes, each when there is room for it.
_SLICE = 64 * 1024
# The most bytes that are taken from the kernel after a write has failed.
_MOST_LEFT = 1 << 20
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"(?i)(?:\A|(?<=\n))content-length:([^\r\n]*)\r?\n")


class _Refused(Exception):
    """Raised in the parser's callbacks to stop the parser: the response may be HTTP, but it is not accepted."""


class _Phase(Enum):
    """How much of the final response has arrived."""

    HEAD = auto()  # its head is not complete
    BODY = auto()  # its head is complete, its body is not
    COMPLETE = auto()
    BROKEN = auto()  # no more will arrive, but what arrived before can still be read


# Looked up in its class, each costs 0.1 µs on CPython 3.11.
_HEAD = _Phase.HEAD
_BODY = _Phase.BODY
_COMPLETE = _Phase.COMPLETE
_BROKEN = _Phase.BROKEN


class Exchange(asyncio.Protocol, httpx.AsyncByteStream):
    """One request and its response, on a connection that it has to itself. One task sends and reads.

    *release* is called at the end, with the connection if another exchange can use it, else with None. *completed_at*
    is the loop's time when the response was complete.

    The attributes that begin with `on_` are the parser's callbacks. It calls those that exist, and each costs: a piece
    of the body goes straight into the list.
    """

    def __init__(self, method: str, release: Callable[[Exchange, asyncio.Transport | None], None]) -> None:
        self.status = 0  # until the head of the final response is here
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.completed_at = 0.0
        self._phase: _Phase = _HEAD
        self._malformed = False  # whether that is what broke the response
        self._bodiless = method == "HEAD"
        self._reusable = False  # whether the connection can serve another exchange once this one is complete
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._connection: asyncio.Transport | None = None
        self._pieces: list[bytes] = []  # what arrived of the body and was not read
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False  # reading
        self._resumption: asyncio.TimerHandle | None = None
        self._blocked = False  # writing
        self._head_bytes = 0  # of the head that is arriving
        self._overhead = 0  # bytes that arrived since a piece of the body was read
        self.on_body = self._pieces.append
        self._parser = self._new_parser()
        self._raw_head = b""  # what has arrived, until the head is complete
        self._feed: Callable[[bytes], None] = self._feed_head

    async def send(self, head: bytes, content: bytes) -> None:
        """Send what `encoded` made of a request, and return when the head of the response is here.

        A server may answer before it has read everything. If it refuses, the rest is not sent. Otherwise the rest is
        handed over at once, because the only task here has to read. Raises UpstreamError.
        """
        connection = self._connection
        assert connection is not None  # noqa: S101 - the pool connects first
        first = content[: max(0, _SLICE - len(head))]
        connection.write(head + first)
        rest = memoryview(content)[len(first) :]
        while rest and self._phase is _HEAD:
            if self._blocked:
                await self._change()
            else:
                await _look()  # an early answer may be here: reading it comes before writing
                if self._phase is _HEAD:
                    connection.write(rest[:_SLICE])
                    rest = rest[_SLICE:]
        if rest and self.status >= 300:
            self._reusable = False
        elif rest and self.status:
            connection.write(rest)
        while self._phase is _HEAD:
            await self._change()
        if not self.status:
            raise self._error()

    async def read(self, pause: float | None = None, until: float | None = None) -> bytes:
        """Return all that has arrived of the body, or wait for some; b"" at its end. Raises UpstreamError.

        With a *pause* (seconds) the kernel alone collects what comes meanwhile: one read and one waking for all of it.
        Raises TimeoutError if nothing has come *until* a time of the loop's.
        """
        if pause and not self._pieces and self._phase is _BODY:
            self._pause()
            self._resumption = self._loop.call_later(pause, self._resume)
        elif self._paused:
            await self._catch_up()
        pieces = self._pieces
        while not pieces:
            if self._phase is _COMPLETE:
                return b""
            if self._phase is _BROKEN:
                raise self._error()
            waiter = self._waiter = self._loop.create_future()
            if until is None:
                await waiter
            else:
                await _by(until, waiter)
        self._overhead = 0
        data = b"".join(pieces)  # of one piece, it is that piece
        pieces.clear()
        return data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.read():
            yield data

    async def aclose(self) -> None:
        """Return the connection if the response is complete and the server keeps it open. Otherwise abort it."""
        connection = self._connection
        if connection is not None and self._phase is _COMPLETE and self._reusable and not connection.is_closing():
            self._resume()
            if not connection.get_write_buffer_size():
                self._connection = None
                self._release(self, connection)
                return
        self.abort()

    def abort(self) -> None:
        """Close the connection at once, if there is one."""
        self._end()
        self._release(self, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection = cast(asyncio.Transport, transport)  # of TCP; asyncio declares the base

    def data_received(self, data: bytes) -> None:
        pieces = self._pieces
        if pieces:
            self._pause()
        try:
            self._feed(data)
        except HttpParserError:
            self._end(malformed=True)
        if not pieces:
            self._overhead += len(data)
            if self._overhead > _MOST_OVERHEAD:
                self._end(malformed=True)
        # `_wake`, without the call: this runs once for each read of the socket.
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def eof_received(self) -> None:
        self.connection_lost(None)  # asyncio alone would first send everything that is still to be sent

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._phase in (_HEAD, _BODY):
            self._read_what_is_left()
        if exc is None and self._phase is _BODY and not self._is_delimited():
            self._phase = _COMPLETE  # nothing else shows the end of such a body (row H14)
        self._end()

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self._wake()

    def on_message_begin(self) -> None:
        if self._phase is _COMPLETE:
            raise _Refused("More than one response.")

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            return  # a trailer, which must not be taken for a header (RFC 9110, 6.5.1)
        self._head_bytes += len(name) + len(value)
        if len(self.headers) >= _MOST_FIELDS or self._head_bytes > _MOST_OVERHEAD or b"\0" in value:
            raise _Refused("A head that is too large, or not text.")
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 100 or status == 101:
            raise _Refused("A status that was not asked for.")
        if status < 200:  # an interim response: the final one follows
            self.headers.clear()
            self.reason = b""
            self._head_bytes = 0
            return
        self.status = status
        self._phase = _BODY
        self._reusable = self._parser.should_keep_alive()
        if self._bodiless:
            self._phase = _COMPLETE
            raise _Refused("The parser cannot be told that no body comes.")

    def on_message_complete(self) -> None:
        if self.status:
            self._phase = _COMPLETE
            self.completed_at = self._loop.time()

    def _new_parser(self) -> HttpResponseParser:
        parser = HttpResponseParser(self)
        # Real servers send all of these. The first is for folded headers.
        parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        return parser

    def _feed_head(self, data: bytes) -> None:
        """Feed the parser until the head is complete. Raises HttpParserError.

        The parser refuses a length that is there twice. If both are the same, it gets the head once more, with one of
        them (row H24), as soon as all of the head is here.
        """
        self._raw_head += data
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            if self.status or b"content-length:" not in self._raw_head.lower():
                raise
            self._feed = self._feed_doubled
            self._feed_doubled(b"")
        else:
            if self.status:
                self._raw_head = b""
                self._feed = self._parser.feed_data

    def _feed_doubled(self, data: bytes) -> None:
        self._raw_head += data
        if len(self._raw_head) > _MOST_OVERHEAD:
            raise HttpParserError("A head that is too large.")
        if not _HEAD_END.search(self._raw_head, _last_length(self._raw_head)):
            return
        raw = _with_one_length(self._raw_head)
        self._raw_head = b""
        self.headers.clear()
        self.reason = b""
        self._head_bytes = 0
        self._parser = self._new_parser()
        self._feed = self._parser.feed_data
        self._feed(raw)

    def _read_what_is_left(self) -> None:
        """Take what the kernel still has after a write has failed: a server that refuses early says why (row H25).

        The transport reads no more then, but its socket is still open. Under TLS only the transport could read it.
        """
        connection = self._connection
        if connection is None or connection.get_extra_info("ssl_object") is not None:
            return
        sock = connection.get_extra_info("socket")
        left = _MOST_LEFT
        self._paused = True  # the transport is closing, and may not be told to pause
        with suppress(OSError):
            while left > 0 and (data := os.read(sock.fileno(), _SLICE)):
                left -= len(data)
                self.data_received(data)

    def _is_delimited(self) -> bool:
        """Whether the head says how long the body is. If not, the connection's end is its end (RFC 9112, 6.3)."""
        coding = b",".join(value for name, value in self.headers if name.lower() == b"transfer-encoding")
        if coding:
            return coding.rpartition(b",")[2].strip().lower() == b"chunked"
        return any(name.lower() == b"content-length" for name, _ in self.headers)

    def _end(self, *, malformed: bool = False) -> None:
        """Close the connection. That breaks a response that is not complete."""
        if self._phase in (_HEAD, _BODY):
            self._phase = _BROKEN
            self._malformed = malformed
        self._reusable = False
        self._paused = False
        if self._resumption is not None:
            self._resumption.cancel()
        if self._connection is not None:
            self._connection.abort()
        self._wake()

    def _error(self) -> UpstreamError:
        """Return why the response is broken."""
        return Malformed("The upstream service did not speak HTTP.") if self._malformed else Disconnected()

    async def _change(self) -> None:
        """Wait until something has happened."""
        self._waiter = self._loop.create_future()
        await self._waiter

    def _wake(self) -> None:
        waiter = self._waiter
        self._waiter = None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _pause(self) -> None:
        if not self._paused and self._phase is not _COMPLETE and self._connection is not None:
            self._paused = True
            self._connection.pause_reading()

    def _resume(self) -> None:
        if self._paused and self._connection is not None:
            self._paused = False
            self._connection.resume_reading()

    async def _catch_up(self) -> None:
        """Read on, and let the loop look once for what the kernel has, so that it joins what lies here."""
        here = len(self._pieces)
        self._resume()
        await _look(lambda: len(self._pieces) > here)


async def _by(until: float, waiter: asyncio.Future[None]) -> None:
    """Wait for *waiter*. Raises TimeoutError at *until*. `asyncio.timeout_at` takes three times as long to set up."""
    timer = waiter.get_loop().call_at(until, _expire, waiter)
    try:
        await waiter
    finally:
        timer.cancel()


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


async def _look(found: Callable[[], bool] = lambda: False) -> None:
    """Let the loop look once for what the kernel has. uvloop calls back while it looks, asyncio in its next turn."""
    for _ in range(2):
        await asyncio.sleep(0)
        if found():
            break


def _last_length(head: bytes) -> int:
    return max((match.start() for match in _LENGTH.finditer(head)), default=0)


def _with_one_length(head: bytes) -> bytes:
    """Return *head* with one length in place of several that are equal (RFC 9110, 8.6). Raises HttpParserError."""
    values = {value.strip() for match in _LENGTH.finditer(head) for value in match[1].split(b",")}
    if len(values) != 1:
        raise HttpParserError("Lengths that contradict each other.")
    (value,) = values
    if not value.isdigit():
        raise HttpParserError("A length that is no number.")
    lines = chain([b"Content-Length: %b\r\n" % value], repeat(b""))
    return _LENGTH.sub(lambda match: next(lines), head)


def encoded(request: httpx.Request, proxy: httpx.Proxy | None = None) -> tuple[bytes, bytes]:
    """Return the bytes of a request whose content is read, and whose headers say how long that is: head and content.

    For a *proxy* that forwards it, the head names the whole URL (RFC 9112, 3.2.2). Raises Unreachable if a header would
    break its line.
    """
    target = request.url.raw_path
    if proxy is not None:
        target = b"%b://%b%b" % (request.url.raw_scheme, request.url.netloc, target)
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), target)]
    lines += [b"%b: %b" % header for header in request.headers.raw]
    if proxy is not None:
        lines += authorization(proxy)
    head = b"\r\n".join(lines)
    if not head.count(b"\r") == head.count(b"\n") == len(lines) - 1 or b"\0" in head:
        raise Unreachable
    return head + b"\r\n\r\n", request.content
