"""HTTP/1.1 over direct connections, as a transport for httpx: how connections are made, kept and closed.

Faults are httpx's exceptions, and none of their texts holds anything of a request: `ConnectTimeout` and `ConnectError`
before anything was sent, `WriteError` and `ReadError` where the connection broke, `RemoteProtocolError` for what is not
HTTP. A request is never sent a second time.
"""

from __future__ import annotations

import asyncio
import functools
import select
import socket
import ssl
from contextlib import suppress

import httpx
from aiohappyeyeballs import AddrInfoType, start_connection

from app.upstream.http.exchange import Exchange, encoded

# Where a response's `extensions` hold what reads the body: `Exchange.read`.
READ = "chat_sse.read"

_PORTS = {"http": 80, "https": 443}
_Origin = tuple[str, str, int]  # scheme, host, port

# An idle connection is closed after so many seconds: before a server does it, just when we send.
_IDLE = 15.0
# For so many seconds it is taken as known where a name leads (aiohttp's default).
_NAME_KNOWN = 10.0
# So many seconds after the first address of a name, the next one is tried beside it (RFC 8305, 5).
_NEXT_ADDRESS = 0.25

_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    # A model may think for minutes. A probe a minute finds out who is gone, and keeps a NAT from forgetting us.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5),
)


class Http1Transport(httpx.AsyncBaseTransport):
    """Sends requests, each over an idle connection to its origin or a new one, however many there are.

    Of the timeouts only `connect` is heeded (seconds): for name, TCP and TLS together. A response must be closed: that
    gives its connection back, or aborts it if the response is not complete.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._idle: dict[_Origin, dict[_Idle, None]] = {}  # the longest idle first
        self._live: dict[Exchange, _Origin] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._names: dict[tuple[str, int], tuple[asyncio.Future[list[AddrInfoType]], float]] = {}
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        if url.scheme not in _PORTS:
            raise httpx.UnsupportedProtocol("Only http and https are spoken here.")
        await request.aread()
        head, content = encoded(request)
        origin = (url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme])
        limit = request.extensions.get("timeout", {}).get("connect")
        exchange = Exchange(request.method, self._leave)
        self._live[exchange] = origin
        try:
            connection = self._reuse(origin, exchange) or await self._connect(origin, exchange, limit)
            await exchange.send(connection, head, content)
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
        for idle in [idle for pool in self._idle.values() for idle in pool]:
            self.drop(idle)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        await asyncio.sleep(0)  # a loop closes the sockets of aborted connections in its next turn

    def drop(self, idle: _Idle) -> None:
        """Close a connection that was idle."""
        idle.connection.abort()
        self._take(idle)

    def _take(self, idle: _Idle) -> None:
        pool = self._idle.get(idle.origin, {})
        pool.pop(idle, None)
        if not pool:
            self._idle.pop(idle.origin, None)

    def _leave(self, exchange: Exchange, connection: asyncio.Transport | None) -> None:
        """Forget *exchange*, and keep the *connection* that it may give back."""
        origin = self._live.pop(exchange, None)
        if origin is None or connection is None:
            return
        loop = asyncio.get_running_loop()
        idle = _Idle(self, origin, connection, loop.time() + _IDLE)
        connection.set_protocol(idle)
        self._idle.setdefault(origin, {})[idle] = None
        if self._sweep is None:
            self._sweep = loop.call_at(idle.until, self._close_idle)

    def _close_idle(self) -> None:
        """Close what has been idle for long enough, and come back when the next one has."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for idle in [idle for pool in self._idle.values() for idle in pool if idle.until <= now]:
            self.drop(idle)
        due = min((next(iter(pool)).until for pool in self._idle.values()), default=None)
        self._sweep = None if due is None else loop.call_at(due, self._close_idle)

    def _reuse(self, origin: _Origin, exchange: Exchange) -> asyncio.Transport | None:
        """Give *exchange* the connection that became idle last, if there is one that still stands."""
        while pool := self._idle.get(origin):
            idle = next(reversed(pool))
            if idle.stands():
                self._take(idle)
                exchange.connection_made(idle.connection)
                idle.connection.set_protocol(exchange)
                return idle.connection
            self.drop(idle)
        return None

    async def _connect(self, origin: _Origin, exchange: Exchange, limit: float | None) -> asyncio.Transport:
        scheme, host, port = origin
        tls, name = (self._tls, host.rstrip(".")) if scheme == "https" else (None, None)
        try:
            async with asyncio.timeout(limit):
                addresses = await self._addresses(host, port)
                sock = await start_connection(
                    addresses, happy_eyeballs_delay=_NEXT_ADDRESS, interleave=1, socket_factory=_socket
                )
                connection, _ = await asyncio.get_running_loop().create_connection(
                    lambda: exchange, sock=sock, ssl=tls, server_hostname=name
                )
        except TimeoutError as error:
            raise httpx.ConnectTimeout("Connecting took too long.") from error
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: uvloop's; ValueError: a name beyond IDNA
            raise httpx.ConnectError("No connection could be made.") from error
        if self._closed:
            raise httpx.ConnectError("The transport was closed.")
        return connection

    async def _addresses(self, host: str, port: int) -> list[AddrInfoType]:
        """Return where *host* is. All who ask at once share one look-up, which goes on if any of them leaves."""
        with suppress(OSError):
            return _look_up(host, port, socket.AI_NUMERICHOST)
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._names = {name: known for name, known in self._names.items() if known[1] > now or not known[0].done()}
        if (host, port) not in self._names:
            found = loop.run_in_executor(None, _look_up, host, port)
            self._names[host, port] = found, now + _NAME_KNOWN
            found.add_done_callback(functools.partial(self._looked_up, (host, port)))
        return await asyncio.shield(self._names[host, port][0])

    def _looked_up(self, name: tuple[str, int], found: asyncio.Future[list[AddrInfoType]]) -> None:
        if found.cancelled() or found.exception() is not None:
            self._names.pop(name, None)


def _look_up(host: str, port: int, flags: int = 0) -> list[AddrInfoType]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))


def _socket(address: AddrInfoType) -> socket.socket:
    family, kind, protocol, *_ = address
    sock = socket.socket(family, kind, protocol)
    for option in _OPTIONS:
        sock.setsockopt(*option)
    return sock


class _Idle(asyncio.Protocol):
    """A connection that waits for its next request, up to *until* (loop time). Whatever happens on it ends it."""

    def __init__(self, pool: Http1Transport, origin: _Origin, connection: asyncio.Transport, until: float) -> None:
        self._pool = pool
        self.origin = origin
        self.connection = connection
        self.until = until

    def stands(self) -> bool:
        """Whether the server has neither closed nor said anything, also not since the loop last looked."""
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
