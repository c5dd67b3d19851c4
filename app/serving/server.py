"""The HTTP server: uvicorn, with a drain, and with bounds on what a connection may cost before it is a request.

The drain comes before the listeners close, so that whoever asks meanwhile gets a 503 that says when to come back, and
not a refused connection. Only where another process accepts from the same listeners they close first (`Server.retire`).
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import cast

import uvicorn
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.edge.event_stream import WRITE
from app.hub import Hub

# All of a request that is not its body: as much as nginx takes for the head, and as long as it waits.
_HEAD_BYTES = 32 * 1024
_HEAD_SECONDS = 60.0
# The beginnings of short chunks, of which there are many, by their sizes (RFC 9112, 7.1).
_SIZES = tuple(b"%x\r\n" % size for size in range(512))
# For what ended in the drain to be sent.
_LAST_WORDS = 5
# How long the connections that a retiring process has may still bring one request each.
_GOODBYE = 1.0
# uvloop accepts one connection per turn of the loop from each socket it listens on. With one, a loop that is busy with
# live streams lets new ones wait: at 1,000 streams the first token came after 13.9 s, with sixteen after 2.7 s.
_LISTENERS = 16


class Config(uvicorn.Config):
    """uvicorn's configuration, and what its connections share: a bound on their number, and who is idle.

    *idle* are the connections that wait for a request, or for the rest of one, the longest wait first.
    """

    def __init__(self, app: ASGIApp, max_connections: int) -> None:
        super().__init__(
            app,
            loop="none",
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing here goes by a client's address or scheme, which are anybody's to claim
            # Above nginx's 60 s for idle upstream connections, so that it is never we who close one under a POST.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_LAST_WORDS,
        )
        self.max_connections = max_connections
        self.idle: dict[Protocol, None] = {}


class BodyWriter:
    """Sends an answer's body frame by frame, at once, where ASGI's `send` takes a message, and a coroutine to run.

    Its `write` is in a request's `scope["extensions"]` under `WRITE`, for answers that have begun and have no content
    length: uvicorn sends those in chunks.
    """

    __slots__ = ("_cycle", "_flow", "_send")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._flow = cycle.flow
        self._send = cycle.transport.write

    def write(self, data: bytes) -> bool:
        """Write *data*; or return False if the client is behind, or gone: `send` knows which."""
        if self._flow.write_paused or self._cycle.disconnected:
            return False
        if data:  # nothing would be the last chunk
            size = len(data)
            self._send(b"".join((_SIZES[size] if size < len(_SIZES) else b"%x\r\n" % size, data, b"\r\n")))
        return True


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with bounds on what is not a body, and none but one request at a time.

    Where there are too many connections, the one that has been idle longest makes room: whoever opens thousands and
    says nothing on them keeps nobody else out.
    """

    _timer: asyncio.TimerHandle | None = None
    _in_head = False
    _priming = False
    _overhead = 0  # bytes of this request that are not its body: its head, what frames the chunks, trailers

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > self._shared.max_connections:
            longest = next(iter(self._shared.idle))
            if longest is self:
                self._refuse(b"503 Service Unavailable")
            else:
                longest.shed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def shed(self) -> None:
        """Close a connection that is idle, to make room: at once, also if its last answer was never fetched."""
        self._stop_waiting()
        self.connections.discard(self)
        self._hang_up()

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
        if self._overhead > _HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        if self._priming:
            return
        if self._answering:
            # A request before the last one's answer is done. uvicorn would queue it, and then tell only the queued one
            # that the client is gone, while a stream goes on, and is paid for. No browser or client library does this.
            self._hang_up()
            raise HttpParserError
        super().on_message_begin()
        if not self._in_head:
            self._await_head()

    def on_url(self, url: bytes) -> None:
        if not self._priming:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        # Those that come after the head are trailers, which nobody may take for headers (RFC 9110, 6.5.1).
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._priming:
            self._in_head = False
            self._stop_timer()  # how long a body may take is for whoever reads it to say
            super().on_headers_complete()
            if self._answering:
                self.scope["extensions"] = {WRITE: BodyWriter(self.cycle).write}  # type: ignore[dict-item]  # our own, no dict

    def on_chunk_header(self) -> None:
        """Allow each chunk what an honest one takes for its length and line ends."""
        self._overhead -= 16

    def on_body(self, body: bytes) -> None:
        self._overhead -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # as far as the parser is concerned, which goes by an offer that we do not take up
        super().on_message_complete()
        if self._answering:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            # Beside uvicorn's own timer, which any byte would stop: a blank line, or what is left of a body.
            self._overhead = 0
            self._wait(self.timeout_keep_alive, self.transport.close)

    def let_go(self) -> None:
        """Close a connection on which no request has begun."""
        if not self._overhead:
            self.shutdown()

    @property
    def _shared(self) -> Config:
        return cast(Config, self.config)

    @property
    def _answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _await_head(self) -> None:
        self._in_head = True
        self._wait(_HEAD_SECONDS, self._refuse, b"408 Request Timeout")

    def _wait(self, seconds: float, give_up: Callable[..., object], *arguments: bytes) -> None:
        """Be idle, as the last in line, but not for longer than *seconds*."""
        self._stop_waiting()
        self._shared.idle[self] = None
        self._timer = self.loop.call_later(seconds, give_up, *arguments)

    def _stop_waiting(self) -> None:
        self._shared.idle.pop(self, None)
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read *rest* as if no other protocol had been offered (Java's HttpClient offers h2c with every request).

        httptools takes no body of such a request: what comes after the head would be read as the next request. So
        another parser is told how the body is framed, and goes on from there.
        """
        framing = [header for header in self.headers if header[0] in (b"content-length", b"transfer-encoding")]
        self.parser = HttpRequestParser(self)
        self._priming = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % b"".join([b"%s: %s\r\n" % header for header in framing]))
        self._priming = False
        if rest:
            self.parser.feed_data(rest)

    def _refuse(self, status: bytes) -> None:
        """Answer with *status*, if an answer has not begun, and close."""
        if self.transport.is_closing():
            return
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is not None and not cycle.response_complete and cycle.response_started:
            self._hang_up()
            return
        self._stop_waiting()
        self._leave()
        self.transport.write(b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        self.transport.close()

    def _hang_up(self) -> None:
        self._leave()
        self.transport.abort()

    def _leave(self) -> None:
        """Tell the request that is being answered, if there is one, that its client is gone."""
        if self._answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()


class Server(uvicorn.Server):
    """uvicorn's server. SIGTERM or SIGINT drains *hub* for *grace* seconds; a second SIGINT does not wait.

    *announce* is called once connections are accepted and signals are heard.
    """

    def __init__(
        self, app: ASGIApp, hub: Hub, grace: float, announce: Callable[[], None], max_connections: int = 16_384
    ) -> None:
        self._shared = Config(app, max_connections)
        super().__init__(self._shared)
        self._hub = hub
        self._grace = grace
        self._announce = announce
        self._loop = asyncio.get_running_loop()
        self._retired = False
        self._draining: asyncio.Task[None] | None = None

    async def run_on(self, listener: socket.socket, *others: socket.socket) -> None:
        """Serve on *listener*, and on *others* that are less busy, until a signal has ended it; it closes them."""
        # Whether accept(2) blocks is a matter of the socket, which other processes share, and `dup` has it block if the
        # original believes that it does. Whoever is then woken for a connection that another one takes stands still.
        listener.setblocking(False)
        await self.serve([listener, *(listener.dup() for _ in range(_LISTENERS - 1)), *others])
        if self._draining is not None:
            self._draining.cancel()  # a second SIGINT: what is left is ended by whoever composed the hub

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal, but do not keep it for uvicorn to raise again at the end: a drained exit is a success."""
        if sig == signal.SIGINT and self._draining is not None:
            self.force_exit = self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._drain)

    def retire(self) -> None:
        """Leave what comes to the other processes that accept from the same listeners, and drain.

        Connections that are here already may bring one more request, which is answered as ever, but for a word that
        the connection closes with it: no client sees a 503, and hardly one a connection that closes under its request.
        """
        self._stop_accepting()
        self._take_leave()
        self._retired = True
        self._loop.call_later(_GOODBYE, self._drain)

    def abandon(self) -> None:
        """Drain, but free the address at once: whoever supervised this process is gone, and will be started again."""
        self._stop_accepting()
        self._drain()

    def _stop_accepting(self) -> None:
        for server in self.servers:
            server.close()

    def _take_leave(self) -> None:
        """Have every answer that begins from now on say that its connection closes."""
        goodbye = (b"connection", b"close")
        self.config.encoded_headers.append(goodbye)  # what uvicorn makes the other ones of, once per second
        self.server_state.default_headers = [*self.server_state.default_headers, goodbye]

    def _drain(self) -> None:
        if self._draining is None:
            if self._retired:
                for connection in list(self._shared.idle):
                    connection.let_go()
            else:
                self._take_leave()
            self._draining = self._loop.create_task(self._drain_then_exit())

    async def _drain_then_exit(self) -> None:
        await self._hub.drain(self._grace)
        self.should_exit = True
