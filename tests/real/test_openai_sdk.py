"""OpenAI's official SDKs, Python's two and Node's, against the service: they need another URL, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.real.clients.sse import parse, text
from tests.real.conftest import Start
from tests.real.openai_sdk import CLIENTS, Client, Upstream, saying
from tests.real.processes import Server, launch, stats
from tests.real.proxy import Cut, Proxy
from tests.waiting import wait_until
from tests.wire import strict

pytestmark = pytest.mark.real

TEXT = "Hello, 你好, 👩‍👩‍👧‍👦!\nOne line, \u2028 and another. " * 3
ECHO = "sim-echo?rate=0&first=0"
MESSAGES = [{"role": "user", "content": TEXT}]
TOKEN = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -1.5, "bytes": None}]}
STOP = {"delta": {}, "finish_reason": "stop"}
FORECAST = {"city": "東京", "degrees": 21}
FORMAT = {
    "type": "json_schema",
    "json_schema": {
        "name": "forecast",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
            "required": ["city", "degrees"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def service(simulator: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that says `:` after a twentieth of a second, starts its answers soon, and tries nothing again."""
    server = launch(tmp_path_factory.mktemp("service"), simulator, keep_alive=0.05, commit_after=0.2, retry_attempts=1)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """An upstream for what the simulator does not say."""
    with saying() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def told(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that asks it, starts its answers soon, and says `:` after a twentieth of a second."""
    server = launch(tmp_path_factory.mktemp("told"), upstream.url, keep_alive=0.05, commit_after=0.2)
    yield server
    server.stop()


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    return CLIENTS[request.param]


def body(model: str = ECHO, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": MESSAGES, **more}


def pieces(content: str, size: int = 3) -> list[dict[str, Any]]:
    """Return the choices of chunks that say *content*."""
    return [{"delta": {"content": content[at : at + size]}} for at in range(0, len(content), size)]


# --- answers ---


def test_streaming(service: Server, client: Client) -> None:
    """A stream's text is what was said, every chunk is OpenAI's own, and no usage is in it unasked."""
    seen = client(service.url, "create", body(stream=True))
    assert (seen.error, seen.text, seen.finish_reasons) == (None, TEXT, ["stop"])
    for chunk in seen.chunks:
        strict.chunk(chunk)
    assert not any("usage" in chunk for chunk in seen.chunks)


def test_the_same_stream_natively(service: Server, client: Client) -> None:
    """What an SDK reads can be read again in the native dialect, under the id that its answer told."""
    seen = client(service.url, "create", body(stream=True))
    native = httpx.get(f"{service.url}/v1/streams/{seen.stream_id}")
    assert text(parse(native.content)) == seen.text == TEXT


def test_whole(service: Server, client: Client) -> None:
    """Without a stream, the answer is one completion, OpenAI's to the letter, with its usage."""
    seen = client(service.url, "create", body())
    told = strict.completion(seen.completion)
    assert (told.choices[0].message.content, told.choices[0].finish_reason) == (TEXT, "stop")
    assert told.usage is not None
    assert told.usage.total_tokens == told.usage.prompt_tokens + told.usage.completion_tokens > 2


def test_usage(service: Server, client: Client) -> None:
    """Where it was asked for, usage is in the one last chunk, which has no choices."""
    seen = client(service.url, "create", body(stream=True, stream_options={"include_usage": True}))
    assert [chunk["usage"] is None for chunk in seen.chunks] == [True] * (len(seen.chunks) - 1) + [False]
    assert (seen.chunks[-1]["choices"], seen.text) == ([], TEXT)


def test_an_estimate(service: Server, client: Client) -> None:
    """Usage that the upstream did not send was counted by the service, and says so."""
    asked = body("no-usage?rate=0&first=0&tokens=5", stream=True, stream_options={"include_usage": True})
    assert client(service.url, "create", asked).chunks[-1]["usage"]["estimated"] is True


@pytest.mark.parametrize("stream", [True, False])
def test_tool_calls(service: Server, client: Client, stream: bool) -> None:
    """Two calls come with their ids and names once, and their arguments put together are what the upstream sent."""
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("f", "g")]
    asked = body("tools?rate=0&first=0", tools=tools, messages=[{"role": "user", "content": "wet?"}])
    seen = client(service.url, "stream" if stream else "create", asked)
    choice = (seen.final if stream else seen.completion)["choices"][0]
    calls = choice["message"]["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["f", "g"]
    assert len({call["id"] for call in calls}) == 2
    for call in calls:
        assert json.loads(call["function"]["arguments"])["query"] == "wet?"
    assert choice["finish_reason"] == "tool_calls"
    if stream:
        assert sum("tool_calls" in delta for delta in seen.deltas) > 6


def test_tool_calls_side_by_side(told: Server, upstream: Upstream, client: Client) -> None:
    """Pieces of several calls that come by turns are put together by their index, whatever the text is cut into."""

    def piece(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        return {"delta": {"tool_calls": [{"index": index, "function": {"arguments": arguments, **more}}]}}

    begun = [piece(index, "", name=name) for index, name in enumerate("fg")]
    for index, choice in enumerate(begun):
        choice["delta"]["tool_calls"][0] |= {"id": f"call_{index}", "type": "function"}
    turns = [piece(index, part) for part in ('{"a":', ' "one two', ' three."}') for index in (0, 1)]
    upstream.says(*begun, *turns, {"delta": {}, "finish_reason": "tool_calls"})
    seen = client(told.url, "stream", body("m"), headers={"X-Chunk": "word"})
    calls = seen.final["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], call["function"]["name"]) for call in calls] == [("call_0", "f"), ("call_1", "g")]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"a": "one two three."}] * 2


def test_refusal(service: Server, client: Client) -> None:
    """A refusal is in its own field, streamed and whole."""
    streamed = client(service.url, "stream", body("refusal?rate=0&first=0")).final["choices"][0]["message"]
    whole = client(service.url, "create", body("refusal?rate=0&first=0")).completion["choices"][0]["message"]
    assert streamed["refusal"] == whole["refusal"]
    assert whole["refusal"]
    assert not streamed["content"]
    assert whole["content"] is None


def test_reasoning(service: Server, client: Client) -> None:
    """Reasoning is in `reasoning_content`, as it is with those who have that, and not in the text."""
    seen = client(service.url, "create", body("reasoning?rate=0&first=0", stream=True))
    whole = client(service.url, "create", body("reasoning?rate=0&first=0")).completion["choices"][0]["message"]
    reasoning = "".join(delta.get("reasoning_content") or "" for delta in seen.deltas)
    assert reasoning == whole["reasoning_content"] != ""
    assert seen.text == whole["content"] != ""


@pytest.mark.parametrize("chunk", ["none", "auto", "word"])
def test_logprobs(told: Server, upstream: Upstream, client: Client, chunk: str) -> None:
    """Every token's log probabilities come through, once and in order, however the text is cut."""
    tokens = [TOKEN | {"token": word} for word in ("one ", "two ", "thr", "ee")]
    said = [
        {"delta": {"content": token["token"]}, "logprobs": {"content": [token], "refusal": None}} for token in tokens
    ]
    upstream.says(*said, STOP)
    asked = body("m", logprobs=True, top_logprobs=1)
    seen = client(told.url, "stream", asked, headers={"X-Chunk": chunk})
    whole = client(told.url, "create", asked)
    for choice in (seen.final["choices"][0], whole.completion["choices"][0]):
        assert choice["logprobs"]["content"] == tokens
        assert choice["message"]["content"] == "one two three"
    for part in seen.chunks:
        strict.chunk(part)


def test_json_mode(told: Server, upstream: Upstream, client: Client) -> None:
    """A response format goes upstream, and the helpers that parse what comes back do so, streamed and whole."""
    upstream.says(*pieces(json.dumps(FORECAST)), STOP)
    asked = body("m", response_format=FORMAT)
    streamed = client(told.url, "stream", asked)
    whole = client(told.url, "parse", asked)
    assert [sent["response_format"] for sent in upstream.asked] == [FORMAT] * 2
    for choice in (streamed.final["choices"][0], whole.completion["choices"][0]):
        assert json.loads(choice["message"]["content"]) == FORECAST


def test_a_model_that_does_it_all(service: Server, client: Client) -> None:
    """The simulator's log probabilities are those of its answer, and its JSON is of the format that was asked for."""
    likely = client(service.url, "stream", body(logprobs=True, top_logprobs=2)).final["choices"][0]
    assert "".join(token["token"] for token in likely["logprobs"]["content"]) == likely["message"]["content"] == TEXT
    asked = body("sim-gpt?rate=0&first=0", response_format=FORMAT)
    for choice in (
        client(service.url, "stream", asked).final["choices"][0],
        client(service.url, "parse", asked).completion["choices"][0],
    ):
        assert set(json.loads(choice["message"]["content"])) == set(FORECAST)


class Forecast(BaseModel):
    city: str
    degrees: int


def test_pydantic(told: Server, upstream: Upstream) -> None:
    """Python's SDK makes the model of it that it was given."""
    upstream.says(*pieces(json.dumps(FORECAST)), STOP)
    with openai.OpenAI(base_url=f"{told.url}/v1", api_key="csk_test") as sdk:
        messages: Any = MESSAGES
        parsed = sdk.chat.completions.parse(model="m", messages=messages, response_format=Forecast)
        assert parsed.choices[0].message.parsed == Forecast.model_validate(FORECAST)
        with sdk.chat.completions.stream(model="m", messages=messages, response_format=Forecast) as stream:
            final = stream.get_final_completion()
    assert final.choices[0].message.parsed == parsed.choices[0].message.parsed


def test_unknown_parameters(told: Server, upstream: Upstream, client: Client) -> None:
    """What OpenAI adds tomorrow, and what others have, arrives upstream; usage is always asked for there."""
    more = {"top_k": 40, "chat_template_kwargs": {"enable_thinking": False}}
    upstream.says(*pieces("hi"), STOP)
    asked = body("m") | ({"extra_body": more} if client is not CLIENTS["node"] else more)
    assert client(told.url, "create", asked).completion["choices"][0]["message"]["content"] == "hi"
    assert upstream.asked == [
        body("m", **more, stream=True, stream_options={"include_usage": True}),
    ]


def test_keep_alives(told: Server, upstream: Upstream, client: Client) -> None:
    """An answer that is long in coming is kept alive by comments, which no SDK takes for a chunk."""
    with Proxy(told.url) as proxy:
        upstream.says(*pieces("hi"), STOP, once=lambda: proxy.received.count(b"\n:\n") >= 3)
        seen = client(proxy.url, "create", body("m", stream=True))
    assert (seen.error, seen.text, seen.finish_reasons) == (None, "hi", ["stop"])


# --- errors ---


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("model", "status", "name", "code"),
    [
        ("error-400?first=0", 400, "BadRequestError", "invalid_value"),
        ("error-401?first=0", 502, "InternalServerError", "upstream_auth"),
        ("error-429?first=0", 429, "RateLimitError", "rate_limit_exceeded"),
        ("error-500?first=0", 502, "InternalServerError", "upstream_error"),
        ("error-first?first=0", 502, "InternalServerError", "upstream_error"),
    ],
)
def test_early_errors(
    service: Server, client: Client, stream: bool, model: str, status: int, name: str, code: str
) -> None:
    """What fails before the answer has begun is raised as the type that SDKs have for its status, with its code."""
    error = client(service.url, "create", body(model, stream=stream)).error
    assert error is not None
    assert (error["status"], error["name"], error["code"]) == (status, name, code)


@pytest.mark.parametrize("model", ["error-in-stream", "cut-before-finish", "cut-clean-before-finish"])
def test_late_errors(service: Server, client: Client, model: str) -> None:
    """What breaks mid-stream is raised, after all that had come; asked for as a whole, it is a status."""
    seen = client(service.url, "create", body(f"{model}?rate=0&first=0&after=3", stream=True))
    assert seen.error is not None
    assert (seen.error["name"], seen.error["type"]) == ("APIError", "upstream_error")
    assert len(seen.text) > 0
    assert seen.finish_reasons == []
    whole = client(service.url, "create", body(f"{model}?rate=0&first=0&after=3")).error
    assert whole is not None
    assert (whole["name"], whole["code"]) == ("InternalServerError", seen.error["code"])


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_cut(service: Server, client: Client, blocks: int) -> None:
    """A connection that breaks is an error to every SDK, and not the end of an answer."""
    with Proxy(service.url, [Cut(blocks=blocks)]) as proxy:
        seen = client(proxy.url, "create", body("sim-echo?rate=50&first=0", stream=True))
    assert seen.error is not None
    assert len(seen.chunks) == blocks
    assert seen.finish_reasons == []


def test_refusals_of_our_own(start_service: Start, simulator: Server, client: Client) -> None:
    """Credentials, models and fields that are not taken are the SDKs' own errors."""
    keys = f"owner:{hashlib.sha256(b'csk_test').hexdigest()}"
    service = start_service(simulator, api_keys=keys, models=ECHO)
    for asked, key, name in (
        (body(), "csk_wrong", "AuthenticationError"),
        (body("other"), "csk_test", "PermissionDeniedError"),
        (body(n=2), "csk_test", "BadRequestError"),
        (body(functions=[{"name": "f"}]), "csk_test", "BadRequestError"),
    ):
        error = client(service.url, "create", asked, api_key=key).error
        assert error is not None
        assert error["name"] == name
    assert client(service.url, "create", body()).error is None


def test_what_is_tried_again(service: Server, simulator: Server, client: Client) -> None:
    """SDKs try again what may succeed, and do not ask thrice where it cannot."""
    httpx.post(simulator.url.removesuffix("/v1") + "/stats/reset").raise_for_status()
    error = client(service.url, "create", body("error-401?first=0"), max_retries=2).error
    assert error is not None
    assert (error["code"], stats(simulator)["requests"]) == ("upstream_auth", 1)
    flaky = f"flaky-500?first=0&rate=0&tokens=3&key={id(client)}"
    assert client(service.url, "create", body(flaky, stream=True), max_retries=2).finish_reasons == ["stop"]
    assert stats(simulator)["requests"] == 3


def test_leaving(service: Server, simulator: Server, client: Client) -> None:
    """An SDK that stops reading stops the upstream, where a header says that there is no other reader."""
    aborted = stats(simulator)["streams_aborted"]
    asked = body("never-ends?rate=50&first=0", stream=True)
    seen = client(service.url, "create", asked, abort=3, headers={"X-On-Disconnect": "cancel"})
    assert len(seen.chunks) == 3
    wait_until(lambda: stats(simulator)["streams_aborted"] == aborted + 1)


def test_models(service: Server, client: Client) -> None:
    """The models are the default one and what the upstream lists, each of which can be looked up."""
    seen = client(service.url, "models", {"model": "tools"})
    names = [strict.model(model).id for model in seen.models]
    assert {"sim-echo", "tools"} < set(names)
    assert len(names) == len(set(names))
    assert seen.model["id"] == "tools"
    missing = client(service.url, "models", {"model": "org/none"})
    assert missing.error is not None
    assert (missing.error["name"], missing.error["code"]) == ("NotFoundError", "model_not_found")
