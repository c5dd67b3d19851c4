"""uvicorn's HTTP protocol, with bounds on what a connection may cost before it is a request.

This is the one module that uses what uvicorn does not document: `HttpToolsProtocol`, its `RequestResponseCycle`, and
what both keep. tests/serving/test_uvicorn.py fails when a new version changes any of it, and pyproject.toml bounds the
version.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import cast

import uvicorn
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.edge.context import account_in
from app.edge.event_stream import WRITE
from app.serving.unread import Unread

# Seconds that the server gives the last answers to be sent once the streams have ended.
LAST_ANSWERS = 5
_HEAD_TOO_LARGE = b"431 Request Header Fields Too Large"  # RFC 6585, section 5: the fields of a head, in number or size
# The first lines of short chunks by the chunk's size (RFC 9112, 7.1): most deltas are short.
_CHUNK_SIZES = tuple(b"%x\r\n" % size for size in range(512))
# Bytes that may wait on a connection before it counts as one that is not read.
_HIGH_WATER = 16 * 1024
# Bytes of framing that an honest chunk takes: its size in hexadecimal and two line ends.
_CHUNK_FRAMING = 16


class ServerConfig(uvicorn.Config):
    """uvicorn's configuration, and what its connections share.

    A request may have *head_bytes* besides its body, as many as nginx allows a head, *head_fields* in its head, as many
    as Apache allows, and *head_timeout* seconds until its head is complete, as many as nginx waits. A connection is
    closed *keep_alive* seconds after its last answer: later than nginx's 60 s for idle upstream connections, so that
    the service never closes one while nginx sends a POST on it. *unread* bytes may wait for clients to read them, as
    `Unread` counts.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_connections: int,
        head_bytes: int = 32 * 1024,
        head_fields: int = 100,
        head_timeout: float = 60,
        keep_alive: float = 75,
        unread: int = 256 << 20,
    ) -> None:
        super().__init__(
            app,
            loop="none",
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # the service uses no client address or scheme, since any client can claim one
            timeout_keep_alive=math.ceil(keep_alive),
            timeout_graceful_shutdown=LAST_ANSWERS,
        )
        self.max_connections = max_connections
        self.head_bytes = head_bytes
        self.head_fields = head_fields
        self.head_timeout = head_timeout
        self.keep_alive = keep_alive
        # The connections that wait for a request or for the rest of one. The one that has waited longest is first.
        self.idle: dict[Protocol, None] = {}
        self.unread = Unread(unread)
        # Whether each answer to a new request says that its connection closes.
        self.closing = False


class BodyWriter:
    """Writes frames of an answer's body without ASGI's `send`, which takes a message and a coroutine for each.

    Its `write` is in a request's `scope["extensions"]` under `WRITE`. It is for answers that have begun and have no
    content length, which uvicorn sends in chunks.
    """

    __slots__ = ("_cycle", "_flow")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._flow = cycle.flow

    def write(self, data: bytes) -> bool:
        """Write *data*. Return False, without writing, if the client is behind or gone; `send` tells which."""
        if self._flow.write_paused or self._cycle.disconnected:
            return False
        if data:  # an empty chunk would end the body
            size = len(data)
            first_line = _CHUNK_SIZES[size] if size < len(_CHUNK_SIZES) else b"%x\r\n" % size
            self._cycle.transport.write(b"".join((first_line, data, b"\r\n")))
        return True


class HeadWithBody:
    """A transport that keeps an answer's head until the body's first piece, and sends both in one packet.

    It stands in for the transport of a *cycle* until then. To send the head before there is a body, the application
    sends an empty piece of it.
    """

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._head = b""
        self._transport = cycle.transport

    def write(self, data: bytes) -> None:
        """Send *data*, unless it is the head."""
        if self._cycle.response_started and not self._head:
            self._head = data
            return
        if self._head:
            self._cycle.transport = self._transport
        self._transport.write(self._head + data)

    def is_closing(self) -> bool:
        """Whether the transport is closed, or about to be."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Send a head that is held, and close the transport: the application has failed before the body."""
        if self._head:
            self._transport.write(self._head)  # without it, some clients would ask a second time
        self._transport.close()


class Unframed:
    """Sends an answer to a client of HTTP/1.0, which knows no chunks: it would read their sizes as text.

    An answer without a content length is sent as it is and ends where its connection does (RFC 9112, 6.3). uvicorn
    sends it in chunks, also over HTTP/1.0 (Kludex/uvicorn#1360), unless it takes it for one with a length.
    """

    __slots__ = ("_cycle", "_measured", "_send")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._measured = True  # whether the answer says how long it is
        self._send = cycle.send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._measured = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if not self._measured:
                self._cycle.chunked_encoding = False
        elif not self._measured:
            self._cycle.expected_content_length = len(message.get("body", b""))
        await self._send(message)  # type: ignore[arg-type]  # uvicorn has types of its own for the same messages


class Protocol(HttpToolsProtocol):
    """One connection: uvicorn's protocol, with a bound on everything but bodies, and with one request at a time.

    When there are too many connections, the one that has been idle longest is closed. So a client that opens thousands
    and sends nothing on them keeps no other client out.
    """

    _shared: ServerConfig
    _timer: asyncio.TimerHandle | None = None
    _in_head = False
    # Bytes of this request that are not its body: its head, the framing of its chunks, its trailers.
    _overhead = 0
    # Whether the parser reads a head that `_ignore_upgrade` has written, and not the client.
    _own_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it, too
        super().connection_made(transport)
        self._shared = cast(ServerConfig, self.config)  # `Server` makes no other
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._await_head()
        if len(self.connections) > self._shared.max_connections:
            longest_idle = next(iter(self._shared.idle))
            if longest_idle is self:
                self._refuse(b"503 Service Unavailable")
            else:
                longest_idle.make_room()

    def pause_writing(self) -> None:
        super().pause_writing()
        scope = cast("Scope | None", self.scope)  # None before the first request
        principal = "" if scope is None else account_in(scope)
        self._shared.unread.stopped(self, principal, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._shared.unread.went_on(self)

    def drop(self) -> None:
        """Close this connection at once, because its client does not read what was sent."""
        self._abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._not_idle()
        self._shared.unread.went_on(self)
        super().connection_lost(exc)

    def make_room(self) -> None:
        """Close this idle connection at once, even if the client has not yet read its last answer."""
        self._not_idle()
        self.connections.discard(self)
        self._abort()

    def close_unless_begun(self) -> None:
        """Close this connection if no byte of a next request has come."""
        if not self._overhead:
            self.shutdown()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._overhead = max(0, self._overhead) + len(data)
        try:
            try:
                self.parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                self._ignore_upgrade(data[upgrade.args[0] :])
        except HttpParserError:
            self._refuse(b"400 Bad Request")
        if self._overhead > self._shared.head_bytes:
            self._refuse(_HEAD_TOO_LARGE)

    def on_message_begin(self) -> None:
        if self._own_head:
            return
        if self._is_answering:
            # This is a pipelined request: it came before the last answer was complete. uvicorn would queue it. If the
            # client then left, uvicorn would tell the queued request alone, and the stream of the first would go on and
            # be paid for. No browser or client library pipelines.
            self._abort()
            raise HttpParserError
        super().on_message_begin()
        if not self._in_head:
            self._await_head()

    def on_url(self, url: bytes) -> None:
        if not self._own_head:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        # Fields after the head are trailers, which must not be taken for headers (RFC 9110, 6.5.1).
        if not self._in_head:
            return
        if len(self.headers) >= self._shared.head_fields:
            self._refuse(_HEAD_TOO_LARGE)
            raise HttpParserError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._own_head:
            return
        self._in_head = False
        self._cancel_timer()  # the application bounds the time that the body may take
        super().on_headers_complete()
        if self._is_answering:
            if self.scope["http_version"] == "1.1":
                write = BodyWriter(self.cycle).write
                self.scope["extensions"] = {WRITE: write}  # type: ignore[dict-item]  # a callable, where ASGI has dicts
                if self.scope["method"] != "HEAD":  # to which uvicorn writes nothing but the head
                    self.cycle.transport = HeadWithBody(self.cycle)  # type: ignore[assignment]  # it has all of a transport that uvicorn uses here
            else:
                self.cycle.send = Unframed(self.cycle)  # type: ignore[assignment, method-assign]  # it stands in for the method
                self.cycle.waiting_for_100_continue = False  # HTTP/1.0 has no such answer (RFC 9110, 10.1.1)
            if self._shared.closing:
                self.cycle.keep_alive = False

    def on_chunk_header(self) -> None:
        self._overhead -= _CHUNK_FRAMING

    def on_body(self, body: bytes) -> None:
        self._overhead -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # the parser ends the message after the head; `_ignore_upgrade` reads its body
        super().on_message_complete()
        if self._is_answering:
            self._not_idle()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            # uvicorn's own timer stops at any byte: a blank line, or what is left of a body.
            self._overhead = 0
            self._idle_for(self._shared.keep_alive, self.transport.close)

    @property
    def _is_answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # the same
        return cycle is not None and not cycle.response_complete

    def _await_head(self) -> None:
        self._in_head = True
        self._idle_for(self._shared.head_timeout, lambda: self._refuse(b"408 Request Timeout"))

    def _idle_for(self, seconds: float, on_timeout: Callable[[], object]) -> None:
        """Become the last of the idle connections, and call *on_timeout* if this one is still idle after *seconds*."""
        self._not_idle()
        self._shared.idle[self] = None
        self._timer = self.loop.call_later(seconds, on_timeout)

    def _not_idle(self) -> None:
        self._shared.idle.pop(self, None)
        self._cancel_timer()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Go on as if the client had offered no other protocol. Java's HttpClient offers h2c with every request.

        httptools reads no body after such a head: it would read *rest* as the next request. So a new parser is given a
        head that frames the body in the same way, and then reads *rest*.
        """
        framing = [header for header in self.headers if header[0] in (b"content-length", b"transfer-encoding")]
        fields = b"".join(b"%s: %s\r\n" % header for header in framing)
        self.parser = HttpRequestParser(self)
        self._own_head = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % fields)
        self._own_head = False
        if rest:
            self.parser.feed_data(rest)

    def _refuse(self, status: bytes) -> None:
        """Answer with *status* and close; only close if an answer has begun."""
        if self.transport.is_closing():
            return
        if self._is_answering and self.cycle.response_started:
            self._abort()
            return
        self._not_idle()
        self._tell_disconnected()
        self.transport.write(b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        self.transport.close()

    def _abort(self) -> None:
        self._tell_disconnected()
        self.transport.abort()

    def _tell_disconnected(self) -> None:
        """Tell the application, if it is answering, that the client is gone."""
        if self._is_answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
