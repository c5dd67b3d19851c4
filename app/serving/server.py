"""The HTTP server of one process: uvicorn's, with a drain before it stops.

While the server drains it still accepts connections, so that a new request gets a 503 that says when to come back, and
not a refused connection. Only a process whose listeners are shared with others, or with the next process, stops
accepting first (`Server.retire`).
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from app.hub import Hub
from app.serving.protocol import ServerConfig

# uvloop accepts one connection from each listener per turn of the loop. With one listener, a loop that is busy with
# live streams lets new connections wait: at 1,000 streams the first token came after 13.9 s, with sixteen after 2.7 s.
LISTENERS = 16
# Seconds in which the connections of a retiring process may still bring one request each.
_RETIRING = 1.0


class Server(uvicorn.Server):
    """uvicorn's server. SIGTERM or SIGINT drains *hub* for *grace* seconds; a second SIGINT stops at once.

    *announce* is called when the server accepts connections and handles signals, and *interrupted* at the first SIGINT.
    *outlived* says that the listeners stay open when this process ends, so that the next one can accept what has come
    meanwhile: then SIGTERM retires the server.
    """

    def __init__(
        self,
        app: ASGIApp,
        hub: Hub,
        grace: float,
        announce: Callable[[], None],
        interrupted: Callable[[], None],
        max_connections: int = 16_384,
        *,
        outlived: bool = False,
    ) -> None:
        self._connections = ServerConfig(app, max_connections)
        super().__init__(self._connections)
        self._hub = hub
        self._grace = grace
        self._announce = announce
        self._interrupted = interrupted
        self._loop = asyncio.get_running_loop()
        self._outlived = outlived
        self._retired = False
        self._draining: asyncio.Task[None] | None = None

    async def run_on(self, listener: socket.socket, *others: socket.socket) -> None:
        """Serve on *listener*, and on *others* that are less busy, until a signal stops the server; close them all."""
        # Blocking is a property of the open socket, which other processes may share. `dup` makes it blocking if this
        # object says so. Then accept(2) would stop a process whose connection another one has taken.
        listener.setblocking(False)
        await self.serve([listener, *(listener.dup() for _ in range(LISTENERS - 1)), *others])
        if self._draining is not None:
            self._draining.cancel()  # after a second SIGINT; the owner of the hub ends the streams that are left

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._hub.begin_accepting()
        self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal. uvicorn would raise it again after the drain, which would then look like a failure."""
        if sig != signal.SIGINT:
            self._loop.call_soon_threadsafe(self.retire if self._outlived else self._drain)
        elif self._draining is None:
            self._loop.call_soon_threadsafe(self._interrupt)
        else:
            self.should_exit = True
            self.force_exit = True

    def retire(self) -> None:
        """Leave new connections to the other processes that share the listeners; drain after a second.

        In that second, an open connection may bring one more request. It is answered as usual, and the answer says that
        the connection closes. So no client gets a 503, and hardly any finds its connection closed under a request.
        """
        self._stop_accepting()
        self._connections.closing = True
        self._retired = True
        self._loop.call_later(_RETIRING, self._drain)

    def abandon(self) -> None:
        """Drain, but free the address at once: the supervisor of this process is gone, and a new one will need it."""
        self._stop_accepting()
        self._drain()

    def _stop_accepting(self) -> None:
        for server in self.servers:
            server.close()

    def _interrupt(self) -> None:
        self._interrupted()
        self._drain()

    def _drain(self) -> None:
        if self._draining is not None:
            return
        self._connections.closing = True
        if self._retired:
            for connection in list(self._connections.idle):
                connection.close_unless_begun()
        self._draining = self._loop.create_task(self._drain_then_exit())

    async def _drain_then_exit(self) -> None:
        await self._hub.drain(self._grace)
        self.should_exit = True
