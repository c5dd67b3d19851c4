"""HTTP/1.1 as a transport for httpx: which connection a request takes, and how long connections are kept.

Every fault is an `UpstreamError`, and its text holds nothing of the request. A request is never sent a second time.
"""

from __future__ import annotations

import asyncio
import functools
import select
import ssl
from collections.abc import Callable

import httpx

from app.errors import Unreachable
from app.upstream.http.connector import Connector
from app.upstream.http.exchange import Exchange, encoded
from app.upstream.http.proxies import Origin, origin_of, refusal

# Where a response's `extensions` hold what reads the body: `Exchange.read`.
READ = "chat_sse.read"


class Http1Transport(httpx.AsyncBaseTransport):
    """Sends each request over an idle connection to its origin or a new one. The number of connections has no limit.

    *find_proxy* returns the proxy for an origin, or None. An idle connection is kept for *keep_idle* seconds: servers
    keep theirs for longer, and do not close it just as we send. Of the timeouts of httpx only `connect` is heeded. A
    response must be closed: that returns its connection, or aborts it if the response is not complete.
    """

    def __init__(
        self, tls: ssl.SSLContext, find_proxy: Callable[[Origin], httpx.Proxy | None], keep_idle: float = 15.0
    ) -> None:
        self._keep_idle = keep_idle
        self._connector = Connector(tls)
        self._find_proxy = functools.cache(find_proxy)
        self._idle: dict[_Idle, None] = {}  # the longest idle first
        # Where each exchange's connection leads, None if it is not kept.
        self._live: dict[Exchange, Origin | None] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request*, and return the response when its head is here. Raises UpstreamError."""
        target = origin_of(request.url)
        proxy = self._find_proxy(target)
        forwarded = proxy if target.scheme == "http" else None
        await request.aread()
        head, content = encoded(request, forwarded)
        limit = request.extensions.get("timeout", {}).get("connect")
        exchange = Exchange(request.method, self._release)
        # A connection to a forwarding proxy is not kept: tinyproxy closes it unannounced, as the next request is sent.
        self._live[exchange] = None if forwarded else target
        try:
            if not self._reuse(target, exchange):
                await self._connector.connect(target, proxy, exchange, limit)
                if self._closed:
                    raise Unreachable
            await exchange.send(head, content)
            if forwarded and exchange.status == 407:
                raise refusal(exchange.status)
        except BaseException:
            exchange.abort()
            raise
        return httpx.Response(
            exchange.status,
            headers=exchange.headers,
            stream=exchange,
            request=request,
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": exchange.reason, READ: exchange.read},
        )

    async def aclose(self) -> None:
        """Close every connection at once, also those in use."""
        self._closed = True
        for exchange in list(self._live):
            exchange.abort()
        for idle in list(self._idle):
            self.drop(idle)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        await asyncio.sleep(0)  # a loop closes the sockets of aborted connections in its next turn

    def drop(self, idle: _Idle) -> None:
        """Close a connection that was idle."""
        idle.connection.abort()
        self._idle.pop(idle, None)

    def _release(self, exchange: Exchange, connection: asyncio.Transport | None) -> None:
        """Forget *exchange*, and keep the *connection* that it returns, if it does."""
        target = self._live.pop(exchange, None)
        if connection is None:
            return
        if target is None:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        idle = _Idle(self, target, connection, loop.time() + self._keep_idle)
        connection.set_protocol(idle)
        self._idle[idle] = None
        if self._sweep is None:
            self._sweep = loop.call_at(idle.until, self._close_idle)

    def _close_idle(self) -> None:
        """Close what has been idle for long enough, and come back when the next one has."""
        loop = asyncio.get_running_loop()
        self._sweep = None
        for idle in list(self._idle):
            if idle.until > loop.time():
                self._sweep = loop.call_at(idle.until, self._close_idle)
                break
            self.drop(idle)

    def _reuse(self, target: Origin, exchange: Exchange) -> bool:
        """Give *exchange* the connection that became idle last, and return True; False if there is none."""
        while True:
            idle = next((idle for idle in reversed(self._idle) if idle.target == target), None)
            if idle is None:
                return False
            del self._idle[idle]
            if idle.is_usable():
                exchange.connection_made(idle.connection)
                idle.connection.set_protocol(exchange)
                return True
            idle.connection.abort()


class _Idle(asyncio.Protocol):
    """A connection that waits for its next request, up to *until* (loop time). Whatever happens on it ends it."""

    def __init__(self, pool: Http1Transport, target: Origin, connection: asyncio.Transport, until: float) -> None:
        self._pool = pool
        self.target = target
        self.connection = connection
        self.until = until

    def is_usable(self) -> bool:
        """Whether the server has neither closed it nor sent anything, not even since the loop last looked."""
        if self.connection.is_closing():
            return False
        look = select.poll()
        look.register(self.connection.get_extra_info("socket").fileno(), select.POLLIN)
        return not look.poll(0)

    def data_received(self, data: bytes) -> None:
        self._pool.drop(self)

    def eof_received(self) -> None:
        self._pool.drop(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.drop(self)
