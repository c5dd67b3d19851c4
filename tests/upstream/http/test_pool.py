"""The pool over real sockets: which connection a request takes, and that nothing is left of any."""

from __future__ import annotations

import asyncio
import os
import socket
import time

import httpx
import pytest

from app.errors import Disconnected, Unreachable
from app.upstream.http.pool import READ, kept_for
from tests.upstream.direct import LOOPS, deaf, direct, hang, sockets
from tests.upstream.raw import Handler, Upstream, reply
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", LOOPS)]

OK = reply(b"ok")


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_used_again() -> None:
    """One connection serves one request after another, also where a body that is here was not read."""
    async with Upstream(*[OK] * 50) as upstream, direct() as client:
        for _ in range(25):
            assert (await client.get(upstream.url)).content == b"ok"
            async with client.stream("POST", upstream.url, content=b"x"):
                pass  # head and body came in one piece
        assert upstream.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"ok", headers=b"Connection: close\r\n"),
        OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        OK + b"junk",
        OK + OK,
        OK + b"H",
        b"HTTP/1.1 204 No\r\n\r\n\r\nok",
    ],
)
async def test_not_used_again(answer: bytes) -> None:
    """A connection that the server will close, or that holds more than one response, serves no other request."""
    async with Upstream(answer, OK) as upstream, direct() as client:
        assert (await client.get(upstream.url)).content in (b"ok", b"")
        assert (await client.get(upstream.url)).content == b"ok"
        assert upstream.connections == 2


async def test_abandoned() -> None:
    """A response that is left before its end closes its connection at once."""
    async with Upstream(hang, OK) as upstream, direct() as client:
        async with client.stream("GET", upstream.url) as response:
            assert await response.extensions[READ]() == b"begun"
            assert upstream.open == 1
        await upstream.idle()
        assert (await client.get(upstream.url)).content == b"ok"


async def test_last_in_first_out() -> None:
    """The connection that became idle last is taken first, so that the others can go."""
    gates = [asyncio.Event(), asyncio.Event()]
    peers: list[int] = []

    def gated(gate: asyncio.Event) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peers.append(writer.get_extra_info("peername")[1])
            await gate.wait()
            writer.write(OK)

        return serve

    always = asyncio.Event()
    always.set()
    async with Upstream(gated(gates[0]), gated(gates[1]), gated(always)) as upstream, direct() as client:
        asked = [asyncio.create_task(client.get(upstream.url)) for _ in gates]
        await until(lambda: len(peers) == 2)
        gates[1].set()
        await until(lambda: any(task.done() for task in asked))
        gates[0].set()
        await asyncio.wait(asked)
        await client.get(upstream.url)
        assert peers[2] == peers[0]


async def test_idle_ones_are_closed() -> None:
    """An unused connection is closed after a while, by one timer for all; one that is used again is not."""
    async with Upstream(*[OK] * 100) as upstream, direct(keep_idle=1) as client:
        await asyncio.gather(*(client.get(upstream.url) for _ in range(10)))
        assert upstream.open == 10
        begun = time.monotonic()
        while upstream.open > 1:
            await client.get(upstream.url)
            await asyncio.sleep(0.05)
        assert time.monotonic() - begun >= 0.5
        assert upstream.connections == 10
        await upstream.idle()
        await until(lambda: client.transport._sweep is None)
        assert not client.transport._idle


async def test_kept_as_long_as_the_server_says() -> None:
    """A connection is closed a second before the server may close it, and at once if there is no such time."""
    soon = reply(b"ok", headers=b"Keep-Alive: timeout=30, max=9\r\n")
    at_once = reply(b"ok", headers=b"Keep-Alive: timeout=1\r\n")
    async with Upstream(*[soon] * 9, at_once) as upstream, direct(keep_idle=60) as client:
        for _ in range(9):
            await client.get(upstream.url)
        assert upstream.connections == 1
        (idle,) = client.transport._idle
        loop = asyncio.get_running_loop()
        assert 0 < idle.until - loop.time() <= 29
        idle.until = loop.time()  # a loop that was held up has not closed it yet
        await client.get(upstream.url)
        assert upstream.connections == 2
        assert not client.transport._idle


async def test_the_first_that_is_due_is_closed_first() -> None:
    """A connection that is to go sooner than those before it goes sooner."""
    soon = reply(b"ok", headers=b"Keep-Alive: timeout=2\r\n")
    async with Upstream(OK) as first, Upstream(soon) as second, direct(keep_idle=60) as client:
        await client.get(first.url)
        await client.get(second.url)
        async with asyncio.timeout(30):
            await second.idle()
        assert (first.open, len(client.transport._idle)) == (1, 1)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], 7),
        ([(b"Keep-Alive", b"timeout=5")], 4),
        ([(b"keep-alive", b"Timeout = 5, max=1000")], 4),
        ([(b"Keep-Alive", b'max=100, timeout="75"')], 60),
        ([(b"Keep-Alive", b"max=100"), (b"Keep-Alive", b"timeout=20")], 19),
        ([(b"Keep-Alive", b"timeout=5, max=0")], 0),
        ([(b"Keep-Alive", b"timeout=0")], -1),
        ([(b"Keep-Alive", b"300")], 7),
        ([(b"Keep-Alive", b"max=5")], 7),
        ([(b"Connection", b"timeout=5")], 7),
        ([(b"Keep-Alive", b"timeout=" + b"9" * 99)], 60),
    ],
)
async def test_kept_for(headers: list[tuple[bytes, bytes]], seconds: float) -> None:
    """A second less than the server says, a minute at most, and the setting where it says nothing (row H26)."""
    assert kept_for(headers, 7) == seconds


@pytest.mark.parametrize("last", [b"", b"HTTP/1.1 408 Timeout\r\n\r\n"])
async def test_stale(last: bytes) -> None:
    """A connection that the server closed, or spoke on unasked, is not given a request, however lately it happened."""
    closed = asyncio.Event()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await asked.wait()
        with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
            sock.sendall(last)
            sock.shutdown(socket.SHUT_WR)
        closed.set()
        await reader.read()
        raise ConnectionError

    asked = asyncio.Event()
    async with Upstream(once, OK) as upstream, direct() as client:
        await client.get(upstream.url)
        asked.set()
        await closed.wait()
        assert (await client.post(upstream.url, content=b"x")).content == b"ok"
        assert upstream.connections == 2


async def test_idle_one_that_closes_is_forgotten() -> None:
    """A connection that the server closes while it is idle is closed here, without a request or a timer."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await closing.wait()
        raise ConnectionError

    closing = asyncio.Event()
    async with Upstream(once) as upstream, direct() as client:
        await client.get(upstream.url)
        assert client.transport._idle
        closing.set()
        await until(lambda: not client.transport._idle)


async def test_no_limit() -> None:
    """Any number of requests go on at once."""
    async with Upstream(*[hang] * 150) as upstream, direct() as client:
        responses = await asyncio.gather(
            *(client.send(client.build_request("GET", upstream.url), stream=True) for _ in range(150))
        )
        assert upstream.open == 150
        await asyncio.gather(*(response.aclose() for response in responses))
        await upstream.idle()


async def test_closing_closes_all() -> None:
    """Closing the transport closes what is idle, and what is in use under its reader's hands."""
    async with Upstream(OK, hang, silent) as upstream:
        async with direct() as client:
            idle = await client.send(client.build_request("GET", upstream.url), stream=True)
            used = await client.send(client.build_request("GET", upstream.url), stream=True)
            waiting = asyncio.create_task(client.get(upstream.url))
            await until(lambda: len(upstream.requests) == 3)
            assert await used.extensions[READ]() == b"begun"
            reading = asyncio.create_task(used.extensions[READ]())
            await idle.aread()
            assert upstream.open == 3
        await upstream.idle()
        for task in (waiting, reading):
            with pytest.raises(Disconnected):
                await task
        with pytest.raises(Unreachable):
            await client.transport.handle_async_request(httpx.Request("GET", upstream.url))
        await upstream.idle()


async def test_thousand_aborts() -> None:
    """A thousand requests, each cancelled at another moment, leave no socket, no task and nothing in the pool."""
    before, tasks = sockets(), len(asyncio.all_tasks())
    async with direct() as client:
        async with Upstream(*[hang, silent] * 500) as upstream:

            async def stream() -> None:
                async with client.stream("POST", upstream.url, content=b"x" * 1000) as response:
                    while await response.extensions[READ]():
                        pass

            for number in range(50):
                asked = [asyncio.create_task(stream()) for _ in range(20)]
                for turn in range(20):
                    await asyncio.sleep(0 if number % 2 else 0.0002)
                    asked[turn].cancel()
                await asyncio.wait(asked)
                assert all(task.cancelled() for task in asked)
            await upstream.idle()
        assert not client.transport._live
        assert not client.transport._idle
        await until(lambda: sockets() <= before)
        await until(lambda: len(asyncio.all_tasks()) == tasks)


async def test_cancelled_at_each_point() -> None:
    """Cancelling while a request is sent, awaited or read closes its connection at once."""
    large = b"x" * (16 << 20)
    async with direct() as client:
        before = sockets()
        with deaf(backlog=5) as (_, url):
            asked = asyncio.create_task(client.post(url, content=large))
            exchange = await until(client.only)
            await until(lambda: exchange._blocked)
            asked.cancel()
            await asyncio.wait([asked])
            await until(lambda: not client.transport._live)
        async with Upstream(silent) as upstream:
            asked = asyncio.create_task(client.get(upstream.url))
            await until(lambda: upstream.requests)
            asked.cancel()
            await asyncio.wait([asked])
            await upstream.idle()
        async with Upstream(hang) as upstream:
            asked = asyncio.create_task(client.get(upstream.url))
            exchange = await until(client.only)
            await until(lambda: exchange.status)
            asked.cancel()
            await asyncio.wait([asked])
            await upstream.idle()
        await until(lambda: sockets() <= before)
