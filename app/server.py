"""The HTTP server: uvicorn, with a drain, and with bounds on what a connection may cost before it is a request.

The drain comes before the listeners close, so that whoever asks meanwhile gets a 503 that says when to come back, and
not a refused connection.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.hub import Hub

# A request's line and headers: as much as nginx takes, and as long as it waits.
_HEAD_BYTES = 32 * 1024
_HEAD_SECONDS = 60.0
# For what ended in the drain to be sent.
_LAST_WORDS = 5
# uvloop accepts one connection per turn of the loop from each socket it listens on. With one, a loop that is busy with
# live streams lets new ones wait: at 1,000 streams the first token came after 13.9 s, with sixteen after 2.7 s.
_LISTENERS = 16


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with bounds on a request's head, and none but one request at a time."""

    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > _HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is not None and not cycle.response_complete:
            # A request before the last one's answer is done. uvicorn would queue it, and then tell only the queued one
            # that the client is gone, while a stream goes on, and is paid for. No browser or client library does this.
            cycle.disconnected = True
            cycle.message_event.set()
            self.transport.abort()
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        self._head_came()
        super().on_headers_complete()

    @property
    def _in_head(self) -> bool:
        return self._head_timer is not None

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(_HEAD_SECONDS, self._refuse, b"408 Request Timeout")

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: bytes) -> None:
        self._head_came()
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server. SIGTERM or SIGINT drains *hub* for *grace* seconds; a second SIGINT does not wait.

    *announce* is called once connections are accepted and signals are heard.
    """

    def __init__(self, app: ASGIApp, hub: Hub, grace: float, announce: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="none",
                http=Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # Above nginx's 60 s for idle upstream connections, so that it is never we who close one under a POST.
                timeout_keep_alive=75,
                timeout_graceful_shutdown=_LAST_WORDS,
            )
        )
        self._hub = hub
        self._grace = grace
        self._announce = announce
        self._loop = asyncio.get_running_loop()
        self._draining: asyncio.Task[None] | None = None

    async def run_on(self, listener: socket.socket) -> None:
        """Serve on *listener*, which is closed in the end, until a signal has ended it."""
        await self.serve([listener, *(listener.dup() for _ in range(_LISTENERS - 1))])
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

    def _drain(self) -> None:
        if self._draining is None:
            self._draining = self._loop.create_task(self._drain_then_exit())

    async def _drain_then_exit(self) -> None:
        await self._hub.drain(self._grace)
        self.should_exit = True
