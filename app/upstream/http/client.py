"""The one place that asks upstreams: a client, a request as a context manager, and the body as decoded bytes.

The client sends httpx's requests over a transport of our own and gives httpx's responses. It is not httpx's own client:
its cookies, redirects, authentication and hooks, none of which is wanted here, took a tenth of a short stream's time.

Every fault leaves here as an `UpstreamError`. Leaving the context of a request at any point aborts it.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from functools import lru_cache
from types import TracebackType
from typing import Protocol, Self

import httpx

from app import __version__
from app.errors import Malformed, Unreachable, UpstreamError
from app.upstream.http.pool import READ, SENDING, Http1Transport
from app.upstream.http.proxies import find_proxy, origin_of


class Read(Protocol):
    """Reads a body."""

    def __call__(self, pause: float | None = None, until: float | None = None) -> Awaitable[bytes]:
        """Return whatever has arrived, or wait for some; b"" at the body's end. Raises UpstreamError.

        It looks only after *pause* seconds, and raises TimeoutError if it still waits at *until*, in the loop's time.
        """
        ...


USER_AGENT = f"chat-sse/{__version__}"

_MOST_INFLATED = 4 * 1024 * 1024
_MOST_REDIRECTS = 3
_COMPRESSED = frozenset({"gzip", "x-gzip", "deflate"})
_UNREADABLE = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz"})
# A body that says that it was compressed more often than this was not.
_MOST_CODINGS = 4
# Compressed bytes to inflate at once.
_SLICE = 16 * 1024


class Client:
    """Sends requests over *transport*, and closes that at the end of its context.

    Only connecting has a timeout here (*connect_timeout* seconds, 0 for none): all others belong to the relay.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, connect_timeout: float) -> None:
        self._transport = transport
        self._timeout = {"connect": connect_timeout or None}

    async def send(
        self, method: str, url: httpx.URL, headers: httpx.Headers, content: bytes, sending: Callable[[], None] | None
    ) -> httpx.Response:
        """Send one request, and return its response as soon as the headers are there. Raises UpstreamError."""
        extensions = {"timeout": self._timeout, SENDING: sending}
        # With a stream httpx adds no headers: it would read all of them again for that.
        request = httpx.Request(method, url, headers=headers, stream=httpx.ByteStream(content), extensions=extensions)
        request.headers["Host"] = url.netloc.decode("ascii")  # the request's own copy of *headers*
        if content or method == "POST":
            request.headers["Content-Length"] = str(len(content))
        request.read()  # here, since it takes less than `aread`
        return await self._transport.handle_async_request(request)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.aclose()


def create_client(base_url: str, connect_timeout: float, keep_idle: float = 4.0) -> Client:
    """Return a client for one upstream. It opens nothing until its first request, which must come from a running loop.

    An idle connection is kept for *keep_idle* seconds, unless the upstream says for how long. The environment's proxies
    hold, except for upstreams on loopback addresses. Raises Unreachable if the proxy for *base_url* is not supported,
    or if the certificates that the environment names cannot be read.
    """
    find_proxy(origin_of(httpx.URL(base_url)))
    return Client(Http1Transport(_trust(), find_proxy, keep_idle), connect_timeout)


def headers_of(*given: Mapping[str, str]) -> httpx.Headers:
    """Return the headers of requests: the service's own, and those that are *given*, of which later ones replace."""
    own = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Connection": "keep-alive"}
    headers = httpx.Headers({"Host": "", **own})  # a request's host is written there: it goes first (RFC 9110, 7.2)
    for more in given:
        headers.update(more)
    return headers


def _trust() -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # an `SSLError` is one
        name = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"  # as httpx looks for them
        raise Unreachable(f"{name} names certificates that cannot be read.") from error


async def response_to(
    client: Client,
    method: str,
    url: str,
    headers: httpx.Headers,
    content: bytes = b"",
    sending: Callable[[], None] | None = None,
) -> httpx.Response:
    """Send one request, and return its response as soon as the headers are there. It has to be closed.

    *sending* is called when a connection is there, just before anything is sent. Raises UpstreamError.

    Redirects that keep the method are followed on the same host, as OpenAI's own SDKs do (row H20). Their bodies, which
    may be large, are not read.
    """
    response = await client.send(method, _parsed(url), headers, content, sending)
    for _ in range(_MOST_REDIRECTS):
        if response.status_code not in (307, 308) or "location" not in response.headers:
            break
        await response.aclose()
        target = _target_of(response)
        if not _is_same_owner(response.url, target):
            raise Unreachable("The upstream service redirects to another host.")
        response = await client.send(method, target, headers, content, sending)
    return response


@asynccontextmanager
async def send(client: Client, method: str, url: str, headers: httpx.Headers) -> AsyncIterator[httpx.Response]:
    """Send a request without content, give its response, and close that. Raises UpstreamError."""
    response = await response_to(client, method, url, headers)
    try:
        yield response
    finally:
        await response.aclose()


_parsed = lru_cache(maxsize=64)(httpx.URL)  # nearly all requests of an upstream go to one


def _target_of(response: httpx.Response) -> httpx.URL:
    """Return where *response* redirects to. Raises Malformed."""
    try:
        return response.url.join(response.headers["location"])
    except (httpx.InvalidURL, ValueError) as error:
        raise Malformed("The upstream service redirects to something that is no URL.") from error


def _is_same_owner(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether a key for *one* may be sent to *other*: the same origin, or the same host's https."""
    if (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port):
        return True
    return one.host == other.host and other.scheme == "https" and other.port is None


def reading(response: httpx.Response) -> Read:
    """Return what reads the body, decoded. It raises UpstreamError.

    Raises Malformed itself for an encoding that was not asked for and cannot be read.
    """
    named = [coding.strip(" \t\"'").lower() for coding in response.headers.get("content-encoding", "").split(",")]
    read: Read = response.extensions[READ]
    if _UNREADABLE.intersection(named):
        raise Malformed("The upstream service used a content encoding that was not asked for.")
    # Any other word is no encoding: `none` keeps proxies from compressing, and some write a character set (row H23).
    times = sum(coding in _COMPRESSED for coding in named)
    if not times:
        return read
    inflated = _chunks(read)
    for _ in range(min(times, _MOST_CODINGS)):
        inflated = _inflated(inflated)

    async def read_inflated() -> bytes:
        return await anext(inflated, b"")

    return pausing(read_inflated)


def pausing(read: Callable[[], Awaitable[bytes]]) -> Read:
    """Return *read* with a pause before it, and a time until which it waits."""

    async def read_after(pause: float | None = None, until: float | None = None) -> bytes:
        if pause:
            await asyncio.sleep(pause)
        if until is None:
            return await read()
        async with asyncio.timeout_at(until):
            return await read()

    return read_after


async def body(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives, decoded. Raises UpstreamError."""
    read = reading(response)
    while data := await read():
        yield data


async def _chunks(read: Read) -> AsyncGenerator[bytes, None]:
    while arrived := await read():
        yield arrived


async def _inflated(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield a gzip or zlib body as it arrives, decompressed, up to where the compressed data ends.

    What follows that is not read: zlib would keep it all. Another member of a gzip body goes on (RFC 1952, 2.2). A body
    that is not compressed, whatever its header says, is yielded as it is (row H23).
    """
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: zlib or gzip, by the header
    beginning = b""
    plain: bool | None = None  # not known yet
    async for arrived in chunks:
        if plain is None:
            beginning += arrived
            if len(beginning) < 2:
                continue
            plain = not _is_compressed(beginning)
            arrived = beginning
        if plain:
            yield arrived
            continue
        for start in range(0, len(arrived), _SLICE):
            data = arrived[start : start + _SLICE]
            while data:
                if inflate.eof:
                    if not data.startswith(b"\x1f"):
                        return
                    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
                try:
                    inflated = inflate.decompress(data, _MOST_INFLATED)
                except zlib.error as error:
                    raise Malformed("The upstream service sent a broken compressed body.") from error
                # Text shrinks tenfold: what grows this much is a bomb.
                if inflate.unconsumed_tail:
                    raise Malformed("The upstream service sent a body that is compressed beyond reason.")
                if inflated:  # an empty piece would be the body's end
                    yield inflated
                data = inflate.unused_data
    if plain is None and beginning:
        yield beginning


def _is_compressed(beginning: bytes) -> bool:
    """Whether a body begins as gzip or zlib do (RFC 1952, 2.3.1; RFC 1950, 2.2), which no text does."""
    return beginning[:2] == b"\x1f\x8b" or (beginning[0] & 0x8F == 8 and int.from_bytes(beginning[:2]) % 31 == 0)


async def read_capped(response: httpx.Response, limit: int, seconds: float) -> bytes:
    """Return at most *limit* bytes of the body that come within *seconds*, however long or broken it is."""
    kept = bytearray()
    # What came is all there is to say about an error that is being reported anyway.
    with suppress(UpstreamError, TimeoutError):
        async with asyncio.timeout(seconds), aclosing(body(response)) as chunks:
            async for data in chunks:
                kept += data
                if len(kept) >= limit:
                    break
    return bytes(kept[:limit])
