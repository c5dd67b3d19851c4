"""How a connection is made: the name is looked up, TCP, a proxy's tunnel, TLS."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from contextlib import suppress

import httpx
from aiohappyeyeballs import AddrInfoType, start_connection

from app.errors import ConnectTimeout, Unreachable
from app.upstream.http.exchange import Exchange
from app.upstream.http.proxies import Origin, check_tunnel, connect_request, origin_of

# The addresses of a name are kept for so many seconds.
_NAME_KEPT = 10.0
# So many seconds after the first address of a name, the next one is tried beside it (RFC 8305, 5).
_NEXT_ADDRESS = 0.25
# The head of a proxy's answer has at most this many bytes, like every other head.
_MOST_HEAD = 64 * 1024

_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    # A model may think for minutes. A probe a minute notices a peer that is gone, and keeps NAT entries alive.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5),
)

_FAILURES = (
    OSError,  # TCP, names and TLS
    RuntimeError,  # uvloop's, for a socket that was closed meanwhile
    ValueError,  # a name that IDNA does not allow
    asyncio.IncompleteReadError,  # a proxy that closed before it answered
    asyncio.LimitOverrunError,  # a proxy whose answer has no end
)


class Connector:
    """Makes connections, and remembers for a short while where names lead."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._names: dict[tuple[str, int], tuple[asyncio.Future[list[AddrInfoType]], float]] = {}

    async def connect(self, target: Origin, proxy: httpx.Proxy | None, exchange: Exchange, limit: float | None) -> None:
        """Connect *exchange* to *target* within *limit* seconds, a proxy's answer and TLS included.

        Through a *proxy*, https gets a tunnel; http gets a connection to the proxy itself. Raises Unreachable and
        ConnectTimeout.
        """
        try:
            async with asyncio.timeout(limit):
                if proxy is None:
                    await self._open(target, exchange)
                elif target.scheme == "http":
                    await self._open(origin_of(proxy.url), exchange)
                else:
                    await self._open_tunnel(target, proxy, exchange)
        except TimeoutError as error:  # ours; or the kernel's own, which has a number
            within = f" within {limit:g} s" if limit and not error.errno else ""
            raise ConnectTimeout(cause=f"{_where(target, proxy)} did not answer{within}") from error
        except _FAILURES as error:
            raise Unreachable(cause=f"{_where(target, proxy)}: {_why(error)}") from error

    async def _open(self, target: Origin, protocol: asyncio.Protocol) -> asyncio.Transport:
        addresses = await self._addresses(target.host, target.port)
        sock = await start_connection(
            addresses, happy_eyeballs_delay=_NEXT_ADDRESS, interleave=1, socket_factory=_socket
        )
        secure = target.scheme == "https"
        connection, _ = await asyncio.get_running_loop().create_connection(
            lambda: protocol,
            sock=sock,
            ssl=self._tls if secure else None,
            server_hostname=_tls_name(target) if secure else None,
        )
        return connection

    async def _open_tunnel(self, target: Origin, proxy: httpx.Proxy, exchange: Exchange) -> None:
        answer = asyncio.StreamReader(_MOST_HEAD)
        outer = await self._open(origin_of(proxy.url), asyncio.StreamReaderProtocol(answer))
        try:
            outer.write(connect_request(proxy, target))
            check_tunnel(await answer.readuntil(b"\r\n\r\n"))
            inner = await asyncio.get_running_loop().start_tls(
                outer, exchange, self._tls, server_hostname=_tls_name(target)
            )
            if inner is None:
                raise ConnectionResetError("The connection broke as the handshake ended.")
        except BaseException:
            outer.abort()
            raise
        exchange.connection_made(inner)  # `start_tls` leaves this to its caller

    async def _addresses(self, host: str, port: int) -> list[AddrInfoType]:
        """Return the addresses of *host*. Requests share a look-up that is under way, and none of them cancels it."""
        with suppress(OSError):
            return _look_up(host, port, socket.AI_NUMERICHOST)
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._names = {name: kept for name, kept in self._names.items() if kept[1] > now or not kept[0].done()}
        if (host, port) not in self._names:
            found = loop.run_in_executor(None, _look_up, host, port)
            found.add_done_callback(functools.partial(self._forget_failure, (host, port)))
            self._names[host, port] = found, now + _NAME_KEPT
        return await asyncio.shield(self._names[host, port][0])

    def _forget_failure(self, name: tuple[str, int], found: asyncio.Future[list[AddrInfoType]]) -> None:
        if found.cancelled() or found.exception() is not None:
            self._names.pop(name, None)


def _where(target: Origin, proxy: httpx.Proxy | None) -> str:
    """Return what was connected to, for the operator. The proxy's credentials are not in it."""
    via = f" through the proxy {origin_of(proxy.url).address}" if proxy else ""
    return target.address + via


def _why(error: Exception) -> str:
    """Return what went wrong, for the operator, in words that say what to look at."""
    match error:
        case ConnectionRefusedError():
            return "connection refused: nothing listens there"
        case socket.gaierror():
            return "the name cannot be looked up: " + (error.strerror or "unknown host")
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message}"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "RECORD_LAYER_FAILURE" | "PACKET_LENGTH_TOO_LONG"):
            return "it does not speak TLS: its URL probably begins with http://"
        case ssl.SSLError():
            return f"TLS failed: {error.reason or type(error).__name__}"
        case OSError(strerror=str(words)):
            return words
    return type(error).__name__


def _look_up(host: str, port: int, flags: int = 0) -> list[AddrInfoType]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))


def _tls_name(target: Origin) -> str:
    return target.host.rstrip(".")


def _socket(address: AddrInfoType) -> socket.socket:
    family, kind, protocol, *_ = address
    sock = socket.socket(family, kind, protocol)
    for option in _OPTIONS:
        sock.setsockopt(*option)
    return sock
