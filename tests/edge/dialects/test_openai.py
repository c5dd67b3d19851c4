"""OpenAI's endpoints over a real hub and journal, with an upstream that plays what a test wrote down."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.edge.bodies import ChatRequest, Defaults
from app.edge.dialects.openai import parse_completion
from app.edge.openapi.document import document
from app.errors import BadRequest, Disconnected, Rejected, StreamError, TotalTimeout, Unauthorized
from app.events import Annotation, Delta, Done, Logprobs, Media, PlainReasoning, Reasoning, Refusal, ToolCall
from app.request import StreamRequest
from app.usage import Usage
from tests.edge.service import Service, serving
from tests.script import forever
from tests.wire import strict
from tests.wire.test_openai import payloads

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
DEFAULTS = Defaults(model="default", chunk="auto", grace=10, max_grace=60)
DONE = (Done("stop", usage=Usage({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}), model="gpt"),)


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
    """Without it, the answer is one completion, whose headers say which stream it was."""
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
    """Calls come in pieces or whole, and an answer without text has no content."""
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
    """Usage is streamed only to a client that asks for it; the question does not go upstream."""
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
    """A client that reads when the stream is stopped gets an error. The 409 says that it should not be tried again."""
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
    """A client that hangs up while it waits for a whole answer leaves the stream, as any other reader does."""
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
        waiting = asyncio.ensure_future(house.app(scope, receive, send))
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
    """A spent budget is refused here as in the native dialect."""
    async with serving(log, (Delta("a"),), DONE) as (house, client):
        house.spent = True
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
    """Headers say how the text is re-chunked, and what happens when the last reader is gone."""
    headers = {"X-Chunk": "word", "X-On-Disconnect": "grace:7"}
    async with serving(log, (Delta("one two th"), Delta("ree four")), DONE) as (house, client):
        answer = await client.post(PATH, json=body(stream=True), headers=headers)
    contents = [part["choices"][0]["delta"].get("content") for part in payloads(answer.content)[1:-2]]
    assert "".join(contents) == "one two three four"
    assert all(piece.count(" ") <= 1 for piece in contents[1:])
    assert (house.asked[0].chunk, house.asked[0].grace) == ("word", 7)


async def test_models(log: FilteringBoundLogger) -> None:
    """What is offered by name comes first, then what upstreams list; a name may have slashes."""
    async with serving(log, models=("m", "team/m")) as (house, client):
        house.listed = [
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
        [ToolCall(0, "c", "f", ""), ToolCall(0, "", "", "{}"), ToolCall(1, "d", "g", "x", "custom")],
        (PlainReasoning("why"), Annotation([{}], ["u"], [{}]), Media("image", "image/png", "u")),
        (Media("file", "text/plain", "u"), Media("audio", "audio/wav", "data:audio/wav;base64,eA==")),
    ]
    options = {"stream": True, "stream_options": {"include_usage": True}}
    async with serving(log, *steps, DONE) as (_, client):
        for part in payloads((await client.post(PATH, json=body(**options))).content)[:-1]:
            described("ChatCompletionChunk").validate(part)
        described("ChatCompletion").validate((await client.post(PATH, json=body())).json())
        described("ModelList").validate((await client.get("/v1/models")).json())
    async with serving(log, *steps, Disconnected()) as (_, client):
        described("ChunkError").validate(payloads((await client.post(PATH, json=body(**options))).content)[-1])


def parse(headers: dict[str, str] | None = None, **body: Any) -> ChatRequest:
    return parse_completion({"messages": MESSAGES, **body}, headers or {}, DEFAULTS)


def refused(headers: dict[str, str] | None = None, **body: Any) -> BadRequest:
    with pytest.raises(BadRequest) as raised:
        parse(headers, **body)
    return raised.value


def test_the_least() -> None:
    """Messages are enough: the model and the rest have defaults, and the answer is no stream."""
    asked = parse()
    assert asked.stream == StreamRequest("default", tuple(MESSAGES), {}, "auto", 0, 0)
    assert (asked.whole, asked.smooth, asked.label) == (True, 0, "")
    assert parse(model=None, stream=None, stream_options=None, temperature=None).stream == asked.stream


def test_who_can_come_back() -> None:
    """A client stops by hanging up, unless it can repeat the request, or it or the operator says otherwise."""
    for stream in (True, False):
        asked = {"messages": MESSAGES, "stream": stream}
        operators = replace(DEFAULTS, grace_is_set=True)
        for found in (
            parse_completion(asked, {}, DEFAULTS, keyed=True),
            parse_completion(asked, {}, operators),
            parse_completion(asked, {"X-On-Disconnect": "grace:10"}, DEFAULTS),
        ):
            assert (found.stream.grace, found.stream.unknown_grace) == (10, 10)
        stopped = parse_completion(asked, {"X-On-Disconnect": "cancel"}, operators, keyed=True)
        assert (stopped.stream.grace, stopped.stream.unknown_grace) == (0, 0)


def test_parameters() -> None:
    """OpenAI's parameters and unknown ones go upstream as they are; what is about the answer does not."""
    known: dict[str, Any] = {
        "temperature": 0,
        "tools": [{"type": "function"}],
        "response_format": {"type": "json_object"},
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "wav"},
        "n": 1,
    }
    unknown: dict[str, Any] = {"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}, "min_p": None}
    mine: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True, "include_obfuscation": True},
        "model": "m",
    }
    asked = parse(**known, **unknown, **mine)
    assert asked.stream.parameters == {**known, **unknown}
    assert (asked.stream.model, asked.whole) == ("m", False)
    assert asked.stream.include_usage
    assert not parse(stream=True).stream.include_usage


def test_known_parameters_are_checked() -> None:
    """What is wrong is refused as it is in the native dialect, by its name."""
    wrong = {"temperature": 3, "n": 2, "stream": 1, "model": "", "messages": [], "tools": {}}
    for field, value in wrong.items():
        assert refused(None, **{field: value}).param == field
    assert refused(messages=[{"content": "x"}]).param == "messages[0].role"
    assert refused(stream_options={"include_usage": "yes"}).param == "stream_options.include_usage"
    with pytest.raises(BadRequest, match="'messages'"):
        parse_completion({}, {}, DEFAULTS)
    with pytest.raises(BadRequest, match="object"):
        parse_completion([], {}, DEFAULTS)


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ({"functions": [{"name": "f"}]}, "'tools'"),
        ({"function_call": "auto"}, "'tool_choice'"),
    ],
)
def test_parameters_that_are_refused(body: dict[str, Any], hint: str) -> None:
    """What the answer could not carry is refused, with what to do instead; null counts as absent."""
    (field,) = body
    error = refused(**body)
    assert str(error.param).partition("[")[0] == field
    assert hint in error.text
    assert parse(**{field: None}).stream == parse().stream


def test_unknown_names_have_a_bound() -> None:
    """Unknown parameters are bounded in number and name, and an error does not quote them."""
    for names in ([f"p{number}" for number in range(128)], ["x" * 65], ["a\nb"], [""]):
        error = refused(None, **dict.fromkeys(names, 1))
        assert error.param is None
        assert len(error.text) < 120
        assert "\n" not in error.text
    most = {f"p{number}": 1 for number in range(127)}  # beside the messages
    assert parse(None, **most).stream.parameters == most


def test_headers() -> None:
    """Cut and policy, which OpenAI does not have, are headers; what is wrong with one is said by its name."""
    asked = parse({"X-Chunk": "word,80ms,smooth:300", "X-On-Disconnect": "cancel"})
    assert (asked.stream.chunk, asked.smooth, asked.stream.grace) == ("word,80ms", 0.3, 0)
    assert refused({"X-Chunk": "paragraph"}).param == "X-Chunk"
    for policy in ("maybe", "", "grace:61"):
        error = refused({"X-On-Disconnect": policy})
        assert (error.param, "'X-On-Disconnect'" in error.text) == ("X-On-Disconnect", True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
fields = st.sampled_from(["messages", "stream", "stream_options", "functions", "modalities", "model", "n", "x", "\n"])


@given(st.dictionaries(fields, json_values, max_size=4) | json_values)
def test_any_body_is_taken_or_refused(body: Any) -> None:
    """Whatever the JSON, parsing fails in no other way than BadRequest."""
    if isinstance(body, dict):
        body.setdefault("messages", MESSAGES)
    try:
        assert isinstance(parse_completion(body, {}, DEFAULTS), ChatRequest)
    except BadRequest as error:
        assert len(error.text) < 500
