"""A request over real sockets: what is sent, how fast, and what a server may say meanwhile."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.errors import Unreachable
from tests.upstream.direct import LOOPS, direct
from tests.upstream.http.conftest import Certificate
from tests.upstream.raw import Handler, Upstream, listening, reply
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", LOOPS)]


async def test_request() -> None:
    """A request is sent as httpx made it, and none with a header that breaks its line."""
    async with Upstream(reply(b""), reply(b"")) as upstream, direct() as client:
        await client.post(f"{upstream.url}?q=a%20b", content=b"abc")
        assert upstream.requests[0].startswith(b"POST /v1?q=a%20b HTTP/1.1\r\nHost: 127.0.0.1:")
        assert upstream.requests[0].endswith(b"\r\n\r\nabc")
        for value in (b"a\r\nX-Forged: b", b"a\nb", b"a\0b"):
            with pytest.raises(Unreachable):
                await client.get(upstream.url, headers=[(b"X", value)])
        await client.get(upstream.url)
    assert upstream.connections == 1


LARGE = b"0123456789abcdef" * (1 << 20)  # more than the kernel takes on both sides


@asynccontextmanager
async def reluctant(answer: Handler) -> AsyncIterator[str]:
    """A server that answers when it has the head, as `Upstream` does not: the body is for *answer*. Gives its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await answer(reader, writer)
        writer.close()

    async with listening(serve) as port:
        yield f"http://127.0.0.1:{port}/"


async def test_flow_control() -> None:
    """Of a large body no more than a little waits here while the server does not read."""
    gate = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        assert await reader.readexactly(len(LARGE)) == LARGE
        writer.write(reply(b"done"))

    async with reluctant(answer) as url, direct() as client, asyncio.timeout(30):
        asked = asyncio.create_task(client.post(url, content=LARGE))
        exchange = await until(client.only)
        await until(lambda: exchange._blocked)
        assert exchange._connection is not None
        assert 0 < exchange._connection.get_write_buffer_size() <= 128 * 1024
        gate.set()
        assert (await asked).content == b"done"


async def test_early_refusal() -> None:
    """A server that refuses a body that it has not read is heard, and the rest of the body is not sent."""
    gone = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(b"too much", status=b"413 Too Large"))
        await gone.wait()

    async with reluctant(answer) as url, direct() as client, asyncio.timeout(30):
        response = await client.post(url, content=LARGE)
        assert (response.status_code, response.content) == (413, b"too much")
        assert not client.transport._idle
        gone.set()


@pytest.mark.parametrize("status", [b"413 Too Large", b"401 Who"])
@pytest.mark.parametrize("secure", [False, True])
async def test_refusal_before_the_connection_breaks(status: bytes, secure: bool, certificate: Certificate) -> None:
    """A server that refuses and closes at once is heard, although writing fails meanwhile (row H25)."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(b"no", status=status, headers=b"Connection: close\r\n"))
        writer.close()  # with bytes unread, so that the kernel resets the connection

    tls = certificate.server() if secure else None
    async with listening(serve, tls) as port, direct(certificate.client()) as client, asyncio.timeout(60):
        for _ in range(20):
            response = await client.post(f"http{'s' * secure}://127.0.0.1:{port}/", content=LARGE[: 1 << 20])
            assert (response.status_code, response.content) == (int(status[:3]), b"no")


async def test_answer_that_a_failed_write_leaves_behind() -> None:
    """What the kernel has when a write fails is read, bounded by the parser as everything else is."""
    asked = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked.wait()

    async with reluctant(answer) as url, direct() as client, asyncio.timeout(30):
        task = asyncio.create_task(client.post(url, content=LARGE))
        exchange = await until(client.only)
        await until(lambda: exchange._blocked)
        assert exchange._connection is not None
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.sendall(reply(b"late", status=b"413 No"))
            exchange._connection = Lost(exchange._connection, ours)  # type: ignore[assignment]  # it has all of a connection that is used here
            exchange.connection_lost(BrokenPipeError())
            response = await task
        assert (response.status_code, response.content) == (413, b"late")
        asked.set()


class Lost:
    """A transport whose write has failed, and whose socket is *sock*."""

    def __init__(self, connection: asyncio.Transport, sock: socket.socket) -> None:
        self.abort = connection.abort
        self.is_closing = connection.is_closing
        self._sock = sock

    def get_extra_info(self, name: str) -> object:
        return self._sock if name == "socket" else None


async def test_early_answer() -> None:
    """A server that begins its answer before it has read everything gets the rest all the same."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert await reader.readexactly(len(LARGE)) == LARGE
        writer.write(b"4\r\ndone\r\n0\r\n\r\n")

    async with reluctant(answer) as url, direct() as client, asyncio.timeout(30):
        assert (await client.post(url, content=LARGE)).content == b"done"
