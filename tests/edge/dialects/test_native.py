"""The native dialect's endpoints, and its bodies: what is wrong is refused by name, without quoting it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.typing import FilteringBoundLogger

from app.edge.access.models import Rule
from app.edge.bodies import Defaults
from app.edge.dialects.native import parse_chat
from app.errors import BadRequest
from app.events import Delta, Done
from app.request import StreamRequest
from tests.edge.service import serving

DEFAULTS = Defaults(model="default", chunk="auto", grace=10, max_grace=60)
EVENTS = {"Accept": "text/event-stream"}
JSON = {"Accept": "application/json"}
DONE = (Done("stop"),)


def parse(**body: Any) -> StreamRequest:
    return parse_chat(body, DEFAULTS).stream


def test_prompt() -> None:
    """A prompt is one user message; model and cut have defaults."""
    request = parse(prompt="hi")
    assert request == StreamRequest("default", ({"role": "user", "content": "hi"},), {}, "auto", 10, 0)


def test_messages_and_parameters_pass_as_they_are() -> None:
    """Messages and OpenAI's parameters go through unchanged, unknown fields inside messages too."""
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}], "vendor": 1},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
    ]
    parameters = {"temperature": 0, "stop": ["a"], "max_tokens": 3, "modalities": ["image", "text"], "audio": {"a": 1}}
    request = parse(messages=messages, model="m", chunk="word,50ms", **parameters)
    assert list(request.messages) == messages
    assert request.parameters == parameters
    assert (request.model, request.chunk) == ("m", "word,50ms")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 1}, "prompt"),
        ({"prompt": None, "messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "b"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "b"}, {"role": "pope", "content": "b"}]}, "messages[1].role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [7]}, "messages[0]"),
        ({"prompt": "a", "temperature": "hot"}, "temperature"),
        ({"prompt": "a", "temperature": 3}, "temperature"),
        ({"prompt": "a", "temperature": True}, "temperature"),
        ({"prompt": "a", "n": 2}, "n"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 1.5}, "max_tokens"),
        ({"prompt": "a", "stop": [1]}, "stop"),
        ({"prompt": "a", "logit_bias": {"5": "x"}}, "logit_bias.5"),
        ({"prompt": "a", "tools": {}}, "tools"),
        ({"prompt": "a", "chunk": "paragraph"}, "chunk"),
        ({"prompt": "a", "chunk": "word,smooth:0"}, "chunk"),
        ({"prompt": "a", "chunk": "smooth:x"}, "chunk"),
        ({"prompt": "a", "chunk": "wordsmooth:40"}, "chunk"),
        ({"prompt": "a", "chunk": ",smooth:40"}, "chunk"),
        ({"prompt": "a", "chunk": "auto,"}, "chunk"),
        ({"prompt": "a", "chunk": "smooth:100,word"}, "chunk"),
        ({"prompt": "a", "on_disconnect": "maybe"}, "on_disconnect"),
        ({"prompt": "a", "on_disconnect": "continue"}, "on_disconnect"),
        ({"prompt": "a", "on_disconnect": "grace:61"}, "on_disconnect"),
        ({"prompt": "a", "on_disconnect": 5}, "on_disconnect"),
        ({"prompt": "a", "temprature": 1}, "temprature"),
        ({"prompt": "a", "stream": "yes"}, "stream"),
        ({"prompt": "a", "stream_options": True}, "stream_options"),
        ({"prompt": "a", "max_tokens": -2}, "max_tokens"),
        ({"prompt": "a", "max_completion_tokens": 0}, "max_completion_tokens"),
        ({"prompt": "a", "model": ""}, "model"),
        ({"prompt": "a", "model": "m" * 257}, "model"),
        ({"prompt": "a", "model": "a\nb"}, "model"),
        ({"prompt": "a", "model": "a\x85b"}, "model"),
        ({"prompt": "a", "model": "a\u2028b"}, "model"),
        ({"prompt": "a", "model": "a\u202eb"}, "model"),
        ({"prompt": "a", "metadata": {"k": 1}}, "metadata.k"),
        ({"prompt": "a", "metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"prompt": "a", "metadata": {"k" * 65: "v"}}, f"metadata.{'k' * 64}"),
        ({"prompt": "a", "metadata": {str(number): "v" for number in range(17)}}, "metadata"),
    ],
)
def test_bad_field(body: dict[str, Any], field: str) -> None:
    """What is wrong is refused with 400, and the field is named as the client wrote it."""
    with pytest.raises(BadRequest) as raised:
        parse(**body)
    assert raised.value.param == field
    assert f"'{field}'" in raised.value.text


@pytest.mark.parametrize(
    "model", ["流式抗截断/gemini-2.5-pro", "модель:7b", "🦙 llama", "👩\u200d💻", "a b", "m" * 256]
)
def test_model_names(model: str) -> None:
    """A model may have any name that can be read on one line."""
    assert parse(prompt="a", model=model).model == model


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_no_limit(field: str) -> None:
    """-1, which LM Studio and llama.cpp take for "no limit", counts as absent: it goes nowhere."""
    assert parse(prompt="a", **{field: -1}).parameters == {}
    both = {"max_tokens": -1, "max_completion_tokens": -1, field: 5}
    assert parse(prompt="a", **both).parameters == {field: 5}


def test_no_limit_under_a_cap() -> None:
    """A request that wants no limit gets the model's cap."""
    rule = Rule(max_output_tokens=7)
    assert rule.apply(parse(prompt="a", max_tokens=-1)).parameters == {"max_completion_tokens": 7}


def test_habits_of_openais_clients() -> None:
    """`stream` and what belongs to it are taken, and change nothing."""
    for stream in (True, False, None):
        asked = parse(prompt="a", stream=stream, stream_options={"include_usage": True, "include_obfuscation": False})
        assert asked == parse(prompt="a")


def test_several_answers() -> None:
    """A request for two answers is told what to do."""
    with pytest.raises(BadRequest, match="one answer"):
        parse(prompt="a", n=2)


@pytest.mark.parametrize(("policy", "grace"), [("cancel", 0), ("grace:0.5", 0.5), ("grace:60", 60)])
def test_policy(policy: str, grace: float) -> None:
    """A request says what happens when its last reader is gone, within the server's bound."""
    asked = parse(prompt="a", on_disconnect=policy)
    assert (asked.grace, asked.unknown_grace) == (grace, grace)


def test_the_usual_policy() -> None:
    """Who has the stream's id may come back; before that, only who can repeat the request, or if the operator says."""
    for keyed, is_set, unknown in ((False, False, 0), (True, False, 10), (False, True, 10)):
        asked = parse_chat({"prompt": "a"}, replace(DEFAULTS, grace_is_set=is_set), keyed=keyed).stream
        assert (asked.grace, asked.unknown_grace) == (10, unknown)


@pytest.mark.parametrize(
    ("chunk", "cut", "smooth"),
    [("word", "word", 0), ("smooth:200", "auto", 0.2), ("word,80ms,smooth:300", "word,80ms", 0.3)],
)
def test_smooth_is_the_readers_side(chunk: str, cut: str, smooth: float) -> None:
    """`smooth:MS` may follow a cut or stand alone. It is about the reader, not about how the stream is cut."""
    asked = parse_chat({"prompt": "a", "chunk": chunk}, DEFAULTS)
    assert (asked.stream.chunk, asked.smooth) == (cut, smooth)


@pytest.mark.parametrize("body", [None, [], "prompt", 1])
def test_not_an_object(body: Any) -> None:
    """A body that is JSON but no object is refused."""
    with pytest.raises(BadRequest, match="object"):
        parse_chat(body, DEFAULTS)


def test_values_are_not_quoted() -> None:
    """An error names the field and does not quote its value; a long field name is cut."""
    secret = "secret" * 1000
    for body in ({"prompt": [secret]}, {"prompt": "a", "stop": secret}, {"prompt": "a", "user": secret}):
        with pytest.raises(BadRequest) as raised:
            parse(**body)
        assert "secret" not in raised.value.text
    with pytest.raises(BadRequest) as raised:
        parse(prompt="a", **{secret: 1})
    assert len(raised.value.text) < 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
fields = st.sampled_from(["prompt", "messages", "stop", "tools", "chunk", "model", "logit_bias", "on_disconnect", "x"])


@given(st.dictionaries(fields, json_values, max_size=4) | json_values)
def test_any_body_is_taken_or_refused(body: Any) -> None:
    """Whatever the JSON, parsing fails in no other way than BadRequest."""
    try:
        assert isinstance(parse_chat(body, DEFAULTS).stream, StreamRequest)
    except BadRequest as error:
        assert len(error.text) < 500


@pytest.mark.anyio
async def test_open_and_attach(log: FilteringBoundLogger) -> None:
    """A stream is the answer to its request. It can be read again: whole, after a position, or as a snapshot."""
    async with serving(log, (Delta("a"),), DONE) as (_, client):
        opened = await client.post("/v1/chat", json={"prompt": "x"})
        where = opened.headers["content-location"]
        stream_id = opened.headers["x-stream-id"]
        last = f"{stream_id}-3"
        blocks = opened.text.split("\n", 1)[1]  # after `retry:`, which differs
        assert (await client.get(where)).text.split("\n", 1)[1] == blocks
        resumed = await client.get(where, headers={"Last-Event-ID": f"{stream_id}-2"})
        assert resumed.text.split("\n", 1)[1] == blocks[blocks.index("event: done") :]
        assert (await client.get(where, params={"last_event_id": last})).status_code == 204
        snapshot = await client.get(where, headers=JSON)
        assert (snapshot.json()["content"], snapshot.json()["last_event_id"]) == ("a", last)


@pytest.mark.anyio
async def test_open_without_reading(log: FilteringBoundLogger) -> None:
    """A client that accepts JSON is told at once where the stream is."""
    async with serving(log, (Delta("a"),), DONE) as (_, client):
        opened = await client.post("/v1/chat", json={"prompt": "x"}, headers=JSON)
        assert (opened.status_code, opened.headers["location"]) == (201, opened.json()["url"])
        assert "event: done" in (await client.get(opened.json()["url"])).text
        assert (await client.post(opened.json()["cancel_url"])).json()["state"] == "done"


@pytest.mark.anyio
async def test_head(log: FilteringBoundLogger) -> None:
    """HEAD has the headers of a stream, and counts as no reader."""
    async with serving(log, (Delta("a"),), DONE) as (service, client):
        opened = await client.post("/v1/chat", json={"prompt": "x"})
        attached = service.meter.attached
        head = await client.head(opened.headers["content-location"], headers=EVENTS)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == opened.headers["content-type"]
        assert head.headers["cache-control"] == "no-store, no-transform"
        assert service.meter.attached == attached


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["A" * 22, "x", "a%20b", "%C3%A9", "A" * 999])
async def test_no_such_stream(log: FilteringBoundLogger, name: str) -> None:
    """It is a 404, whatever the id looks like, whatever is asked of it."""
    async with serving(log) as (_, client):
        url = f"/v1/streams/{name}"
        for method, path in (("GET", url), ("DELETE", url), ("POST", f"{url}/cancel")):
            for accept in (EVENTS, JSON):
                answer = await client.request(method, path, headers=accept)
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_stream")


@pytest.mark.anyio
async def test_positions_of_other_streams(log: FilteringBoundLogger) -> None:
    """A position of another stream, or one that is no position, is refused."""
    async with serving(log, (Delta("a"),), DONE) as (_, client):
        where = (await client.post("/v1/chat", json={"prompt": "x"})).headers["content-location"]
        for position in ("x", f"{'A' * 22}-1"):
            for accept in ({}, JSON):
                answer = await client.get(where, headers={"Last-Event-ID": position} | accept)
                assert (answer.status_code, answer.json()["error"]["param"]) == (400, "last_event_id")


def test_metadata_is_for_the_list() -> None:
    """It is kept with the stream, and does not go upstream: OpenAI refuses it without `store`."""
    asked = parse(prompt="a", metadata={"title": "é"}, seed=1)
    assert (asked.metadata, asked.parameters) == ('{"title":"é"}', {"seed": 1})
    assert parse(prompt="a", metadata={}).metadata == parse(prompt="a").metadata == ""


@pytest.mark.anyio
async def test_list(log: FilteringBoundLogger) -> None:
    """A caller sees its own streams, newest first; a page says where the next one is."""
    async with serving(log, (Delta("a"),), DONE) as (service, client):
        before = int(time.time())
        ann, bob = {"X-Who": "ann"}, {"X-Who": "bob"}
        body = {"prompt": "hi", "model": "m", "metadata": {"title": "One"}}
        made = []
        for _ in range(3):
            answer = await client.post("/v1/chat", json=body, headers=ann)
            made.append(answer.headers["x-stream-id"])
        assert service.asked[0].parameters == {}
        await client.post("/v1/chat", json=body, headers=bob)
        found = (await client.get("/v1/streams", headers=ann)).json()
        assert found["next"] is None
        assert [stream["stream_id"] for stream in found["streams"]] == made[::-1]
        newest = found["streams"][0]
        assert before <= newest.pop("created") <= time.time()
        assert newest == {
            "stream_id": made[2],
            "url": f"/v1/streams/{made[2]}",
            "state": "done",
            "model": "m",
            "metadata": {"title": "One"},
            "last_event_id": f"{made[2]}-3",
        }
        page = (await client.get("/v1/streams?limit=2", headers=ann)).json()
        assert [stream["stream_id"] for stream in page["streams"]] == [made[2], made[1]]
        page = (await client.get(page["next"], headers=ann)).json()
        assert ([stream["stream_id"] for stream in page["streams"]], page["next"]) == ([made[0]], None)
        assert (await client.get("/v1/streams?state=live", headers=ann)).json() == {"streams": [], "next": None}
        assert len((await client.get("/v1/streams", headers=bob)).json()["streams"]) == 1


@pytest.mark.anyio
async def test_list_of_live_streams(log: FilteringBoundLogger) -> None:
    """`state=live` leaves out those that have ended, and the next page does, too."""
    async with serving(log, (Delta("a"),), asyncio.Event().wait) as (_, client):
        ann = {"X-Who": "ann"}
        made = [
            (await client.post("/v1/chat", json={"prompt": "hi"}, headers={**JSON, **ann})).json()["stream_id"]
            for _ in range(4)
        ]
        await client.delete(f"/v1/streams/{made[2]}", headers=ann)
        page = (await client.get("/v1/streams?state=live&limit=2", headers=ann)).json()
        assert [(stream["stream_id"], stream["state"]) for stream in page["streams"]] == [
            (made[3], "live"),
            (made[1], "live"),
        ]
        page = (await client.get(page["next"], headers=ann)).json()
        assert ([stream["stream_id"] for stream in page["streams"]], page["next"]) == ([made[0]], None)
        states = [stream["state"] for stream in (await client.get("/v1/streams", headers=ann)).json()["streams"]]
        assert states == ["live", "done", "live", "live"]


@pytest.mark.anyio
async def test_list_without_credentials(log: FilteringBoundLogger) -> None:
    """Callers that cannot be told apart see no list: the id of a stream is all that keeps strangers out."""
    async with serving(log, (Delta("a"),), DONE) as (_, client):
        await client.post("/v1/chat", json={"prompt": "hi"})
        assert (await client.get("/v1/streams")).json() == {"streams": [], "next": None}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("state=ended", "state"),
        ("state=", "state"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("limit=%D9%A1", "limit"),
        ("before=-1", "before"),
        ("before=1e3", "before"),
        (f"before={'9' * 17}", "before"),
    ],
)
async def test_list_of_what(log: FilteringBoundLogger, query: str, param: str) -> None:
    """What cannot be listed is a 400 that names the parameter."""
    async with serving(log) as (_, client):
        answer = await client.get(f"/v1/streams?{query}", headers={"X-Who": "ann"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.anyio
async def test_list_in_all_dialects(log: FilteringBoundLogger) -> None:
    """A stream of any dialect is listed, with the metadata that its request had, or its chat's id."""
    messages = [{"role": "user", "content": "hi"}]
    parts = [{"type": "text", "text": "hi"}]
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"messages": messages, "metadata": {"a": "b"}},
        "/v1/responses": {"input": "hi", "metadata": {"c": "d"}},
        "/v1/ai-sdk/chat": {"id": "chat 7", "messages": [{"id": "1", "role": "user", "parts": parts}]},
        "/v1/ag-ui": {"threadId": "t", "runId": "r", "messages": [{"id": "1", "role": "user", "content": "hi"}]},
    }
    async with serving(log, (Delta("a"),), DONE) as (service, client):
        for path, body in bodies.items():
            assert (await client.post(path, json=body, headers={"X-Who": "ann"})).status_code == 200
        found = (await client.get("/v1/streams", headers={"X-Who": "ann"})).json()["streams"]
        shown = [stream["metadata"] for stream in found]
        assert shown == [{"thread_id": "t"}, {"chat_id": "chat 7"}, {"c": "d"}, {"a": "b"}]
        assert service.asked[0].parameters == {"metadata": {"a": "b"}}
