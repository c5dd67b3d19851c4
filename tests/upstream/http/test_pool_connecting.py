"""Connecting, over real sockets: names, addresses, TLS, and all that can go wrong before a request is sent."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.upstream.http.pool import READ
from tests.upstream.direct import LOOPS, Client, deaf, direct, drowned, hang, sockets
from tests.upstream.raw import Handler, Upstream, reply
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", LOOPS)]

OK = reply(b"ok")


async def test_refused() -> None:
    """A port where nobody listens, a name that is nobody's, one that cannot be, and another scheme: nothing is sent."""
    with deaf(1) as (_, url):
        pass
    async with direct() as client:
        for address in (url, "http://no-such-host.invalid/", f"http://{'x' * 70}.invalid/"):
            with pytest.raises(httpx.ConnectError):
                await client.get(address)
        with pytest.raises(httpx.UnsupportedProtocol):
            await client.get("ftp://127.0.0.1/")


async def test_connect_timeout() -> None:
    """A handshake that is not answered within the limit is a timeout, of TCP or of TLS; and so is a name."""
    before = sockets()
    with drowned() as (_, url):
        async with direct(connect=0.1) as client:
            with pytest.raises(httpx.ConnectTimeout):
                await client.get(url)
    with deaf(5) as (_, url):
        async with direct(connect=0.1) as client:
            with pytest.raises(httpx.ConnectTimeout):
                await client.get(url.replace("http:", "https:"))
    await until(lambda: sockets() <= before)


async def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """All who ask for a name at once share one look-up; it is known for a while, unless it failed; a limit holds."""
    asked: list[str] = []
    look_up = socket.getaddrinfo

    def slowly(host: str, port: int, type: int, flags: int) -> list[object]:
        if not flags:
            asked.append(host)
            time.sleep(0.1)
            host = "127.0.0.1" if host == "name.test" else host
        return list(look_up(host, port, type=type, flags=flags))

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    async with Upstream(*[OK] * 11) as upstream, direct() as client:
        url = upstream.url.replace("127.0.0.1", "name.test")
        hasty = asyncio.create_task(client.get(url))
        others = [asyncio.create_task(client.get(url)) for _ in range(10)]
        await until(lambda: asked)
        hasty.cancel()
        assert all(response.content == b"ok" for response in await asyncio.gather(*others))
        client.transport.drop(next(iter(client.transport._idle.popitem()[1])))
        await client.get(url)
        assert asked == ["name.test"]
        for _ in range(2):
            with pytest.raises(httpx.ConnectError):
                await client.get("http://no-such-host.invalid/")
        assert asked[1:] == ["no-such-host.invalid"] * 2
    async with direct(connect=0.02) as client:
        with pytest.raises(httpx.ConnectTimeout):
            await client.get("http://name.test/")


async def test_happy_eyeballs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a name's addresses, one that does not answer keeps nobody from the next."""
    look_up = socket.getaddrinfo

    def two(host: str, port: int, type: int, flags: int) -> list[object]:
        if host == "name.test":
            if flags:
                raise socket.gaierror
            ports = (listener.getsockname()[1], port)
            return [found for each in ports for found in look_up("127.0.0.1", each, type=socket.SOCK_STREAM)]
        return list(look_up(host, port, type=type, flags=flags))

    monkeypatch.setattr(socket, "getaddrinfo", two)
    with drowned() as (listener, _):
        async with Upstream(OK) as upstream, direct() as client:
            begun = time.monotonic()
            assert (await client.get(upstream.url.replace("127.0.0.1", "name.test"))).content == b"ok"
            assert time.monotonic() - begun < 3


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, signed by itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(signed.public_bytes(encoding) + private)
    return file


@asynccontextmanager
async def secure(certificate: Path, answer: Handler) -> AsyncIterator[str]:
    """A TLS server that gives each request to *answer*. Gives its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await answer(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


def trusting(certificate: Path, connect: float = 5) -> Client:
    return direct(ssl.create_default_context(cafile=certificate), connect)


async def test_tls(certificate: Path) -> None:
    """Over TLS, too, one connection serves many, a large body arrives whole, and a slow reader is waited for."""
    large = os.urandom(4 << 20)
    peers: set[int] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.add(writer.get_extra_info("peername")[1])
        writer.write(reply(large))
        await writer.drain()

    before = sockets()
    async with secure(certificate, serve) as url, trusting(certificate) as client:
        for _ in range(3):
            async with client.stream("GET", url) as response:
                await until(lambda: (exchange := client.only()) and exchange._paused)
                body = b""
                while data := await response.extensions[READ]():
                    body += data
                assert body == large
        assert len(peers) == 1
    await until(lambda: sockets() <= before)


async def test_tls_aborted(certificate: Path) -> None:
    """A stream over TLS that is left, and a handshake that is cancelled at any moment, leave no socket."""
    before = sockets()
    async with secure(certificate, hang) as url, trusting(certificate) as client:
        for _ in range(20):
            async with client.stream("GET", url) as response:
                assert await response.extensions[READ]() == b"begun"
        for turns in range(40):
            asked = asyncio.create_task(client.get(url))
            for _ in range(turns):
                await asyncio.sleep(0)
            asked.cancel()
            await asyncio.wait([asked])
        assert not client.transport._live
        async with asyncio.timeout(30):
            while len(sockets() - before) > 2:  # the listener's, and uvloop's copy of it
                await asyncio.sleep(0.001)


async def test_tls_distrust(certificate: Path) -> None:
    """A certificate that is not trusted, or of another name, and a server without TLS: no request is sent."""
    asked: list[object] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(reader)

    async with secure(certificate, serve) as url:
        async with direct(ssl.create_default_context()) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(url)
        async with trusting(certificate) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(url.replace("127.0.0.1", "localhost"))

            async def speak_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(OK)
                await reader.read()
                writer.close()

            plain = await asyncio.start_server(speak_plainly, "127.0.0.1", 0)
            async with plain:
                with pytest.raises(httpx.ConnectError):
                    await client.get(f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}/")
    assert asked == []
