"""OpenAI's Responses over HTTP: streaming, whole, in the background, resumed, stopped and removed."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest
from structlog.typing import FilteringBoundLogger

from app.edge.bodies import ChatRequest, Defaults
from app.edge.dialects.responses import parse_response
from app.errors import BadRequest, Disconnected, RateExceeded, RateLimited
from app.events import Delta, Done, Logprobs, Reasoning, ToolCall
from app.request import Allowance, Principal
from app.wire.opaque import seal
from tests.edge.service import serving
from tests.script import forever
from tests.wire import strict
from tests.wire.answers import EVERYTHING, blocks_of, responses

pytestmark = pytest.mark.anyio

PATH = "/v1/responses"
HI = {"input": "hi"}
DONE = Done("stop")
HELLO: list[Any] = [(Delta("Hel"),), (Delta("lo"),), (DONE,)]
DEFAULTS = Defaults(model="m", chunk="auto", grace=10, max_grace=math.inf)


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(block["data"]) for block in blocks_of(text.encode())]


async def test_streaming(log: FilteringBoundLogger) -> None:
    """With `stream`, the answer is events, each of which is OpenAI's to the letter."""
    async with serving(log, *HELLO) as (house, client):
        answer = await client.post(PATH, json={**HI, "stream": True, "instructions": "Be brief.", "chunk": "odd"})
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        events = events_of(answer.text)
        for event in events:
            event.get("response", {}).pop("usage", None)
            strict.response_event(event)
        last = events[-1]["response"]
        assert (last["id"], last["status"]) == (f"resp_{answer.headers['x-stream-id']}", "completed")
        assert last["output"][0]["content"][0]["text"] == "Hello"
        assert last["instructions"] == "Be brief."
        assert [message["role"] for message in house.asked[0].messages] == ["system", "user"]
        assert house.asked[0].parameters["chunk"] == "odd"  # it goes upstream: `X-Chunk` is this service's


async def test_whole(log: FilteringBoundLogger) -> None:
    """Without it, the answer is the response, and so it is later; its events are those of the stream."""
    async with serving(log, *HELLO) as (house, client):
        answer = await client.post(PATH, json=HI)
        found = answer.json()
        assert (answer.status_code, found["status"]) == (200, "completed")
        assert answer.headers["content-location"] == f"/v1/streams/{answer.headers['x-stream-id']}"
        again = await client.get(f"{PATH}/{found['id']}")
        assert again.json() == found
        streamed = await client.get(f"{PATH}/{found['id']}", params={"stream": "true"})
        assert events_of(streamed.text)[-1]["response"] == found
        assert house.source.started == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_failures(log: FilteringBoundLogger, stream: bool) -> None:
    """What fails before the first event has a status and OpenAI's body, as chat completions have it."""
    async with serving(log, RateLimited(retry_after=7)) as (_, client):
        answer = await client.post(PATH, json={**HI, "stream": stream})
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
        assert answer.json()["error"]["code"] == "upstream_rate_limited"
        if not stream:
            kept = await client.get(f"{PATH}/resp_{'A' * 22}")
            assert (kept.status_code, kept.json()["error"]["code"]) == (404, "unknown_stream")


async def test_a_failure_in_the_middle(log: FilteringBoundLogger) -> None:
    """It is the last event; without a stream it is a status, and the response says it later."""
    async with serving(log, (Delta("a"),), Disconnected()) as (_, client):
        streamed = await client.post(PATH, json={**HI, "stream": True})
        last = events_of(streamed.text)[-1]
        assert (last["type"], last["response"]["error"]["service_code"]) == ("response.failed", "upstream_disconnected")
        whole = await client.post(PATH, json=HI)
        assert whole.status_code == 502
        later = await client.get(f"{PATH}/{last['response']['id']}")
        assert later.json() == last["response"]


async def test_every_number_is_a_cursor(log: FilteringBoundLogger) -> None:
    """`starting_after` gives exactly the rest, a position too, and after the last event there is none."""
    steps = [EVERYTHING[at : at + 3] for at in range(1, len(EVERYTHING), 3)]
    async with serving(log, *steps, (Done("tool_calls"),)) as (house, client):
        opened = await client.post(PATH, json={**HI, "stream": True}, headers={"X-Chunk": "none"})
        url = f"{PATH}/resp_{opened.headers['x-stream-id']}"
        whole = (await client.get(url, params={"stream": "true"})).text
        blocks = whole.split("\n\n")[:-1]
        events = events_of(whole)
        for at, event in enumerate(events):
            query = {"stream": "true", "starting_after": str(event["sequence_number"])}
            rest = await client.get(url, params=query)
            assert (rest.status_code, rest.headers["content-type"].split(";")[0]) == (200, "text/event-stream")
            assert rest.text == "".join(f"{block}\n\n" for block in blocks[at + 1 :])
            position = blocks[at].rpartition("\nid: ")[2]
            resumed = await client.get(url, headers={"Last-Event-ID": position})
            assert resumed.text == rest.text
        assert house.source.started == 1


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"stream": "true", "starting_after": "99"}, "starting_after"),
        ({"stream": "true", "starting_after": "-1"}, "starting_after"),
        ({"stream": "true", "starting_after": "x"}, "starting_after"),
        ({"starting_after": "1"}, "starting_after"),
        ({"stream": "yes"}, "stream"),
        ({"stream": "true", "last_event_id": "x"}, "last_event_id"),
        ({"last_event_id": "A" * 22 + "-1"}, "last_event_id"),
    ],
)
async def test_a_cursor_that_is_none(log: FilteringBoundLogger, query: dict[str, str], param: str) -> None:
    """It is refused by name, and never ignored."""
    async with serving(log, *HELLO) as (_, client):
        opened = await client.post(PATH, json=HI)
        answer = await client.get(f"{PATH}/{opened.json()['id']}", params=query)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_live_stream(log: FilteringBoundLogger) -> None:
    """A reader that comes back in the middle gets the rest as it comes; a number that is still to come is refused."""
    go = asyncio.Event()
    async with serving(log, (Delta("a"),), go.wait, (Delta("b"),), (DONE,)) as (_, client):
        background = await client.post(PATH, json={**HI, "background": True})
        url = f"{PATH}/{background.json()['id']}"
        while (await client.get(url)).json()["output"] == []:
            await asyncio.sleep(0.01)
        early = await client.get(url, params={"stream": "true", "starting_after": "50"})
        assert early.status_code == 400
        rest = asyncio.create_task(client.get(url, params={"stream": "true", "starting_after": "4"}))
        await asyncio.sleep(0)
        go.set()
        assert [event["sequence_number"] for event in events_of((await rest).text)] == [5, 6, 7, 8, 9]


async def test_background(log: FilteringBoundLogger) -> None:
    """It is answered at once, goes on without a reader, and can be asked for until it is done."""
    go = asyncio.Event()
    async with serving(log, go.wait, *HELLO) as (house, client):
        opened = await client.post(PATH, json={**HI, "background": True, "metadata": {"a": "b"}})
        found = opened.json()
        assert (found["status"], found["background"], found["metadata"]) == ("queued", True, {"a": "b"})
        strict.response(found)
        assert house.asked[0].grace == 60  # as long as the operator allows
        go.set()
        while (found := (await client.get(f"{PATH}/{found['id']}")).json())["status"] != "completed":
            await asyncio.sleep(0.01)
        assert found["output"][0]["content"][0]["text"] == "Hello"


async def test_cancel(log: FilteringBoundLogger) -> None:
    """It stops the answer, and returns the whole response; once more it does nothing."""
    async with serving(log, (Delta("a"),), forever) as (house, client):
        opened = await client.post(PATH, json={**HI, "background": True})
        url = f"{PATH}/{opened.json()['id']}"
        while (await client.get(url)).json()["output"] == []:
            await asyncio.sleep(0.01)
        for _ in range(2):
            answer = await client.post(f"{url}/cancel")
            found = answer.json()
            assert (answer.status_code, found["status"], found["object"]) == (200, "cancelled", "response")
            assert found["output"][0]["content"][0]["text"] == "a"
        assert house.source.closed.is_set()


async def test_delete(log: FilteringBoundLogger) -> None:
    """It stops the answer, and removes it."""
    async with serving(log, (Delta("a"),), forever) as (house, client):
        opened = await client.post(PATH, json={**HI, "background": True})
        url = f"{PATH}/{opened.json()['id']}"
        answer = await client.delete(url)
        assert answer.json() == {"id": opened.json()["id"], "object": "response", "deleted": True}
        await house.settled()
        assert [(await client.get(url)).status_code, (await client.delete(url)).status_code] == [404, 404]
        assert (await client.post(f"{url}/cancel")).status_code == 404
        assert len(house.journal) == 0


@pytest.mark.parametrize("response_id", ["x", "resp_1", "A" * 22, "resp_" + "A" * 22])
async def test_an_id_that_is_none(log: FilteringBoundLogger, response_id: str) -> None:
    """It is a 404 with OpenAI's body."""
    async with serving(log) as (_, client):
        answer = await client.get(f"{PATH}/{response_id}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_stream")


async def test_the_response_of_another_principal(log: FilteringBoundLogger) -> None:
    """To any other caller it does not exist, and neither do its items."""
    async with serving(log, *HELLO) as (house, client):
        mine = (await client.post(PATH, json=HI)).json()
        them = {"X-Who": "them"}
        url = f"{PATH}/{mine['id']}"
        for method, path in (("GET", url), ("DELETE", url), ("POST", f"{url}/cancel")):
            assert (await client.request(method, path, headers=them)).status_code == 404
        reference = {"type": "item_reference", "id": mine["output"][0]["id"]}
        asked = await client.post(PATH, json={"input": [reference, {"role": "user", "content": "x"}]}, headers=them)
        assert (asked.status_code, asked.json()["error"]["param"]) == (404, "input[0].id")
        assert (await client.get(url)).status_code == 200
        assert house.source.started == 1


async def test_references(log: FilteringBoundLogger) -> None:
    """An item of a kept stream stands for itself; the call's own fields come back, too."""
    extra = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    steps = [(Reasoning("hm"),), (Delta("Hello"),), (ToolCall(0, "c", "f", "{}", "function", extra),)]
    async with serving(log, *steps, (Done("tool_calls"),)) as (house, client):
        output = (await client.post(PATH, json=HI)).json()["output"]
        items = [
            {"role": "user", "content": "hi"},
            *({"type": "item_reference", "id": item["id"]} for item in output[:2]),
            {"id": output[2]["id"]},
            {"type": "function_call_output", "call_id": "c", "output": "1"},
        ]
        assert (await client.post(PATH, json={"input": items})).status_code == 200
        _, assistant, tool = house.asked[-1].messages
        assert (assistant["content"], assistant["reasoning_content"]) == ("Hello", "hm")
        assert assistant["tool_calls"] == [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}, **extra}
        ]
        assert tool == {"role": "tool", "tool_call_id": "c", "content": "1"}


@pytest.mark.parametrize("item_id", ["msg_1", "x" * 500, f"msg_{'A' * 22}_0", None, 1])
async def test_references_that_lead_nowhere(log: FilteringBoundLogger, item_id: Any) -> None:
    """They are a 404 that names them."""
    async with serving(log, *HELLO) as (_, client):
        answer = await client.post(PATH, json={"input": [{"type": "item_reference", "id": item_id}]})
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (404, "input[0].id")
        name = item_id if isinstance(item_id, str) and len(item_id) < 100 else "an item"
        assert error["message"] == f"'input[0]' refers to {name}, which is not kept here."
        first = (await client.post(PATH, json=HI)).json()["output"][0]["id"]
        for wrong in (first.replace("msg", "rs"), first[:-1] + "9"):
            again = await client.post(PATH, json={"input": [{"type": "item_reference", "id": wrong}]})
            assert again.status_code == 404


@pytest.mark.parametrize(("method", "path"), [("DELETE", ""), ("POST", "/cancel")])
async def test_a_stop_of_nothing_is_counted(log: FilteringBoundLogger, method: str, path: str) -> None:
    """A stop that names no response counts as a request, as that of an unknown one."""
    async with serving(log, *HELLO) as (house, client):
        for item_id in ("nonsense", f"resp_{'A' * 22}"):
            house.stop_refusal = None
            assert (await client.request(method, f"{PATH}/{item_id}{path}")).status_code == 404
            house.stop_refusal = RateExceeded(retry_after=9)
            assert (await client.request(method, f"{PATH}/{item_id}{path}")).status_code == 429


async def test_references_are_bounded(log: FilteringBoundLogger) -> None:
    """They may not make a request larger than a body may be."""
    for size, times in ((10_000, 200), (900_000, 2)):
        async with serving(log, (Delta("x" * size),), (DONE,)) as (_, client):
            first = (await client.post(PATH, json=HI)).json()["output"][0]["id"]
            many = [{"type": "item_reference", "id": first}] * times
            assert (await client.post(PATH, json={"input": many})).status_code == 413


async def test_references_take_a_place(log: FilteringBoundLogger) -> None:
    """To read whole responses for one takes a reader's place, so a caller cannot have any number read at once."""
    async with serving(log, *HELLO) as (house, client):
        item = (await client.post(PATH, json=HI)).json()["output"][0]["id"]
        house.allowance = Allowance(readers=1)
        said = [{"type": "item_reference", "id": item}, {"role": "user", "content": "x"}]
        asked = {"background": True, "input": said}
        with house.hub.reserve(Principal("", house.allowance)):
            refused = await client.post(PATH, json=asked)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_readers")
        assert house.source.started == 1
        assert (await client.post(PATH, json=asked)).status_code == 200


async def test_not_stored(log: FilteringBoundLogger) -> None:
    """A response with `store: false` is kept for its grace only."""
    async with serving(log, *HELLO) as (house, client):
        await client.post(PATH, json={**HI, "store": False})
        assert house.asked[-1].keep == 10
        await client.post(PATH, json={**HI, "store": False}, headers={"X-On-Disconnect": "grace:20"})
        assert house.asked[-1].keep == 20
        for store in (True, None):
            await client.post(PATH, json={**HI, "store": store})
            assert house.asked[-1].keep == math.inf


async def test_an_idempotency_key(log: FilteringBoundLogger) -> None:
    """The same request under the same key is answered by the same response."""
    async with serving(log, *HELLO) as (house, client):
        key = {"Idempotency-Key": "k"}
        first, again = [await client.post(PATH, json=HI, headers=key) for _ in range(2)]
        assert first.json() == again.json()
        assert (await client.post(PATH, json={"input": "other"}, headers=key)).status_code == 422
        assert house.source.started == 1


async def test_logprobs(log: FilteringBoundLogger) -> None:
    """They are in the part, and in an event of their own."""
    weights = [{"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}]
    async with serving(log, (Delta("a"), Logprobs(weights)), (DONE,)) as (house, client):
        body = {**HI, "stream": True, "include": ["message.output_text.logprobs"]}
        events, pieces = responses(blocks_of((await client.post(PATH, json=body)).content))
        [piece] = pieces.values()
        assert piece[:2] == ["a", weights]
        assert events[-1][1]["response"]["output"][0]["content"][0]["logprobs"] == weights
        assert house.asked[0].parameters["logprobs"] is True


def parse(headers: dict[str, str] | None = None, **body: Any) -> ChatRequest:
    return parse_response({**HI, **body}, headers or {}, DEFAULTS, 7.5)


def test_parameters() -> None:
    """What chat completions have as well has their names there; the rest is for upstreams that speak Responses."""
    asked = parse(
        model="gpt",
        temperature=0.5,
        max_output_tokens=9,
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": {"type": "json_object"}, "verbosity": "low"},
        tools=[{"type": "function", "name": "f"}],
        tool_choice="required",
        parallel_tool_calls=False,
        top_logprobs=2,
        include=["reasoning.encrypted_content"],
        metadata={"a": "b"},
        truncation="auto",
        store=True,
        user=None,
        odd=1,
    ).stream
    assert asked.model == "gpt"
    assert asked.parameters == {
        "temperature": 0.5,
        "max_completion_tokens": 9,
        "reasoning_effort": "low",
        "response_format": {"type": "json_object"},
        "verbosity": "low",
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "logprobs": True,
        "top_logprobs": 2,
        "odd": 1,
    }
    assert asked.responses == {
        "include": ["reasoning.encrypted_content"],
        "metadata": {"a": "b"},
        "truncation": "auto",
        "reasoning": {"summary": "auto"},
    }
    said = json.loads(asked.asked)
    assert (said["model"], said["created_at"], said["store"]) == ("gpt", 7, True)
    assert said["tools"] == [{"type": "function", "name": "f", "description": None, "parameters": None, "strict": None}]


def test_what_means_nothing_without_tools() -> None:
    """OpenAI's chat completions refuse it there."""
    assert parse(tool_choice="auto", parallel_tool_calls=True, max_output_tokens=-1).stream.parameters == {}


@pytest.mark.parametrize("name", ["previous_response_id", "conversation", "prompt"])
def test_what_is_refused(name: str) -> None:
    """What needs a state that the service does not keep is refused by name."""
    with pytest.raises(BadRequest) as refused:
        parse_response({**HI, name: "x"}, {}, DEFAULTS, 0)
    assert refused.value.param == name
    assert parse_response({**HI, name: None}, {}, DEFAULTS, 0).stream.parameters == {}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": 1}, "input"),
        ({"input": []}, "input"),
        ({"messages": []}, "messages"),
        ({"max_tokens": 1}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"tools": [1]}, "tools[0]"),
        ({"text": {"verbosity": 1}}, "text.verbosity"),
        ({"background": True, "store": False}, "store"),
    ],
)
def test_what_is_wrong(body: dict[str, Any], param: str) -> None:
    """It is refused by the name of its field."""
    with pytest.raises(BadRequest) as refused:
        parse(**body)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("given", "param", "what"), [(1, "input", "string"), ([], "input", "at least 1"), ([1], "input[0]", "dictionary")]
)
def test_an_input_that_is_wrong(given: Any, param: str, what: str) -> None:
    """What is said of it is about the form that it has: a string or a list."""
    with pytest.raises(BadRequest) as refused:
        parse(input=given)
    assert refused.value.param == param
    assert what in str(refused.value)


def test_unknown_parameters() -> None:
    """They go upstream, unless they have no name."""
    assert parse_response({**HI, "odd": 1, "client_metadata": {}}, {}, DEFAULTS, 0).stream.parameters == {"odd": 1}
    for wrong in ("", "x" * 65, "é"):
        with pytest.raises(BadRequest):
            parse_response({**HI, wrong: 1}, {}, DEFAULTS, 0)


def test_policies() -> None:
    """A client that hangs up stops its answer, unless it asked for one in the background, or says otherwise."""
    assert parse().stream.grace == 0
    assert parse(background=True).stream.grace == math.inf
    headers = {"X-On-Disconnect": "grace:7", "X-Chunk": "word"}
    asked = parse(headers, background=True).stream
    assert (asked.grace, asked.unknown_grace, asked.chunk) == (7, 7, "word")
    assert parse_response(HI, {}, DEFAULTS, 0, keyed=True).stream.grace == 10


async def test_background_takes_no_readers_place(log: FilteringBoundLogger) -> None:
    """A response that was opened in the background is answered, however many readers its owner has."""
    async with serving(log, (Delta("a"),), forever) as (house, client):
        house.allowance = Allowance(readers=1)
        with house.hub.reserve(Principal("", house.allowance)):
            opened = await client.post(PATH, json={**HI, "background": True})
        assert opened.status_code == 200


async def test_encrypted_content_is_bounded(log: FilteringBoundLogger) -> None:
    """What a client says is the encrypted content of an answer counts as if it stood in the body."""
    item = {"type": "reasoning", "summary": [], "encrypted_content": seal({"a": [0] * 20_000})}
    async with serving(log) as (house, client):
        refused = await client.post("/v1/responses", json={"input": [item, item]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_request")
        assert house.source.started == 0
