"""Upstreams behind a real proxy, Debian's tinyproxy: plain requests that it forwards, and TLS in its tunnels."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.errors import Disconnected, Malformed, Unreachable
from app.upstream.http.pool import READ
from tests.ports import free_port
from tests.real.conftest import Start
from tests.real.processes import Server, log_file
from tests.upstream.direct import LOOPS, Client, direct, hang, sockets
from tests.upstream.http.conftest import Certificate, certificate, no_proxies
from tests.upstream.raw import CHUNK, FINISH, Handler, Upstream, reply
from tests.waiting import until

pytestmark = pytest.mark.real

__all__ = ["certificate", "no_proxies"]

on_both_loops = pytest.mark.parametrize("anyio_backend", LOOPS)
plain_and_tunnel = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tunnel"])

OK = reply(b"ok")
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n%s\r\n"
EVENTS = CHUNK % b"hello" + FINISH


def launch_tinyproxy(directory: Path, *lines: str) -> Server:
    """Start tinyproxy with *lines* in its configuration. Its url has the credentials `user` and `word`."""
    port = free_port()
    config = directory / "tinyproxy.conf"
    config.write_text("\n".join((f"Port {port}", "Listen 127.0.0.1", "Timeout 60", "LogLevel Connect", *lines, "")))
    binary = shutil.which("tinyproxy") or "/usr/bin/tinyproxy"
    proxy = Server([binary, "-d", "-c", str(config)], log_file(directory, "tinyproxy"))
    proxy.awaits("Reloading config file finished")  # it listens by then
    proxy.url = f"http://user:word@127.0.0.1:{port}"
    return proxy


def tunnels(proxy: Server) -> int:
    """Return how many tunnels it was asked for."""
    return proxy.text().count(": CONNECT ")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A tinyproxy that asks for credentials."""
    server = launch_tinyproxy(tmp_path_factory.mktemp("proxy"), "BasicAuth user word")
    yield server
    server.stop()


@asynccontextmanager
async def behind(
    proxy: Server, certificate: Certificate, tls: bool, *handlers: Handler | bytes
) -> AsyncIterator[tuple[Upstream, Client]]:
    """Run an upstream, with or without TLS, and a client that asks it through *proxy*."""
    context = certificate.server() if tls else None
    async with Upstream(*handlers, tls=context) as upstream, direct(certificate.client(), proxy=proxy.url) as client:
        yield upstream, client


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


@pytest.mark.anyio
@on_both_loops
@plain_and_tunnel
async def test_requests(proxy: Server, certificate: Certificate, tls: bool) -> None:
    """Requests arrive whole, and without the proxy's credentials. A tunnel is used again."""
    large, before = b"0123456789abcdef" * (1 << 16), tunnels(proxy)
    async with behind(proxy, certificate, tls, *[OK] * 5) as (upstream, client):
        for _ in range(5):
            assert (await client.post(upstream.url, content=large)).content == b"ok"
        assert all(request.endswith(b"\r\n\r\n" + large) for request in upstream.requests)
        assert b"roxy-authorization" not in b"".join(upstream.requests).lower()
        assert upstream.connections == (1 if tls else 5)  # tinyproxy closes what it forwards
    assert tunnels(proxy) - before == (1 if tls else 0)


@pytest.mark.anyio
@on_both_loops
@plain_and_tunnel
async def test_heads(proxy: Server, certificate: Certificate, tls: bool) -> None:
    """A head as large, and with as many headers, as a direct upstream may send; and one beyond that."""
    large = b"Content-Security-Policy: " + b"a" * 60_000 + b"\r\n"
    many = b"".join(b"X-H%d: a\r\n" % number for number in range(200))
    too_many = b"".join(b"X-H%d: a\r\n" % number for number in range(300))
    answers = [CHUNKED % extra + chunked(EVENTS) for extra in (large, many, too_many)]
    async with behind(proxy, certificate, tls, *answers) as (upstream, client):
        for _ in range(2):
            assert (await client.get(upstream.url)).content == EVENTS
        with pytest.raises(Malformed):
            await client.get(upstream.url)


@pytest.mark.anyio
@on_both_loops
@plain_and_tunnel
async def test_faults(proxy: Server, certificate: Certificate, tls: bool) -> None:
    """A torn chunk is noticed at once, and so is a body that is cut off."""

    async def tear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED % b"" + b"5\r\nbegun\r\n")
        await read.wait()
        writer.write(b"this is no chunk\r\n")
        await reader.read()

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED % b"" + b"5\r\nbegun\r\n")
        await read.wait()
        raise ConnectionError

    async with behind(proxy, certificate, tls, tear, cut) as (upstream, client), asyncio.timeout(30):
        for error in (Malformed, Disconnected):
            read = asyncio.Event()
            async with client.stream("GET", upstream.url) as response:
                assert await response.extensions[READ]() == b"begun"
                read.set()
                with pytest.raises(error):
                    await response.extensions[READ]()


@pytest.mark.anyio
@on_both_loops
@plain_and_tunnel
async def test_cancellation(proxy: Server, certificate: Certificate, tls: bool) -> None:
    """A request that is cancelled, at whatever moment, leaves no connection on either side of the proxy."""
    before = sockets()
    async with behind(proxy, certificate, tls, *[hang] * 100) as (upstream, client), asyncio.timeout(60):

        async def stream() -> None:
            async with client.stream("POST", upstream.url, content=b"x") as response:
                while await response.extensions[READ]():
                    pass

        for number in range(60):
            asked = asyncio.create_task(stream())
            await asyncio.sleep(0.0002 * number)
            asked.cancel()
            await asyncio.wait([asked])
            assert asked.cancelled()
        assert not client.transport._live
        await upstream.idle()
    await until(lambda: sockets() <= before)


@pytest.mark.anyio
@on_both_loops
async def test_refusals(certificate: Certificate, tmp_path: Path, processes: list[Server]) -> None:
    """A proxy that opens no tunnel makes the upstream unreachable, and the reason says what the proxy answered."""
    proxy = launch_tinyproxy(tmp_path, "BasicAuth user word", "ConnectPort 443")
    processes.append(proxy)
    anonymous = re.sub("//.*@", "//", proxy.url)
    async with Upstream(tls=certificate.server()) as upstream:
        for address, status in ((proxy.url, 403), (anonymous, 407), (proxy.url.replace("word", "false"), 401)):
            async with direct(certificate.client(), proxy=address) as client:
                with pytest.raises(Unreachable) as raised:
                    await client.get(upstream.url)
            assert raised.value.cause.endswith(f"it answered with status {status}")
        assert upstream.connections == 0
    async with direct(proxy=anonymous) as client:
        with pytest.raises(Unreachable):
            await client.get("http://upstream.invalid/v1")


# --- the service


@pytest.fixture
def service(
    proxy: Server, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, start_service: Start
) -> Callable[[str], Server]:
    """Start a service whose environment names the proxy, and the certificate as one to trust.

    No proxy is used for a loopback address, so the upstream is asked at 0.0.0.0, where a connection gets there too.
    """

    def start(url: str, **settings: Any) -> Server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
        return start_service(url.replace("127.0.0.1", "0.0.0.0"), retry_attempts=1, **settings)

    return start


async def asked(service: Server) -> str:
    """Ask for an answer, and return all of it."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        answer = await client.post(f"{service.url}/v1/chat", json={"messages": [{"role": "user", "content": "hello"}]})
        return answer.text


@pytest.mark.anyio
@plain_and_tunnel
async def test_service(proxy: Server, certificate: Certificate, service: Callable[..., Server], tls: bool) -> None:
    """An answer comes through the proxy that the environment names, and a torn one does not wait for more."""
    begun = CHUNK % b"hello"
    torn = CHUNKED % b"" + b"%x\r\n%b\r\nthis is no chunk\r\n" % (len(begun), begun)

    async def tear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(torn)
        await reader.read()

    requests = proxy.text().count("0.0.0.0")
    whole = CHUNKED % (b"X-Large: " + b"a" * 12_000 + b"\r\n") + chunked(EVENTS)
    async with Upstream(whole, tear, tls=certificate.server() if tls else None) as upstream:
        started = await asyncio.to_thread(partial(service, upstream.url, idle_timeout=600))
        answer = await asked(started)
        assert "hello" in answer
        assert "event: done" in answer
        assert "upstream_malformed" in await asked(started)
    assert proxy.text().count("0.0.0.0") > requests
    assert "word" not in started.text()


@pytest.mark.anyio
async def test_service_without_a_way(
    tmp_path: Path, processes: list[Server], start_service: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a proxy refuses is in the log for the operator; the client learns that the upstream cannot be reached."""
    proxy = await asyncio.to_thread(launch_tinyproxy, tmp_path, "BasicAuth user other", "ConnectPort 443")
    processes.append(proxy)
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    started = await asyncio.to_thread(start_service, "https://upstream.test/v1", retry_attempts=1)
    assert "upstream_unreachable" in await asked(started)
    started.awaits("the proxy refused to pass the request on: it answered with status 401")
    assert "word" not in started.text()


def test_socks(tmp_path: Path, start_service: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SOCKS proxy is an error at the start, not something that is passed by in silence."""
    monkeypatch.setenv("ALL_PROXY", "socks5://user:word@proxy.test")
    with pytest.raises(AssertionError, match="SOCKS is not supported") as raised:
        start_service("https://upstream.test/v1")
    assert "word" not in str(raised.value)
