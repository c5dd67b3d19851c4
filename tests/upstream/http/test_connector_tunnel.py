"""Connecting through a proxy, over real sockets: what the proxy sees, what it can do wrong, and what is left of it."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest

from app.errors import ConnectTimeout, Disconnected, Malformed, Unreachable
from app.upstream.http.pool import READ
from tests.upstream.direct import LOOPS, direct, hang, sockets
from tests.upstream.http.conftest import Certificate
from tests.upstream.raw import Handler, Upstream, hang_up, listening, reply
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", LOOPS)]

OK = reply(b"ok")


class Proxy:
    """A proxy that opens tunnels. It keeps the heads that it was sent, and counts the tunnels that are open."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.open = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        host, _, port = head.split()[1].decode().rpartition(":")
        from_upstream, to_upstream = await asyncio.open_connection(host, int(port))
        self.open += 1
        writer.write(b"HTTP/1.1 200 Connection established\r\nX-Proxy: yes\r\n\r\n")
        await asyncio.gather(pipe(reader, to_upstream), pipe(from_upstream, writer))
        self.open -= 1


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def proxying(tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    proxy = Proxy()
    async with listening(proxy.serve, tls) as port:
        proxy.url = f"{'http' if tls is None else 'https'}://user:word@127.0.0.1:{port}"
        yield proxy


@pytest.mark.parametrize("secure", [False, True], ids=["http proxy", "https proxy"])
async def test_tunnel(certificate: Certificate, secure: bool) -> None:
    """One tunnel serves many requests. The proxy sees where it leads; the upstream does not see the credentials."""
    before = sockets()
    async with (
        Upstream(*[OK] * 5, tls=certificate.server()) as upstream,
        proxying(certificate.server() if secure else None) as proxy,
        direct(certificate.client(), proxy=proxy.url) as client,
    ):
        for _ in range(5):
            assert (await client.post(upstream.url, content=b"secret")).content == b"ok"
        assert upstream.connections == 1
        assert upstream.requests[0].startswith(b"POST /v1 HTTP/1.1\r\n")
        assert b"Proxy-" not in b"".join(upstream.requests)
        (head,) = proxy.heads
        address = upstream.url.removeprefix("https://").removesuffix("/v1").encode()
        assert head.startswith(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (address, address))
        assert b"\r\nProxy-Authorization: Basic %b\r\n" % base64.b64encode(b"user:word") in head
    await until(lambda: sockets() <= before)


async def test_forwarding() -> None:
    """A plain request names the whole URL to the proxy, with the proxy's credentials, on a connection of its own."""
    async with Upstream(*[OK] * 2) as proxy:
        address = proxy.url.removesuffix("/v1").replace("http://", "http://user:word@")
        async with direct(proxy=address) as client:
            for _ in range(2):
                assert (await client.post("http://upstream.invalid:81/v1?q", content=b"x")).content == b"ok"
        assert proxy.connections == 2
        head, _, rest = proxy.requests[0].partition(b"\r\n\r\n")
        assert head.startswith(b"POST http://upstream.invalid:81/v1?q HTTP/1.1\r\nHost: upstream.invalid:81\r\n")
        assert head.endswith(b"\r\nProxy-Authorization: Basic " + base64.b64encode(b"user:word"))
        assert rest == b"x"


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000)
    await reader.read()


REFUSALS: dict[str, Handler | bytes] = {
    "407": reply(b"word", status=b"407 Who are you", headers=b'Proxy-Authenticate: Basic realm="word"\r\n'),
    "403": reply(b"word", status=b"403 Filtered"),
    "502": reply(b"word", status=b"502 Bad Gateway"),
    "cut": b"HTTP/1.1 200 OK\r\n",
    "not HTTP": b"SSH-2.0-word\r\n\r\n",
    "closed": hang_up,
    "endless": endless,
    "not TLS": b"HTTP/1.1 200 OK\r\n\r\n" + b"nonsense" * 9,
}


@pytest.mark.parametrize("kind", REFUSALS)
async def test_refusals(kind: str) -> None:
    """A proxy that opens no tunnel makes the upstream unreachable. Nothing was sent, and no credential is told."""
    answer = REFUSALS[kind]

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        if isinstance(answer, bytes):
            writer.write(answer)
            writer.close()
        else:
            await answer(reader, writer)

    before = sockets()
    heads: list[bytes] = []
    async with listening(refuse) as port, direct(proxy=f"http://user:word@127.0.0.1:{port}") as client:
        with pytest.raises(Unreachable) as raised:
            await client.post("https://upstream.invalid/v1", content=b"secret")
        assert not client.transport._live
    assert len(heads) == 1
    told = f"{raised.value}{raised.value.__cause__}{raised.value.cause}"
    assert "word" not in told
    assert "secret" not in told
    if kind.isdecimal():
        assert raised.value.cause == f"the proxy refused to pass the request on: it answered with status {kind}"
    elif kind != "not HTTP":
        assert raised.value.cause.startswith(f"upstream.invalid:443 through the proxy 127.0.0.1:{port}: ")
    await until(lambda: sockets() <= before)


async def test_forwarding_refused() -> None:
    """A 407 is the proxy's own: the upstream was not asked. What else a proxy answers could be the upstream's word."""
    answers = (reply(b"word", status=b"407 No"), reply(b"no", status=b"403 No"))
    async with Upstream(*answers) as proxy, direct(proxy=proxy.url.removesuffix("/v1")) as client:
        with pytest.raises(Unreachable) as raised:
            await client.post("http://upstream.invalid/v1", content=b"secret")
        assert raised.value.cause == "the proxy refused to pass the request on: it answered with status 407"
        assert (await client.get("http://upstream.invalid/v1")).status_code == 403


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["proxy", "TLS"])
async def test_timeout(answer: bytes) -> None:
    """The limit on connecting covers the proxy's answer, and the handshake in the tunnel."""

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()

    before = sockets()
    async with listening(stall) as port, direct(connect=0.1, proxy=f"http://127.0.0.1:{port}") as client:
        with pytest.raises(ConnectTimeout):
            await client.get("https://upstream.invalid/v1")
        assert not client.transport._live
    await until(lambda: sockets() <= before)


async def test_distrust(certificate: Certificate) -> None:
    """The upstream's certificate is checked in the tunnel, and the proxy's before anything is said to it."""
    async with Upstream(tls=certificate.server()) as upstream, proxying() as proxy:
        async with direct(ssl.create_default_context(), proxy=proxy.url) as client:
            with pytest.raises(Unreachable):
                await client.get(upstream.url)
        async with direct(certificate.client(), proxy=proxy.url) as client:
            with pytest.raises(Unreachable):
                await client.get(upstream.url.replace("127.0.0.1", "localhost"))
        assert upstream.requests == []
    async with proxying(certificate.server()) as proxy, direct(ssl.create_default_context(), proxy=proxy.url) as client:
        with pytest.raises(Unreachable):
            await client.get("https://upstream.invalid/v1")
        assert proxy.heads == []


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (CHUNKED + b"this is no chunk\r\n", Malformed),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", Malformed),
        (hang_up, Disconnected),
    ],
    ids=["torn chunk", "endless head", "hang-up"],
)
async def test_faults_in_a_tunnel(certificate: Certificate, answer: Handler | bytes, error: type[Exception]) -> None:
    """An upstream behind a tunnel breaks as one that is asked directly does, and at once."""
    async with (
        Upstream(answer, tls=certificate.server()) as upstream,
        proxying() as proxy,
        direct(certificate.client(), proxy=proxy.url) as client,
        asyncio.timeout(30),
    ):
        with pytest.raises(error):
            await client.get(upstream.url)
        await until(lambda: not proxy.open)


async def test_aborted(certificate: Certificate) -> None:
    """A stream through a tunnel that is left, and a request that is cancelled at any moment, leave no socket."""
    before = sockets()
    async with (
        Upstream(*[hang] * 300, tls=certificate.server()) as upstream,
        proxying() as proxy,
        direct(certificate.client(), proxy=proxy.url) as client,
    ):
        for _ in range(10):
            async with client.stream("GET", upstream.url) as response:
                assert await response.extensions[READ]() == b"begun"
        for turns in range(100):
            asked = asyncio.create_task(client.get(upstream.url))
            for _ in range(turns):
                await asyncio.sleep(0)
            asked.cancel()
            await asyncio.wait([asked])
            assert asked.cancelled()
        assert not client.transport._live
        assert not client.transport._idle
        await until(lambda: not proxy.open)
        await upstream.idle()
    await until(lambda: sockets() <= before)


async def test_closing_while_a_tunnel_is_made(certificate: Certificate) -> None:
    """A transport that is closed meanwhile does not use the tunnel that it gets."""
    asked, answering = asyncio.Event(), asyncio.Event()

    async with Upstream(OK, tls=certificate.server()) as upstream, proxying() as proxy:

        async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.set()
            await answering.wait()
            await proxy.serve(reader, writer)

        async with listening(slowly) as port, direct(certificate.client(), proxy=f"http://127.0.0.1:{port}") as client:
            waiting = asyncio.create_task(client.transport.handle_async_request(httpx.Request("GET", upstream.url)))
            await asked.wait()
            await client.transport.aclose()
            answering.set()
            with pytest.raises(Unreachable):
                await waiting
            await until(lambda: not proxy.open)
        assert upstream.requests == []
