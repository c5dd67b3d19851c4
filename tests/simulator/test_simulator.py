"""The simulator as a server: what OpenAI's clients rely on, and what tests and benchmarks rely on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.simulator import Simulator, serve
from app.simulator.text import ANSWERS, choose, cut
from tests.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=simulator.url, timeout=10) as opened:
        yield opened


def question(model: str, content: Any = "Hello", **fields: Any) -> dict[str, Any]:
    return {"model": model, "stream": True, "messages": [{"role": "user", "content": content}], **fields}


async def chunks_of(client: httpx.AsyncClient, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the chunks of a stream that ends with [DONE], read with nothing but the json module."""
    response = await client.post("/chat/completions", json=body)
    assert response.status_code == 200
    *events, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])


async def begin(simulator: Simulator, model: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request over a bare connection."""
    host, port = simulator.url.removeprefix("http://").removesuffix("/v1").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    body = json.dumps(question(model)).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    return reader, writer


async def test_a_stream_has_a_role_deltas_a_finish_usage_and_done(client: httpx.AsyncClient) -> None:
    """A stream has OpenAI's shape, and its deltas are the answer."""
    chunks = await chunks_of(client, question("sim-gpt", stream_options={"include_usage": True}))
    role, *deltas, finish, usage = chunks
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert text_of(chunks) == ANSWERS[choose("Hello")]
    assert finish["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == len(deltas)
    assert {(chunk["id"], chunk["model"], chunk["object"]) for chunk in chunks} == {
        (role["id"], "sim-gpt", "chat.completion.chunk")
    }


async def test_headers_are_like_openais(client: httpx.AsyncClient) -> None:
    """A stream's headers are those that clients of OpenAI look at."""
    response = await client.post("/chat/completions", json=question("sim-gpt?tokens=1"))
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-request-id"].startswith("req_")
    assert int(response.headers["openai-processing-ms"]) >= 0


async def test_usage_comes_only_to_those_who_ask(client: httpx.AsyncClient) -> None:
    """Without stream_options no chunk speaks of usage."""
    assert not any("usage" in chunk for chunk in await chunks_of(client, question("sim-gpt?tokens=2")))


async def test_without_stream_the_answer_is_whole(client: httpx.AsyncClient) -> None:
    """`stream: false` gives a chat.completion with the same text."""
    body = question("sim-gpt") | {"stream": False}
    answer = (await client.post("/chat/completions", json=body)).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"] == ANSWERS[choose("Hello")]


@pytest.mark.parametrize(
    "content", ["Ein Wort — 漢字 👨‍👩‍👧\n\n ok", [{"type": "text", "text": "in parts"}], "", "x" * 100_000]
)
async def test_echo_says_what_was_said(client: httpx.AsyncClient, content: Any) -> None:
    """`sim-echo` answers with the last user message."""
    said = content if isinstance(content, str) else "in parts"
    assert text_of(await chunks_of(client, question("sim-echo", content))) == said


@pytest.mark.parametrize("name", sorted(ANSWERS))
@pytest.mark.parametrize("size", [0, 1, 4])
async def test_cutting_loses_nothing(name: str, size: int) -> None:
    """The deltas of each text, put together, are the text."""
    pieces = list(cut(ANSWERS[name], size))
    assert "".join(pieces) == ANSWERS[name]
    assert all(pieces)


async def test_the_prompts_script_chooses_the_answer(client: httpx.AsyncClient) -> None:
    """A prompt in Thai is answered in Thai, each time in the same words."""
    texts = {text_of(await chunks_of(client, question("sim-gpt", "สวัสดี"))) for _ in range(2)}
    assert texts == {ANSWERS["thai"]}


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("model", ["sim-gpt", "never-ends"])
async def test_a_limit_ends_with_length(client: httpx.AsyncClient, field: str, model: str) -> None:
    """max_tokens counts deltas, even those of a model that never ends."""
    chunks = await chunks_of(client, question(model, **{field: 3}))
    assert len(chunks) == 5
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


async def test_stop_ends_before_the_stop_text(client: httpx.AsyncClient) -> None:
    """The answer ends before the first stop sequence, with finish_reason stop."""
    chunks = await chunks_of(client, question("sim-echo", "one two three four", stop=["four", " three"]))
    assert text_of(chunks) == "one two"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_knobs_say_how_many_deltas_of_what_size(client: httpx.AsyncClient) -> None:
    """`tokens` and `size` are exact."""
    chunks = await chunks_of(client, question("sim-gpt?tokens=600&size=4&answer=stream"))
    assert len(chunks) == 602
    assert {len(text_of([chunk])) for chunk in chunks[1:500]} <= {4, len(ANSWERS["stream"]) % 4 or 4}


@pytest.mark.parametrize(
    "knobs",
    ["nope=1", "rate=-1", "rate=nan", "rate=x", "tokens=1.5", "first=1e9", "rate=1&rate=2", "answer=latin", "x"],
)
async def test_wrong_knobs_are_refused(client: httpx.AsyncClient, knobs: str) -> None:
    """An unknown knob, or one out of range, is a 400 that names the model field."""
    response = await client.post("/chat/completions", json=question(f"sim-gpt?{knobs}"))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "model"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, "model"),
        ({"model": "sim-gpt"}, "messages"),
        ({"model": "sim-gpt", "messages": []}, "messages"),
        (question("sim-gpt", n=2), "n"),
        (question("sim-gpt", max_tokens=0), "max_tokens"),
        (question("sim-gpt", stop=7), "stop"),
    ],
)
async def test_wrong_bodies_are_refused(client: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    """A body that OpenAI would refuse is refused, naming the field."""
    response = await client.post("/chat/completions", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_what_is_not_a_request_is_refused(simulator: Simulator, client: httpx.AsyncClient) -> None:
    """Bad JSON is 400, an unknown path 404, an unknown model 404, noise 400: all with OpenAI's error body."""
    assert (await client.post("/chat/completions", content=b"{")).json()["error"]["type"] == "invalid_request_error"
    assert (await client.get("/nowhere")).json()["error"]["code"] == "unknown_url"
    unknown = await client.post("/chat/completions", json=question("nobody"))
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    reader, writer = await asyncio.open_connection(*httpx.URL(simulator.url).netloc.decode().split(":"))
    writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_openais_own_model_names_are_played(client: httpx.AsyncClient) -> None:
    """A client that asks for gpt-4o-mini need not be reconfigured."""
    assert (await chunks_of(client, question("gpt-4o-mini?tokens=1")))[0]["model"] == "gpt-4o-mini"


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


async def test_the_counters_are_served_and_reset(simulator: Simulator, client: httpx.AsyncClient) -> None:
    """Another process can read the counters and set them to zero."""
    url = simulator.url.removesuffix("/v1")
    await chunks_of(client, question("sim-gpt?tokens=7"))
    stats = (await client.get(f"{url}/stats")).json()
    counts = {"requests": 1, "streams_started": 1, "streams_finished": 1, "streams_aborted": 0, "deltas": 8, "live": 0}
    assert stats.items() >= counts.items()
    assert (await client.post(f"{url}/stats/reset")).json()["requests"] == 0


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


async def test_the_faster_stream_ends_first(simulator: Simulator) -> None:
    """Rates order the ends of streams, and equal rates end in the order of their beginning."""
    ended: list[str] = []

    async def read(model: str) -> None:
        reader, writer = await begin(simulator, model)
        await reader.readuntil(b"[DONE]")
        ended.append(model)
        writer.close()

    models = ["sim-gpt?tokens=12&rate=20", "sim-gpt?tokens=12&rate=60", "sim-gpt?tokens=12&rate=0"]
    await asyncio.gather(*map(read, models))
    assert ended == models[::-1]


async def test_a_rate_neither_drifts_nor_runs_ahead(simulator: Simulator) -> None:
    """Fifty deltas and the finish at 250 a second take 50 intervals: never less, and not late by one each."""
    loop = asyncio.get_running_loop()
    reader, writer = await begin(simulator, "sim-gpt?tokens=50&rate=250")
    await reader.readuntil(b"assistant")
    began = loop.time()
    await reader.readuntil(b"[DONE]")
    assert 0.19 < loop.time() - began < 2
    writer.close()


async def test_a_client_that_does_not_read_is_waited_for(simulator: Simulator) -> None:
    """When the client stops reading, the simulator stops writing; when it reads again, the stream goes on."""
    reader, writer = await begin(simulator, "never-ends?rate=0")
    reader._transport.pause_reading()  # type: ignore[attr-defined]  # no public way
    await until(lambda: bool(simulator.connections))
    (connection,) = simulator.connections
    await until(lambda: connection.exchange is not None and connection.exchange.paused > 0)
    sent = simulator.stats.deltas
    await asyncio.sleep(0.05)
    assert simulator.stats.deltas == sent
    assert connection.transport.get_write_buffer_size() < 256 << 10
    reader._transport.resume_reading()  # type: ignore[attr-defined]  # no public way
    while simulator.stats.deltas == sent:
        assert await reader.read(1 << 16)
    reader._transport.pause_reading()  # type: ignore[attr-defined]  # no public way
    await until(lambda: connection.exchange is not None and connection.exchange.paused > 0)
    writer.transport.abort()
    await until(lambda: simulator.stats.live == 0)
    assert simulator.stats.streams_aborted == 1


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
