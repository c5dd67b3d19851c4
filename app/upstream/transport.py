"""The one place that talks to upstream's socket: httpx over aiohttp's C parser.

It gives three things: a client, a request as a context manager, and the body as decoded bytes. Every fault of the
layers below leaves here as an `UpstreamError`; leaving the context at any point aborts the request.
"""

from __future__ import annotations

import asyncio
import ipaddress
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from app import __version__
from app.errors import ConnectTimeout, Disconnected, Malformed, Unreachable, UpstreamError

USER_AGENT = f"chat-sse/{__version__}"

# One inflated piece: a compressed read may grow a thousandfold, so it is given out in pieces that the reader's bounds
# can stop (gzip bombs).
_INFLATED = 256 * 1024


def create_client(base_url: str, connect_timeout: float) -> httpx.AsyncClient:
    """Return a client for one upstream. It opens nothing until its first request, which must come from a running loop.

    Only connecting has a timeout here (*connect_timeout* seconds, 0 for none): all others belong to the relay. The
    proxy settings of the environment hold except for upstreams on loopback.
    """
    tls = httpx.create_ssl_context()

    def session() -> aiohttp.ClientSession:
        # Our own connector, because httpx-aiohttp turns "no limit" into aiohttp's default of 100 connections.
        connector = aiohttp.TCPConnector(limit=0, ssl=tls, keepalive_timeout=15)
        return aiohttp.ClientSession(
            connector=connector,
            trust_env=not _is_loopback(base_url),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        )

    return httpx.AsyncClient(
        transport=AiohttpTransport(client=session, verify=tls),
        timeout=httpx.Timeout(None, connect=connect_timeout or None),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        follow_redirects=True,  # as OpenAI's own SDKs do (H20); httpx drops the key when the origin changes
    )


@asynccontextmanager
async def post(
    client: httpx.AsyncClient, url: str, headers: Mapping[str, str], content: bytes
) -> AsyncIterator[httpx.Response]:
    """Send one POST and give its response as soon as the headers are there. Raises UpstreamError."""
    request = client.build_request("POST", url, headers=headers, content=content)
    with _faults(answered=False):
        response = await client.send(request, stream=True)
    try:
        yield response
    finally:
        with _faults(answered=True):
            await response.aclose()


async def body(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives, decoded. Raises UpstreamError."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    inflate = None
    if encoding in ("gzip", "x-gzip", "deflate"):
        inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: zlib or gzip, by the header
    elif encoding not in ("", "identity"):
        raise Malformed("The upstream service used a content encoding that was not asked for.")
    with _faults(answered=True):
        async for data in response.stream:  # type: ignore[union-attr]  # ours is always an async stream
            if inflate is None:
                yield data
                continue
            while data:
                yield inflate.decompress(data, _INFLATED)
                data = inflate.unconsumed_tail


async def read_capped(response: httpx.Response, limit: int) -> bytes:
    """Return at most *limit* bytes of the body, however long or broken it is."""
    kept = bytearray()
    try:
        async for data in body(response):
            kept += data
            if len(kept) >= limit:
                break
    except UpstreamError:
        pass  # what came is all there is to say about an error that is being reported anyway
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
def _faults(answered: bool) -> Iterator[None]:
    """Give every fault of the layers below our name for it. *answered*: the response's head has come.

    httpx-aiohttp reports nearly every lost connection as a connect timeout, also that of a server which closed before
    it answered. But the request was sent then, and may be running; so it is aiohttp's own exception that is looked at.
    """
    try:
        yield
    except httpx.HTTPError as error:
        raise _fault(error.__cause__ or error, answered) from error
    except (httpx.InvalidURL, aiohttp.ClientError, OSError, zlib.error) as error:
        raise _fault(error, answered) from error


def _fault(cause: BaseException, answered: bool) -> UpstreamError:
    match cause:
        case aiohttp.ConnectionTimeoutError() if not answered:
            return ConnectTimeout()
        case aiohttp.ClientConnectorError() | aiohttp.InvalidURL() | aiohttp.ClientHttpProxyError():
            return Unreachable()
        case httpx.UnsupportedProtocol() | httpx.InvalidURL() | httpx.TooManyRedirects():
            return Unreachable()
        case zlib.error():
            return Malformed("The upstream service sent a broken compressed body.")
        case aiohttp.ClientResponseError():
            return Malformed("The upstream service did not speak HTTP.")
        case _:
            return Disconnected()


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
