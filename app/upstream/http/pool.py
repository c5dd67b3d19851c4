"""HTTP/1.1 as a transport for httpx: which connection a request takes, and how long connections are kept.

Every fault is an `UpstreamError`, and its text holds nothing of the request. A request is never sent a second time.
"""

from __future__ import annotations

import asyncio
import functools
import re
import select
import ssl
from collections.abc import Callable, Sequence

import httpx

from app.errors import Unreachable
from app.upstream.http.connector import Connector
from app.upstream.http.exchange import Exchange, encoded
from app.upstream.http.proxies import Origin, origin_of, refusal

# Where a response's `extensions` hold what reads the body: `Exchange.read`.
READ = "chat_sse.read"
# Where a request's `extensions` may hold a function, which is called just before the request is sent.
SENDING = "chat_sse.sending"

_TIMEOUT = re.compile(rb"""(?i)\btimeout\s*=\s*["']?([0-9]{1,9})""")
_MOST_REQUESTS = re.compile(rb"""(?i)\bmax\s*=\s*["']?([0-9]{1,9})""")
# So many seconds before the server may close a connection, it is not used any more.
_EARLIER = 1.0
# No connection is kept for longer, whatever the server says: firewalls forget it.
_LONGEST = 60.0


class Http1Transport(httpx.AsyncBaseTransport):
    """Sends each request over an idle connection to its origin or a new one. The number of connections has no limit.

    *find_proxy* returns the proxy for an origin, or None. An idle connection is kept for as long as the server's
    `Keep-Alive` says, less a second; *keep_idle* seconds if it says nothing. Otherwise the server might close it just
    as we send, and a request that may have been read is not sent again (row H26). Of the timeouts of httpx only
    `connect` is heeded. A response must be closed: that returns its connection, or aborts it if the response is not
    complete.
    """

    def __init__(
        self, tls: ssl.SSLContext, find_proxy: Callable[[Origin], httpx.Proxy | None], keep_idle: float = 4.0
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
            sending = request.extensions.get(SENDING)
            if sending is not None:
                sending()
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
        loop = asyncio.get_running_loop()
        until = exchange.completed_at + kept_for(exchange.headers, self._keep_idle)  # the server counts from there, too
        if target is None or until <= loop.time():
            connection.abort()
            return
        idle = _Idle(self, target, connection, until)
        connection.set_protocol(idle)
        self._idle[idle] = None
        if self._sweep is None or self._sweep.when() > until:
            self._sweep_at(until)

    def _sweep_at(self, when: float) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep = asyncio.get_running_loop().call_at(when, self._close_idle)

    def _close_idle(self) -> None:
        """Close what has been idle for long enough, and come back when the next one has."""
        now = asyncio.get_running_loop().time()
        self._sweep = None
        for idle in list(self._idle):
            if idle.until <= now:
                self.drop(idle)
        if self._idle:
            self._sweep_at(min(idle.until for idle in self._idle))

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


def kept_for(headers: Sequence[tuple[bytes, bytes]], unsaid: float) -> float:
    """Return for how many seconds a connection may be used again after a response with *headers*; *unsaid* by default.

    `Keep-Alive` is not in the RFCs any more, but many servers send it, and close at the time that it names.
    """
    said = b",".join([value for name, value in headers if name.lower() == b"keep-alive"])
    if not said:
        return unsaid
    most = _MOST_REQUESTS.search(said)
    if most is not None and int(most[1]) < 1:
        return 0.0
    timeout = _TIMEOUT.search(said)
    return unsaid if timeout is None else min(int(timeout[1]) - _EARLIER, _LONGEST)


class _Idle(asyncio.Protocol):
    """A connection that waits for its next request, up to *until* (loop time). Whatever happens on it ends it."""

    def __init__(self, pool: Http1Transport, target: Origin, connection: asyncio.Transport, until: float) -> None:
        self._pool = pool
        self.target = target
        self.connection = connection
        self.until = until

    def is_usable(self) -> bool:
        """Whether its time is not up, and the server has neither closed it nor sent anything.

        That holds up to this moment, and not to when the loop last looked.
        """
        if self.connection.is_closing() or self.until <= asyncio.get_running_loop().time():
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
