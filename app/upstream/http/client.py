"""The one place that asks upstream: httpx over our own transport, or over aiohttp where a proxy is in between.

It gives three things: a client, a request as a context manager, and the body as decoded bytes. Every fault of the
layers below leaves here as an `UpstreamError`; leaving the context at any point aborts the request.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp.transport import AiohttpResponseStream

from app import __version__
from app.errors import ConnectTimeout, Disconnected, Malformed, Unreachable, UpstreamError
from app.upstream.http.pool import READ, Http1Transport

Read = Callable[[float | None], Awaitable[bytes]]
"""Returns whatever has arrived of a body, b"" at its end; given seconds, it looks only after so long."""

USER_AGENT = f"chat-sse/{__version__}"

_MOST_INFLATED = 4 * 1024 * 1024
_MOST_REDIRECTS = 3
# Compressed bytes to inflate at once.
_SLICE = 16 * 1024


def create_client(base_url: str, connect_timeout: float) -> httpx.AsyncClient:
    """Return a client for one upstream. It opens nothing until its first request, which must come from a running loop.

    Only connecting has a timeout here (*connect_timeout* seconds, 0 for none): all others belong to the relay. The
    proxy settings of the environment hold except for upstreams on loopback.
    """
    tls = httpx.create_ssl_context()
    return httpx.AsyncClient(
        transport=_proxied(tls) if _has_proxy(base_url) else Http1Transport(tls),
        # httpx-aiohttp makes "pool" the limit on all of connecting, name resolution included.
        timeout=httpx.Timeout(None, connect=connect_timeout or None, pool=connect_timeout or None),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        # httpx's own jar would carry one user's cookie to the next.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


def _has_proxy(url: str) -> bool:
    """Whether the environment has a proxy for *url*, by the rules that aiohttp goes by, too. Loopback never has one."""
    parts = urlsplit(url)
    return parts.scheme in getproxies() and not _is_loopback(url) and not proxy_bypass(parts.hostname or "")


def _proxied(tls: ssl.SSLContext) -> AiohttpTransport:
    def session() -> aiohttp.ClientSession:
        # Our own connector, because httpx-aiohttp turns "no limit" into aiohttp's default of 100 connections.
        connector = aiohttp.TCPConnector(limit=0, ssl=tls, keepalive_timeout=15)
        return aiohttp.ClientSession(
            connector=connector,
            trust_env=True,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        )

    return _ProxiedTransport(client=session, verify=tls)


class _ProxiedTransport(AiohttpTransport):
    """httpx-aiohttp's transport, which gives each response aiohttp's own way to read whatever has arrived.

    The way through httpx is three generators more per read, and never more than 16 KiB: 1.3 µs of CPU per delta.
    """

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        stream = cast(AiohttpResponseStream, response.stream)
        response.extensions[READ] = pausing(stream._aiohttp_response.content.readany)
        return response


def post(
    client: httpx.AsyncClient, url: str, headers: Mapping[str, str], content: bytes
) -> AbstractAsyncContextManager[httpx.Response]:
    """Send one POST and give its response as soon as the headers are there. Raises UpstreamError."""
    return _sent(client, "POST", url, headers, content)


def get(client: httpx.AsyncClient, url: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[httpx.Response]:
    """Send one GET and give its response as soon as the headers are there. Raises UpstreamError."""
    return _sent(client, "GET", url, headers)


@asynccontextmanager
async def _sent(
    client: httpx.AsyncClient, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None
) -> AsyncIterator[httpx.Response]:
    """Send one request.

    Redirects that keep the method are followed, as OpenAI's own SDKs do (H20); by hand, because httpx would first read
    the redirect's body, however large. Only where they lead does the key go that is meant for it.
    """
    response = await _send(client, method, httpx.URL(url), headers, content)
    try:
        for _ in range(_MOST_REDIRECTS):
            if response.status_code not in (307, 308) or "location" not in response.headers:
                break
            came_from = response.url
            with faults(answered=True):
                await response.aclose()
                target = came_from.join(response.headers["location"])
            if not _same_owner(came_from, target):
                raise Unreachable("The upstream service redirects to another host.")
            response = await _send(client, method, target, headers, content)
        yield response
    finally:
        with faults(answered=True):
            await response.aclose()


async def _send(
    client: httpx.AsyncClient, method: str, url: httpx.URL, headers: Mapping[str, str], content: bytes | None
) -> httpx.Response:
    with faults(answered=False):
        return await client.send(client.build_request(method, url, headers=headers, content=content), stream=True)


def _same_owner(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether a key for *one* may be sent to *other*: the same origin, or the same host's https."""
    if (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port):
        return True
    return one.host == other.host and other.scheme == "https" and other.port is None


def reading(response: httpx.Response) -> Read:
    """Return what reads the body, decoded.

    It raises what `faults` has names for. Raises Malformed itself for an encoding that was not asked for.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        read: Read = response.extensions[READ]
        return read
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Malformed("The upstream service used a content encoding that was not asked for.")
    inflated = _inflated(response.stream)  # type: ignore[arg-type]  # ours are async

    async def read_inflated() -> bytes:
        return await anext(inflated, b"")

    return pausing(read_inflated)


def pausing(read: Callable[[], Awaitable[bytes]]) -> Read:
    """Return *read* with a pause before it. What comes meanwhile is its own affair."""

    async def read_after(pause: float | None) -> bytes:
        if pause:
            await asyncio.sleep(pause)
        return await read()

    return read_after


async def body(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives, decoded. Raises UpstreamError."""
    read = reading(response)
    with faults(answered=True):
        while data := await read(None):
            yield data


async def _inflated(stream: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield a gzip or zlib body as it arrives, decompressed, up to where the compressed data ends.

    What is behind that is not read: zlib would keep it all. Another member of a gzip body goes on (RFC 1952, 2.2).
    """
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: zlib or gzip, by the header
    async for arrived in stream:
        for start in range(0, len(arrived), _SLICE):
            data = arrived[start : start + _SLICE]
            while data:
                if inflate.eof:
                    if not data.startswith(b"\x1f"):
                        return
                    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
                # Text shrinks tenfold: what grows this much is a bomb.
                inflated = inflate.decompress(data, _MOST_INFLATED)
                if inflate.unconsumed_tail:
                    raise Malformed("The upstream service sent a body that is compressed beyond reason.")
                if inflated:  # nothing would be the end
                    yield inflated
                data = inflate.unused_data


async def read_capped(response: httpx.Response, limit: int, seconds: float) -> bytes:
    """Return at most *limit* bytes of the body that come within *seconds*, however long or broken it is."""
    kept = bytearray()
    deadline = asyncio.get_running_loop().time() + seconds
    with suppress(UpstreamError):  # what came is all there is to say about an error that is being reported anyway
        async with aclosing(body(response)) as chunks, aclosing(until(deadline, chunks)) as timely:
            async for data in timely:
                kept += data
                if len(kept) >= limit:
                    break
    return bytes(kept[:limit])


async def until(deadline: float, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield from *chunks* up to *deadline* (loop time), then end quietly; *chunks* cannot be read on after that."""
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                data = await anext(chunks)
        except (TimeoutError, StopAsyncIteration):
            return
        yield data


@contextmanager
def faults(answered: bool) -> Iterator[None]:
    """Give every fault of the layers below our name for it. *answered*: the response's head has come.

    httpx-aiohttp reports nearly every lost connection as a connect timeout, also that of a server which closed before
    it answered. But the request was sent then, and may be running; so it is aiohttp's own exception that is looked at.
    """
    try:
        yield
    except httpx.HTTPError as error:
        cause = error.__cause__
        raise _fault(cause if isinstance(cause, aiohttp.ClientError) else error, answered) from error
    except (httpx.InvalidURL, aiohttp.ClientError, OSError, zlib.error) as error:
        raise _fault(error, answered) from error


def _fault(cause: BaseException, answered: bool) -> UpstreamError:
    match cause:
        case aiohttp.ConnectionTimeoutError() | httpx.ConnectTimeout() if not answered:
            return ConnectTimeout()
        case aiohttp.ClientConnectorError() | aiohttp.InvalidURL() | aiohttp.ClientHttpProxyError():
            return Unreachable()
        case httpx.ConnectError() | httpx.UnsupportedProtocol() | httpx.InvalidURL() | httpx.LocalProtocolError():
            return Unreachable()
        case zlib.error():
            return Malformed("The upstream service sent a broken compressed body.")
        case aiohttp.ClientResponseError() | httpx.RemoteProtocolError():
            return Malformed("The upstream service did not speak HTTP.")
        case _:
            return Disconnected()


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
