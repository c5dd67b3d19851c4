"""A request over real sockets: what is sent, how fast, and what a server may say meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.errors import Unreachable
from tests.upstream.direct import LOOPS, direct
from tests.upstream.raw import Handler, Upstream, listening, reply
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", LOOPS)]


async def test_request() -> None:
    """A request is sent as httpx made it: a body of unknown length in a chunk, and no header that breaks its line."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"c"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\nabc\r\n0\r\n\r\n"
        writer.write(reply(b""))

    async with Upstream(serve, reply(b"")) as upstream, direct() as client:
        await client.post(f"{upstream.url}?q=a%20b", content=pieces())
        assert upstream.requests[0].startswith(b"POST /v1?q=a%20b HTTP/1.1\r\nHost: 127.0.0.1:")
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


async def test_early_answer() -> None:
    """A server that begins its answer before it has read everything gets the rest all the same."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert await reader.readexactly(len(LARGE)) == LARGE
        writer.write(b"4\r\ndone\r\n0\r\n\r\n")

    async with reluctant(answer) as url, direct() as client, asyncio.timeout(30):
        assert (await client.post(url, content=LARGE)).content == b"done"
