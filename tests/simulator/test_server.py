"""The simulator's HTTP: what clients of OpenAI rely on, and what tests and benchmarks rely on."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.simulator import Simulator, serve
from app.simulator.endpoints import Endpoints
from app.simulator.models import MODELS
from app.simulator.player import Clock
from app.simulator.server import Connection
from tests.simulator.asking import begin, question
from tests.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=simulator.url, timeout=10) as opened:
        yield opened


async def test_headers_are_like_openais(client: httpx.AsyncClient) -> None:
    """A stream's headers are those that clients of OpenAI look at."""
    response = await client.post("/chat/completions", json=question("sim-gpt?tokens=1"))
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-request-id"].startswith("req_")
    assert int(response.headers["openai-processing-ms"]) >= 0


async def test_what_is_not_a_request_is_refused(simulator: Simulator, client: httpx.AsyncClient) -> None:
    """Bad JSON is 400, an unknown path 404, an unknown model 404, noise 400: all with OpenAI's error body."""
    assert (await client.post("/chat/completions", content=b"{")).json()["error"]["type"] == "invalid_request_error"
    assert (await client.get("/nowhere")).json()["error"]["code"] == "unknown_url"
    unknown = await client.post("/chat/completions", json=question("unknown"))
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    reader, writer = await asyncio.open_connection(*httpx.URL(simulator.url).netloc.decode().split(":"))
    writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_a_connection_is_used_again(simulator: Simulator, client: httpx.AsyncClient) -> None:
    """Streams, errors and lists follow each other over one connection."""
    for model in ("sim-gpt", "error-500", "sim-gpt?tokens=1"):
        await client.post("/chat/completions", json=question(model))
        await client.get("/models")
    assert simulator.stats.connections == 1
    assert simulator.stats.requests == 3


async def test_http_1_0_is_ended_by_closing(simulator: Simulator) -> None:
    """A client of HTTP/1.0 gets no chunked encoding."""
    reader, writer = await asyncio.open_connection(*httpx.URL(simulator.url).netloc.decode().split(":"))
    body = json.dumps(question("sim-gpt?tokens=2")).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    answer = await reader.read()
    assert b"chunked" not in answer
    assert answer.endswith(b"}\n\ndata: [DONE]\n\n")
    writer.close()


async def test_leaving_in_mid_stream_is_counted(simulator: Simulator) -> None:
    """A client that closes before the end is counted as an abort, and its stream stops."""
    reader, writer = await begin(simulator, "never-ends?rate=100")
    await reader.readuntil(b'"content":"A"')
    assert simulator.stats.live == 1
    writer.close()
    await until(lambda: simulator.stats.live == 0)
    assert (simulator.stats.streams_aborted, simulator.stats.streams_finished) == (1, 0)


async def test_leaving_before_the_headers_is_counted(simulator: Simulator) -> None:
    """A client that does not wait for the headers is counted apart."""
    _, writer = await begin(simulator, "sim-gpt?first=60")
    await until(lambda: simulator.stats.live == 1)
    writer.close()
    await until(lambda: simulator.stats.live == 0)
    assert (simulator.stats.aborted_before_headers, simulator.stats.streams_started) == (1, 0)


async def test_a_second_request_before_the_answer_closes(simulator: Simulator) -> None:
    """Pipelining is refused by closing."""
    reader, writer = await begin(simulator, "stall?after=0")
    await reader.readuntil(b"\n\n")
    writer.write(b"GET /v1/models HTTP/1.1\r\nhost: s\r\n\r\n")
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await reader.readuntil(b"owned_by")
    writer.close()


async def test_closing_ends_everything() -> None:
    """close() ends live streams, frees the port, and does not count its own cuts as aborts."""
    async with await serve(first_token_delay=0) as simulator:
        pairs = [await begin(simulator, model) for model in ("never-ends", "stall", "sim-gpt?first=60")]
        await until(lambda: simulator.stats.live == 3)
    assert (simulator.stats.live, simulator.stats.connections, simulator.stats.streams_aborted) == (0, 0, 0)
    for reader, writer in pairs:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readuntil(b"[DONE]")
        writer.close()
    with pytest.raises(OSError):
        await begin(simulator, "sim-gpt")


async def test_closing_waits_for_no_client() -> None:
    """A client that is connected and says nothing is closed; `close` does not wait until it leaves."""
    simulator = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(simulator.url).port)
    await until(lambda: simulator.stats.connections == 1)
    async with asyncio.timeout(30):
        await simulator.close()
    assert simulator.stats.connections == 0
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()


async def test_a_client_that_comes_too_late() -> None:
    """A connection that was accepted before the simulator closed, and is told of after, is closed at once."""
    loop = asyncio.get_running_loop()
    endpoints = Endpoints(MODELS, {}, Clock(loop))
    endpoints.closed = True
    server = await loop.create_server(lambda: Connection(endpoints, set()), "127.0.0.1")
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    await until(lambda: endpoints.stats.connections == 0)
    writer.close()
    server.close()
