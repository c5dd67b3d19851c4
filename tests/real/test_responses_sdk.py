"""OpenAI's SDKs and Responses: streamed, whole, in the background, resumed and stopped, over both kinds of upstream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.real.openai_sdk import Upstream, saying
from tests.real.processes import Server, launch, stats
from tests.real.responses_sdk import CLIENTS, Client, python
from tests.waiting import wait_until
from tests.wire import strict

pytestmark = pytest.mark.real

TEXT = "Hello, 你好, 👩‍👩‍👧‍👦!\nOne line, \u2028 and another. " * 3
ECHO = "sim-echo?rate=0&first=0"
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
FORMAT = {
    "type": "json_schema",
    "name": "forecast",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {"degrees": {"type": "integer"}},
        "required": ["degrees"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module", params=["openai-chat", "openai-responses"])
def service(
    request: pytest.FixtureRequest, simulator: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A service over either kind of upstream."""
    settings = {"upstream": request.param, "commit_after": 0.2, "retry_attempts": 1}
    server = launch(tmp_path_factory.mktemp("service"), simulator, **settings)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """An upstream for what the simulator does not say."""
    with saying() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def told(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that asks it."""
    server = launch(tmp_path_factory.mktemp("told"), upstream.url)
    yield server
    server.stop()


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    return CLIENTS[request.param]


def body(model: str = ECHO, **more: Any) -> dict[str, Any]:
    return {"model": model, "input": TEXT, **more}


def test_streaming(service: Server, client: Client) -> None:
    """Each event is one to the letter, in the order of their numbers, and the helper puts the same together."""
    seen = client(service.url, "create", body(stream=True))
    assert seen.error is None
    assert seen.text == TEXT
    assert seen.numbers == sorted(set(seen.numbers))
    assert [event["type"] for event in (seen.events[0], seen.events[-1])] == ["response.created", "response.completed"]
    for event in seen.events:
        event.get("response", {}).pop("usage", None)
        strict.response_event(event)
    helped = client(service.url, "stream", body())
    assert helped.error is None
    assert helped.response["output"][0]["content"][0]["text"] == TEXT


def test_whole(service: Server, client: Client) -> None:
    """The response is the same when it is asked for later."""
    seen = client(service.url, "create", body(instructions="Say it again.", metadata={"a": "b"}))
    assert seen.error is None
    assert (seen.response["status"], seen.response["metadata"]) == ("completed", {"a": "b"})
    assert seen.response["output"][-1]["content"][0]["text"] == TEXT
    assert client(service.url, "retrieve", id=seen.response["id"]).response == seen.response


def test_reasoning(service: Server, client: Client) -> None:
    """Reasoning is an item of its own, before the message."""
    seen = client(service.url, "stream", body("reasoning?rate=0&first=0"))
    assert [item["type"] for item in seen.response["output"]] == ["reasoning", "message"]
    [summary] = seen.response["output"][0]["summary"]
    deltas = [event["delta"] for event in seen.events if event["type"] == "response.reasoning_summary_text.delta"]
    assert "".join(deltas) == summary["text"]


def test_tools(service: Server, client: Client) -> None:
    """Calls come in pieces and as a whole, and their outputs go back."""
    seen = client(service.url, "stream", body("tools?rate=0&first=0", tools=[WEATHER]))
    [call] = [item for item in seen.response["output"] if item["type"] == "function_call"]
    assert (call["name"], call["status"]) == ("get_weather", "completed")
    assert isinstance(json.loads(call["arguments"]), dict)
    items = [
        {"role": "user", "content": "hi"},
        {"type": "item_reference", "id": call["id"]},
        {"type": "function_call_output", "call_id": call["call_id"], "output": "21"},
        {"role": "user", "content": "and?"},
    ]
    again = client(service.url, "create", {"model": ECHO, "input": items})
    assert again.error is None
    assert again.response["output"][0]["content"][0]["text"] == "and?"


def test_background(service: Server, client: Client) -> None:
    """It is answered at once, and can be asked for until it is done."""
    started = client(service.url, "create", body("sim-echo?rate=100&first=0.2", background=True))
    assert started.response["status"] in ("queued", "in_progress")
    done: list[Any] = []

    def completed() -> bool:
        done[:] = [client(service.url, "retrieve", id=started.response["id"]).response]
        return bool(done[0]["status"] == "completed")

    wait_until(completed)
    assert done[0]["output"][0]["content"][0]["text"] == TEXT


def test_resuming(service: Server, client: Client) -> None:
    """After any event comes exactly the rest, by the call and by the helper, and nothing is generated again."""
    whole = client(service.url, "create", body(stream=True), id="")
    response_id = whole.events[0]["response"]["id"]
    kept = client(service.url, "resume", id=response_id)
    numbers = [0, *kept.numbers]
    some = (0, numbers[len(numbers) // 2], numbers[-2], numbers[-1])  # Node is started for each of them
    for after in numbers if client is python else some:
        rest = client(service.url, "resume", id=response_id, after=after)
        assert rest.error is None
        assert rest.numbers == [number for number in numbers if number > after]
        helped = client(service.url, "resume_helper", id=response_id, after=after)
        assert helped.response["output"][0]["content"][0]["text"] == TEXT
        assert helped.numbers == rest.numbers


def test_cancelling(service: Server, simulator: Server, client: Client) -> None:
    """It ends the answer upstream, and returns the whole response; a deleted one is gone."""
    started = client(service.url, "create", body("never-ends?rate=50&first=0", background=True))
    response_id = started.response["id"]
    cancelled = client(service.url, "cancel", id=response_id)
    assert (cancelled.response["status"], cancelled.response["id"]) == ("cancelled", response_id)
    wait_until(lambda: stats(simulator)["live"] == 0)
    assert client(service.url, "delete", id=response_id).deleted
    gone = client(service.url, "retrieve", id=response_id)
    assert gone.error is not None
    assert (gone.error["name"], gone.error["status"]) == ("NotFoundError", 404)


@pytest.mark.parametrize(
    ("model", "more", "name", "status"),
    [
        ("error-429", {}, "RateLimitError", 429),
        ("error-400", {}, "BadRequestError", 400),
        (ECHO, {"previous_response_id": "resp_1"}, "BadRequestError", 400),
        (ECHO, {"input": [{"type": "item_reference", "id": "msg_1"}]}, "NotFoundError", 404),
    ],
)
def test_errors(service: Server, client: Client, model: str, more: dict[str, Any], name: str, status: int) -> None:
    """The SDKs raise what they raise against OpenAI."""
    seen = client(service.url, "create", body(model) | more)
    assert seen.error is not None
    assert (seen.error["name"], seen.error["status"]) == (name, status)


def test_parsing(told: Server, upstream: Upstream, client: Client) -> None:
    """A format goes upstream, and the answer in it is parsed."""
    text = json.dumps({"degrees": 21})
    upstream.says(*({"delta": {"content": piece}} for piece in text), {"delta": {}, "finish_reason": "stop"})
    seen = client(told.url, "parse", body("m", text={"format": FORMAT}))
    assert seen.error is None
    assert seen.response["output"][0]["content"][0]["text"] == text
    [asked] = upstream.asked
    assert asked["response_format"] == {
        "type": "json_schema",
        "json_schema": {name: value for name, value in FORMAT.items() if name != "type"},
    }


def test_what_an_upstream_wants_back(told: Server, upstream: Upstream, client: Client) -> None:
    """The items of an answer, returned as they came, bring back signatures and reasoning."""
    signature = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}, **signature}
    upstream.says(
        {
            "delta": {
                "reasoning": "hm",
                "reasoning_details": [{"type": "reasoning.text", "text": "hm", "signature": "s"}],
            }
        },
        {"delta": {"tool_calls": [call]}},
        {"delta": {}, "finish_reason": "tool_calls"},
    )
    first = client(told.url, "create", body("m", tools=[WEATHER], include=["reasoning.encrypted_content"]))
    output = {"type": "function_call_output", "call_id": "c", "output": "1"}
    items = [{"role": "user", "content": TEXT}, *first.response["output"], output]
    upstream.says({"delta": {"content": "ok"}}, {"delta": {}, "finish_reason": "stop"})
    again = client(told.url, "create", {"model": "m", "input": items})
    assert again.response["output"][0]["content"][0]["text"] == "ok"
    _, assistant, tool = upstream.asked[-1]["messages"]
    assert assistant["reasoning"] == "hm"
    assert assistant["reasoning_details"][0]["signature"] == "s"
    assert assistant["tool_calls"][0]["extra_content"] == signature["extra_content"]
    assert tool == {"role": "tool", "tool_call_id": "c", "content": "1"}
