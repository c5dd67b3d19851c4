"""The server of one process: how it accepts, drains, retires and ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from structlog.typing import FilteringBoundLogger

from app.events import Done
from app.hub import Hub
from app.hub.production import Note
from app.journal import Orphan
from app.request import StreamInfo, StreamRequest, keyed_hash
from app.serving.server import LISTENERS, Server
from tests.house import House
from tests.script import forever
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def answer(request: Request) -> Response:
    return PlainTextResponse("here")


class Running:
    """A server that runs, and a client with one connection to it that is kept."""

    def __init__(
        self, server: Server, client: httpx.AsyncClient, serving: asyncio.Task[None], interrupted: asyncio.Event
    ) -> None:
        self.server = server
        self.client = client
        self.serving = serving
        self.interrupted = interrupted

    async def ended(self) -> None:
        async with asyncio.timeout(30):
            await self.serving


@asynccontextmanager
async def running(hub: Hub, grace: float = 30, *, outlived: bool = False) -> AsyncIterator[Running]:
    """Run a server on a free port until its test ends it."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    ready = asyncio.Event()
    interrupted = asyncio.Event()
    app = Starlette(routes=[Route("/", answer)])
    server = Server(app, hub, grace, ready.set, interrupted.set, outlived=outlived)
    serving = asyncio.create_task(server.run_on(listener))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client, asyncio.timeout(30):
        await ready.wait()
        try:
            yield Running(server, client, serving, interrupted)
        finally:
            server.should_exit = True
            await serving


async def test_a_signal_drains(log: FilteringBoundLogger) -> None:
    """After SIGTERM, new connections are accepted while a stream is live; the server ends when the stream has."""
    go = asyncio.Event()
    house = House(log, go.wait)
    async with running(house.hub) as at:
        stream_id = await house.hub.open(StreamRequest("m", ()))
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: house.hub.draining)
        response = await at.client.get("/", headers={"Connection": "close"})
        assert (response.status_code, response.headers.get_list("connection")) == (200, ["close"])
        assert not at.serving.done()
        assert not at.interrupted.is_set()
        await house.hub.cancel(stream_id)
        await at.ended()


async def test_the_grace_is_a_bound(log: FilteringBoundLogger) -> None:
    """A stream that does not end is ended after the grace, and the server with it."""
    house = House(log, forever)
    async with running(house.hub, grace=0.05) as at:
        await house.hub.open(StreamRequest("m", ()))
        os.kill(os.getpid(), signal.SIGTERM)
        await at.ended()
    await house.settled()


async def test_a_second_interrupt(log: FilteringBoundLogger) -> None:
    """What started the server is told of the first SIGINT; a second one does not wait for the streams."""
    house = House(log, forever)
    async with running(house.hub) as at:
        await house.hub.open(StreamRequest("m", ()))
        os.kill(os.getpid(), signal.SIGINT)
        await until(lambda: house.hub.draining)
        assert at.interrupted.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        await at.ended()
    await house.hub.drain(0)


async def test_adopted_streams(log: FilteringBoundLogger) -> None:
    """Streams that were adopted before there was a server wait for a reader from then on."""
    house = House(log, forever, first_reader=0.01)
    writer = await house.journal.create("s", StreamInfo("none", created=time.time_ns() // 1000))
    note = Note({}, {}, "", 0, 0.0, 0.0, 0, keyed_hash("[]"))
    await house.hub.adopt(Orphan("s", writer, writer, json.dumps(note)))
    async with running(house.hub):
        await until(lambda: house.hub.live == 0)
    [*_, end] = writer.records(0, 9)
    assert isinstance(end, Done)
    await house.settled()


async def test_retiring(log: FilteringBoundLogger) -> None:
    """A retiring server accepts nothing; an open connection may bring one more request, whose answer closes it."""
    house = House(log, forever)
    async with running(house.hub) as at:
        assert (await at.client.get("/")).headers.get("connection") is None
        at.server.retire()
        last = await at.client.get("/")
        assert (last.text, last.headers.get_list("connection")) == ("here", ["close"])
        with pytest.raises(httpx.ConnectError):
            await at.client.get("/")
        assert not house.hub.draining
        await at.ended()
    assert house.hub.draining


async def test_a_retiring_server_closes_idle_connections(log: FilteringBoundLogger) -> None:
    """When it drains, it closes the connections that brought nothing more, and lets live streams go on."""
    go = asyncio.Event()
    house = House(log, go.wait)
    async with running(house.hub) as at:
        stream_id = await house.hub.open(StreamRequest("m", ()))
        await at.client.get("/")
        assert at.server.server_state.connections
        at.server.retire()
        await until(lambda: not at.server.server_state.connections)
        assert not at.serving.done()
        await house.hub.cancel(stream_id)
        await at.ended()


async def test_abandoned(log: FilteringBoundLogger) -> None:
    """A server without a supervisor frees its address at once, and drains."""
    house = House(log, forever)
    async with running(house.hub) as at:
        await house.hub.open(StreamRequest("m", ()))
        at.server.abandon()
        with pytest.raises(httpx.ConnectError):
            await at.client.get("/")
        await until(lambda: house.hub.draining)
        assert not at.serving.done()
        await house.hub.drain(0)


async def test_a_shared_listener_never_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that begins to listen leaves the socket as those need it who listen on it already: not blocking."""
    blocking: list[bool] = []

    async def serve(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        for sock in sockets:
            blocking.append(os.get_blocking(sock.fileno()))
            sock.close()

    monkeypatch.setattr(uvicorn.Server, "serve", serve)
    hub: Any = None
    with socket.create_server(("127.0.0.1", 0)) as others:
        others.setblocking(False)
        inherited = socket.socket(fileno=os.dup(others.fileno()))  # which knows nothing of that
        await Server(Starlette(), hub, 0, lambda: None, lambda: None).run_on(inherited)
        assert blocking == [False] * LISTENERS
        assert not os.get_blocking(others.fileno())


async def test_a_signal_where_the_listener_is_outlived(log: FilteringBoundLogger) -> None:
    """With a listener that stays open for the next process, SIGTERM retires the server."""
    house = House(log, forever)
    async with running(house.hub, outlived=True) as at:
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: at.server._retired)
        with pytest.raises(httpx.ConnectError):  # this test has no parent that keeps the listener
            await at.client.get("/")
        assert not house.hub.draining
        await at.ended()
