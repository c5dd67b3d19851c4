"""Connecting, over real sockets: names, addresses, TLS, and all that can go wrong before a request is sent."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time

import pytest

from app.errors import ConnectTimeout, Unreachable
from app.upstream.http import connector
from app.upstream.http.pool import READ
from tests.upstream.direct import LOOPS, Client, deaf, direct, drowned, hang, sockets
from tests.upstream.http.conftest import Certificate
from tests.upstream.raw import Upstream, listening, reply
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", LOOPS)]

OK = reply(b"ok")


async def test_refused() -> None:
    """A closed port, a name that does not exist, one that cannot be, and another scheme: nothing is sent.

    The operator is told where it was, and why.
    """
    with deaf(1) as (_, url):
        pass
    reasons = {
        url: f"{url.removeprefix('http://').rstrip('/')}: connection refused: nothing listens there",
        "http://no-such-host.invalid/": "no-such-host.invalid:80: the name cannot be looked up: ",
        f"http://{'x' * 70}.invalid/": f"{'x' * 70}.invalid:80: ",
    }
    async with direct() as client:
        for address, reason in reasons.items():
            with pytest.raises(Unreachable) as raised:
                await client.get(address)
            assert raised.value.cause.startswith(reason)
            assert raised.value.text == Unreachable.message
        with pytest.raises(Unreachable):
            await client.get("ftp://127.0.0.1/")


async def test_connect_timeout() -> None:
    """A handshake that is not answered within the limit is a timeout, of TCP or of TLS; and so is a name."""
    before = sockets()
    with drowned() as (_, url):
        async with direct(connect=0.1) as client:
            with pytest.raises(ConnectTimeout) as raised:
                await client.get(url)
            assert raised.value.cause.endswith(" did not answer within 0.1 s")
    with deaf(5) as (_, url):
        async with direct(connect=0.1) as client:
            with pytest.raises(ConnectTimeout):
                await client.get(url.replace("http:", "https:"))
    await until(lambda: sockets() <= before)


async def test_the_kernel_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that does not answer is a timeout, too, if there is no limit, or if the kernel has waited enough."""
    impatient = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1)  # it looks after a second
    monkeypatch.setattr(connector, "_OPTIONS", (*connector._OPTIONS, impatient))
    with drowned() as (_, url):
        for limit in (None, 600):
            async with direct(connect=limit) as client, asyncio.timeout(30):
                with pytest.raises(ConnectTimeout) as raised:
                    await client.get(url)
                assert raised.value.cause == f"{url.removeprefix('http://').rstrip('/')} did not answer"


async def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """All who ask for a name at once share one look-up; it is known for a while, unless it failed; a limit holds."""
    asked: list[str] = []
    look_up = socket.getaddrinfo
    given_up = threading.Event()

    def slowly(host: str, port: int, type: int, flags: int) -> list[object]:
        if not flags:
            asked.append(host)
            if host == "stuck.test":
                given_up.wait(30)
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
        client.transport.drop(next(iter(client.transport._idle)))
        await client.get(url)
        assert asked == ["name.test"]
        for _ in range(2):
            with pytest.raises(Unreachable):
                await client.get("http://no-such-host.invalid/")
        assert asked[1:] == ["no-such-host.invalid"] * 2
    async with direct(connect=0.02) as client:
        with pytest.raises(ConnectTimeout):
            await client.get("http://stuck.test/")
    given_up.set()


async def test_happy_eyeballs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a name's addresses, one that does not answer does not keep the client from the next."""
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
        async with Upstream(OK) as upstream, direct(connect=600) as client, asyncio.timeout(30):
            assert (await client.get(upstream.url.replace("127.0.0.1", "name.test"))).content == b"ok"


def trusting(certificate: Certificate, connect: float = 5) -> Client:
    return direct(certificate.client(), connect)


async def test_tls(certificate: Certificate) -> None:
    """Over TLS, too, one connection serves many, a large body arrives whole, and a slow reader is waited for."""
    large = os.urandom(4 << 20)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(large))
        await writer.drain()

    before = sockets()
    async with Upstream(*[serve] * 3, tls=certificate.server()) as upstream, trusting(certificate) as client:
        for _ in range(3):
            async with client.stream("GET", upstream.url) as response:
                await until(lambda: (exchange := client.only()) and exchange._paused)
                body = b""
                while data := await response.extensions[READ]():
                    body += data
                assert body == large
        assert upstream.connections == 1
    await until(lambda: sockets() <= before)


async def test_tls_reasons(certificate: Certificate) -> None:
    """TLS to a port without it, and a certificate that is not trusted, are told apart for the operator."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with listening(refuse) as port, trusting(certificate) as client:
        with pytest.raises(Unreachable) as raised:
            await client.get(f"https://127.0.0.1:{port}")
        assert raised.value.cause.endswith(": it does not speak TLS: its URL probably begins with http://")
    async with Upstream(OK, tls=certificate.server()) as upstream, direct() as client:
        with pytest.raises(Unreachable) as raised:
            await client.get(upstream.url)
        assert ": its certificate is not trusted: self-signed certificate" in raised.value.cause


async def test_tls_aborted(certificate: Certificate) -> None:
    """A stream over TLS that is left, and a handshake that is cancelled at any moment, leave no socket."""
    before = sockets()
    async with Upstream(*[hang] * 60, tls=certificate.server()) as upstream, trusting(certificate) as client:
        for _ in range(20):
            async with client.stream("GET", upstream.url) as response:
                assert await response.extensions[READ]() == b"begun"
        for turns in range(40):
            asked = asyncio.create_task(client.get(upstream.url))
            for _ in range(turns):
                await asyncio.sleep(0)
            asked.cancel()
            await asyncio.wait([asked])
        assert not client.transport._live
        async with asyncio.timeout(30):
            while len(sockets() - before) > 2:  # the listener's, and uvloop's copy of it
                await asyncio.sleep(0.001)


async def test_tls_distrust(certificate: Certificate) -> None:
    """A certificate that is not trusted, or of another name, and a server without TLS: no request is sent."""
    async with Upstream(tls=certificate.server()) as upstream:
        async with direct(ssl.create_default_context()) as client:
            with pytest.raises(Unreachable):
                await client.get(upstream.url)
        async with trusting(certificate) as client:
            with pytest.raises(Unreachable):
                await client.get(upstream.url.replace("127.0.0.1", "localhost"))
        async with listening(speak_plainly) as port, trusting(certificate) as client:
            with pytest.raises(Unreachable):
                await client.get(f"https://127.0.0.1:{port}/")
    assert upstream.requests == []


async def speak_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)
    await reader.read()
    writer.close()
