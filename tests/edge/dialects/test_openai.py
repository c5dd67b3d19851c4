"""OpenAI's endpoints over a real hub and journal, with an upstream that plays what a test wrote down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from jsonschema_rs import Draft202012Validator
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.edge.access.origins import Origins
from app.edge.bodies import Defaults
from app.edge.context import request_context
from app.edge.dialects.native import Chat
from app.edge.dialects.openai import OpenAI, chunks
from app.edge.error_responses import crashed, failed
from app.edge.middleware import ContextMiddleware
from app.edge.openapi.document import document
from app.edge.streams import Options, Streams
from app.errors import BudgetSpent, Disconnected, Rejected, StreamError, TotalTimeout, Unauthorized
from app.events import Delta, Done, Logprobs, Reasoning, Refusal, ToolCall
from app.request import Principal, StreamRequest
from app.usage import Usage
from tests.house import House
from tests.script import forever
from tests.wire import strict
from tests.wire.test_openai import payloads

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
DONE = (Done("stop", usage=Usage({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}), model="gpt"),)


class Service(House):
    """The dialect's endpoints, and the native ones, over a hub."""

    def __init__(self, log: FilteringBoundLogger, *steps: Any, names: Sequence[str] = ("m",)) -> None:
        super().__init__(log, *steps)
        self.asked: list[StreamRequest] = []
        self.refusal: StreamError | None = None
        self.upstreams: list[Mapping[str, Any]] = []
        defaults = Defaults(model="m", chunk="auto", grace=0, max_grace=60)
        streams = Streams(self.hub, Options(defaults, self._admit, None, 2, 1 << 20, 10, 15, 1000))
        openai, chat = OpenAI(streams, names, self._listed), Chat(streams, {"openai": chunks})
        routes = [
            Route(PATH, openai.completions, methods=["POST"]),
            Route("/v1/models", openai.models),
            Route("/v1/models/{model:path}", openai.model),
            Route("/v1/streams/{stream_id}", chat.stream, methods=["GET", "DELETE"]),
        ]
        self._app = Starlette(routes=routes, exception_handlers={StreamError: failed, Exception: crashed})
        self.guarded = ContextMiddleware(self._anyone, Origins(("https://page",)), self.meter, log)

    async def _anyone(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = request_context(scope)
        context.principal = Principal()
        context.refusal = self.refusal
        await self._app(scope, receive, send)

    def _admit(self, asked: StreamRequest) -> StreamRequest:
        self.asked.append(asked)
        return asked

    async def _listed(self) -> Sequence[Mapping[str, Any]]:
        return self.upstreams


@asynccontextmanager
async def serving(
    log: FilteringBoundLogger, *steps: Any, **more: Any
) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """Give a house over *steps* and a client of it, which has half a minute; its streams end with it."""
    house = Service(log, *steps, **more)
    transport = httpx.ASGITransport(house.guarded)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client, asyncio.timeout(30):
        yield house, client
    await house.hub.drain(0)


def body(**more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": MESSAGES, **more}


async def test_streaming(log: FilteringBoundLogger) -> None:
    """With `stream`, the answer is chunks and `[DONE]`, under the headers of every stream."""
    async with serving(log, (Delta("a"),), (Delta("b"),), DONE) as (_, client):
        answer = await client.post(PATH, json=body(stream=True))
    *parts, done = payloads(answer.content)
    read = [strict.chunk(part) for part in parts]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in read) == "ab"
    assert done == "[DONE]"
    stream_id = answer.headers["x-stream-id"]
    assert {chunk.id for chunk in read} == {f"chatcmpl-{stream_id}"}
    assert answer.headers["content-location"] == f"/v1/streams/{stream_id}"
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store, no-transform"


async def test_whole(log: FilteringBoundLogger) -> None:
    """Without it, the answer is one completion; it says which stream it was, too."""
    async with serving(log, (Reasoning("why"),), (Delta("a"), Delta("b")), DONE) as (_, client):
        answer = await client.post(PATH, json=body())
        told = strict.completion(answer.json())
        assert (told.choices[0].message.content, told.model) == ("ab", "gpt")
        assert told.usage is not None
        assert told.usage.total_tokens == 2
        assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("application/json", "no-store")
        native = await client.get(answer.headers["content-location"], headers={"Accept": "application/json"})
        assert (native.json()["content"], native.json()["stream_id"]) == ("ab", answer.headers["x-stream-id"])


@pytest.mark.parametrize("stream", [True, False])
async def test_tool_calls(log: FilteringBoundLogger, stream: bool) -> None:
    """Calls come in pieces or whole, and nothing is said of a text that there is not."""
    pieces = [ToolCall(0, "c", "f", ""), ToolCall(0, "", "", "{}")]
    async with serving(log, pieces, (replace(DONE[0], finish_reason="tool_calls"),)) as (_, client):
        answer = await client.post(PATH, json=body(stream=stream))
    if stream:
        choices = [choice for part in payloads(answer.content)[:-1] for choice in part["choices"]]
        assert "".join(
            call["function"]["arguments"] for choice in choices for call in choice["delta"].get("tool_calls", ())
        ) == ("{}")
        assert choices[-1]["finish_reason"] == "tool_calls"
    else:
        choice = answer.json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")
        assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}


async def test_usage(log: FilteringBoundLogger) -> None:
    """Usage is streamed to who asks for it, and to nobody else; the question does not go upstream."""
    async with serving(log, (Delta("a"),), DONE) as (house, client):
        with_it = await client.post(PATH, json=body(stream=True, stream_options={"include_usage": True}))
        without = await client.post(PATH, json=body(stream=True, stream_options={"include_obfuscation": False}))
    assert payloads(with_it.content)[-2]["usage"]["total_tokens"] == 2
    assert b"usage" not in without.content
    assert [asked.parameters for asked in house.asked] == [{}, {}]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("error", "again"),
    [
        (Rejected("No.", param="temperature"), "false"),
        (Unauthorized(), "false"),
        (TotalTimeout(), "false"),
        (Disconnected(), "true"),
    ],
)
async def test_early_failures(log: FilteringBoundLogger, stream: bool, error: StreamError, again: str) -> None:
    """What fails before it starts has its status, and SDKs are told whether to try again."""
    async with serving(log, error) as (_, client):
        answer = await client.post(PATH, json=body(stream=stream))
    assert (answer.status_code, answer.json()["error"]["code"]) == (error.status, error.code)
    assert answer.json()["error"]["param"] == error.param
    assert answer.headers["x-should-retry"] == again


async def test_late_failures(log: FilteringBoundLogger) -> None:
    """What breaks later is an error in the stream, without `[DONE]`; where nothing was sent yet, a status."""
    async with serving(log, (Delta("a"),), Disconnected()) as (_, client):
        streamed = payloads((await client.post(PATH, json=body(stream=True))).content)
        whole = await client.post(PATH, json=body())
    assert streamed[-1]["error"]["code"] == "upstream_disconnected"
    assert "[DONE]" not in streamed
    assert (whole.status_code, whole.json()["error"]["code"]) == (502, "upstream_disconnected")


@pytest.mark.parametrize("stream", [True, False])
async def test_cancelled(log: FilteringBoundLogger, stream: bool) -> None:
    """Whoever still reads when a stream is stopped gets an error, and a 409 is not to be tried again."""
    reached = asyncio.Event()

    async def wait() -> None:
        reached.set()
        await forever()

    async with serving(log, (Delta("a"),), wait) as (house, client):
        reading = asyncio.ensure_future(client.post(PATH, json=body(stream=stream)))
        await reached.wait()
        stream_id = next(iter(house.hub._streams))
        await client.delete(f"/v1/streams/{stream_id}")
        answer = await reading
    if stream:
        assert payloads(answer.content)[-1]["error"]["code"] == "cancelled"
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "cancelled")
        assert answer.headers["x-should-retry"] == "false"


async def test_a_client_that_leaves(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """Who hangs up while it waits for a whole answer has left the stream, as any other reader has."""
    reached = asyncio.Event()

    async def wait() -> None:
        reached.set()
        await forever()

    house = Service(log, (Delta("a"),), wait)
    raw = json.dumps(body()).encode()
    left = asyncio.Event()
    messages = [{"type": "http.request", "body": raw, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        """Drop it, as a server does whose client is gone."""

    scope = {"type": "http", "method": "POST", "path": PATH, "headers": [], "query_string": b""}
    async with asyncio.timeout(30):
        waiting = asyncio.ensure_future(house.guarded(scope, receive, send))
        await reached.wait()
        left.set()
        await waiting
        await house.source.closed.wait()  # its grace was none
    assert not house.meter.refused  # a crash would be counted
    assert [entry["event"] for entry in logs.entries if entry["event"].startswith("request.")] == ["request.abandoned"]
    await house.hub.drain(0)


async def test_a_repeated_key(log: FilteringBoundLogger) -> None:
    """The same key and body again is the same stream; another body, or one wanted otherwise, is refused."""
    key = {"Idempotency-Key": "k"}
    async with serving(log, (Delta("a"),), DONE) as (house, client):
        first, again = [await client.post(PATH, json=body(), headers=key) for _ in range(2)]
        other = await client.post(PATH, json=body(stream=True), headers=key)
    assert first.content == again.content
    assert house.source.started == 1
    assert (other.status_code, other.headers["x-should-retry"]) == (422, "false")


async def test_who_may_not_spend(log: FilteringBoundLogger) -> None:
    """The gate's refusal holds here as in the native dialect."""
    async with serving(log, (Delta("a"),), DONE) as (house, client):
        house.refusal = BudgetSpent()
        answer = await client.post(PATH, json=body(), headers={"Idempotency-Key": "k"})
    assert (answer.status_code, house.source.started) == (429, 0)


async def test_another_site(log: FilteringBoundLogger) -> None:
    """A form of another site cannot spend the owner's money here, either."""
    async with serving(log, (Delta("a"),), DONE) as (_, client):
        raw = json.dumps(body()).encode()
        form = {"Origin": "https://page", "Content-Type": "text/plain"}
        assert (await client.post(PATH, content=raw, headers=form)).status_code == 415


async def test_a_stream_of_another_dialect(log: FilteringBoundLogger) -> None:
    """A stream can be read in the dialect that it was not opened in, both ways."""
    async with serving(log, (Delta("a"),), DONE) as (_, client):
        opened = await client.post(PATH, json=body(stream=True))
        url = opened.headers["content-location"]
        assert (await client.get(f"{url}?dialect=openai")).content == opened.content
        assert b'event: delta\ndata: {"content":"a"}\n' in (await client.get(url)).content


async def test_re_chunking(log: FilteringBoundLogger) -> None:
    """A header says how the text is cut anew, and what happens when nobody reads."""
    headers = {"X-Chunk": "word", "X-On-Disconnect": "grace:7"}
    async with serving(log, (Delta("one two th"), Delta("ree four")), DONE) as (house, client):
        answer = await client.post(PATH, json=body(stream=True), headers=headers)
    contents = [part["choices"][0]["delta"].get("content") for part in payloads(answer.content)[1:-2]]
    assert "".join(contents) == "one two three four"
    assert all(piece.count(" ") <= 1 for piece in contents[1:])
    assert (house.asked[0].chunk, house.asked[0].grace) == ("word", 7)


async def test_models(log: FilteringBoundLogger) -> None:
    """What is offered by name comes first, then what upstreams list; a name may have slashes."""
    async with serving(log, names=("m", "team/m")) as (house, client):
        house.upstreams = [
            {"id": "m", "object": "model", "created": 1, "owned_by": "x"},
            {"id": "org/new", "object": "model", "created": 2, "owned_by": "x"},
        ]
        listing = (await client.get("/v1/models")).json()
        assert listing["object"] == "list"
        models = [strict.model(item) for item in listing["data"]]
        assert [(model.id, model.owned_by) for model in models] == [
            ("m", "chat-sse"),
            ("team/m", "chat-sse"),
            ("org/new", "x"),
        ]
        for model in models:
            assert (await client.get(f"/v1/models/{model.id}")).json() == model.to_dict()
        missing = await client.get("/v1/models/none")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def described(name: str) -> Draft202012Validator:
    """Return a validator for a component of the API's description that lets nothing pass that is not in it."""
    components = json.loads(json.dumps(document(credentials=False)["components"]["schemas"]))
    for schema in components.values():
        _close(schema)
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": {"schemas": components}})


def _close(schema: Any) -> None:
    for item in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _close(item)
    if isinstance(schema, dict) and schema.get("type") == "object" and "properties" in schema:
        schema["additionalProperties"] = False


async def test_answers_are_as_described(log: FilteringBoundLogger) -> None:
    """Chunks, errors, completions and models are what `/openapi.json` says, and nothing else."""
    steps = [
        (Reasoning("why"),),
        (Delta("a"), Logprobs([{"token": "a"}]), Refusal("no")),
        [ToolCall(0, "c", "f", ""), ToolCall(0, "", "", "{}")],
    ]
    options = {"stream": True, "stream_options": {"include_usage": True}}
    async with serving(log, *steps, DONE) as (_, client):
        for part in payloads((await client.post(PATH, json=body(**options))).content)[:-1]:
            described("ChatCompletionChunk").validate(part)
        described("ChatCompletion").validate((await client.post(PATH, json=body())).json())
        described("ModelList").validate((await client.get("/v1/models")).json())
    async with serving(log, *steps, Disconnected()) as (_, client):
        described("ChunkError").validate(payloads((await client.post(PATH, json=body(**options))).content)[-1])
