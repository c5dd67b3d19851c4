"""LiteLLM's proxy as the upstream, with the simulator behind it: what it passes on, and what it makes of faults.

Other servers, whose installation is heavier, are in tests/servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.real.clients.sse import Event, check, parse, text
from tests.real.processes import Server, launch
from tests.servers.launching import launch_litellm
from tests.waiting import wait_until

pytestmark = pytest.mark.real

TEXT = "Hello, 你好, สวัสดี, مرحبا 👩‍👩‍👧‍👦!\nA stream belongs to the server, not to a connection. "
QUICK = "rate=0&first=0"
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def proxy(simulator: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = launch_litellm(tmp_path_factory.mktemp("litellm"), simulator)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def through(proxy: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Our service with the proxy as the upstream."""
    server = launch(tmp_path_factory.mktemp("through"), proxy, retry_attempts=1, commit_after=5)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def direct(simulator: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Our service with the simulator itself as the upstream."""
    server = launch(tmp_path_factory.mktemp("direct"), simulator, retry_attempts=1, commit_after=5)
    yield server
    server.stop()


def ask(service: Server, model: str, prompt: str = TEXT, **body: Any) -> list[Event]:
    answer = httpx.post(f"{service.url}/v1/chat", json={"prompt": prompt, "model": model, **body}, timeout=60)
    assert answer.status_code == 200, answer.text
    events = parse(answer.content)
    check(events, dense=False)
    return events


def pieces(events: list[Event], name: str) -> list[dict[str, Any]]:
    return [event.json() for event in events if event.event == name]


@pytest.mark.parametrize("model", ["sim-echo", "sim-gpt", "no-done", "no-usage", "crlf", "split-utf8"])
def test_text_and_usage(proxy: Server, through: Server, direct: Server, model: str) -> None:
    """The text is what the proxy answers unstreamed, and all is as it is without the proxy between."""
    model = f"{model}?{QUICK}"
    asked = {"model": model, "messages": [{"role": "user", "content": TEXT}]}
    answered = httpx.post(f"{proxy.url}/chat/completions", json=asked, timeout=60).json()
    events = ask(through, model)
    assert text(events) == answered["choices"][0]["message"]["content"]
    assert text(events) == text(ask(direct, model))
    end = events[-1].json()
    assert end["finish_reason"] == "stop"
    # What the upstream does not count, the proxy counts itself, and does not say so.
    assert "estimated" not in end["usage"]
    if not model.startswith("no-usage"):
        assert end["usage"]["total_tokens"] == answered["usage"]["total_tokens"]


def test_tool_calls(through: Server, direct: Server) -> None:
    """A call's id, name and arguments come through, and so does its finish reason."""
    answers = [ask(service, f"tools?{QUICK}", tools=[TOOL]) for service in (through, direct)]
    joined = ["".join(piece.get("arguments", "") for piece in pieces(events, "tool_call")) for events in answers]
    assert joined[0] == joined[1] != ""
    assert [pieces(events, "tool_call")[0]["name"] for events in answers] == ["get_weather"] * 2
    assert pieces(answers[0], "tool_call")[0]["id"].startswith("call_")
    assert [events[-1].json()["finish_reason"] for events in answers] == ["tool_calls"] * 2


def test_reasoning(through: Server, direct: Server) -> None:
    """Reasoning stays apart from the answer."""
    answers = [ask(service, f"reasoning?{QUICK}") for service in (through, direct)]
    assert text(answers[0]) == text(answers[1])
    thoughts = ["".join(piece["content"] for piece in pieces(events, "reasoning")) for events in answers]
    assert thoughts[0] == thoughts[1] != ""


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_finish_reasons(through: Server, reason: str) -> None:
    """The proxy tells why the answer ends."""
    model = f"content-filter?after=2&{QUICK}" if reason == "content_filter" else f"sim-gpt?{QUICK}"
    assert ask(through, model, max_tokens=4)[-1].json()["finish_reason"] == reason


@pytest.mark.parametrize("model", ["error-in-stream", "cut-before-finish", "cut-reset", "garbage"])
def test_a_fault_behind_the_proxy_is_an_error(through: Server, model: str) -> None:
    """The proxy makes an error event of what breaks behind it: the text so far is kept, and it never counts as done."""
    events = ask(through, f"{model}?after=3&rate=20&first=0", chunk="none")
    assert len(pieces(events, "delta")) == 3
    assert events[-1].event == "error"
    assert events[-1].json()["error"]["code"] == "upstream_error"


def test_a_fault_that_the_proxy_hides(through: Server, direct: Server) -> None:
    """A body that ends properly, too early, is `stop` for the proxy: that is all that we are told. Alone, we see it."""
    model = f"cut-clean-before-finish?after=3&{QUICK}"
    assert ask(through, model)[-1].json()["finish_reason"] == "stop"
    assert ask(direct, model)[-1].event == "error"


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("nope", 404, "model_not_found"),
        ("error-400", 400, "upstream_rejected"),
        ("error-401", 502, "upstream_auth"),
        ("error-429", 429, "upstream_rate_limited"),
        ("error-500", 502, "upstream_error"),
    ],
)
def test_refusals(through: Server, direct: Server, model: str, status: int, code: str) -> None:
    """What the upstream refuses is told with the status and code that it has without the proxy between."""
    for service in (through, direct):
        answer = httpx.post(f"{service.url}/v1/chat", json={"prompt": TEXT, "model": model}, timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


@pytest.fixture(scope="module")
def responses(proxy: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Our service with the proxy's Responses as the upstream."""
    server = launch(tmp_path_factory.mktemp("responses"), proxy, upstream="openai-responses", retry_attempts=1)
    yield server
    server.stop()


def test_responses(responses: Server, direct: Server) -> None:
    """The proxy's Responses bring the same text and calls as the simulator's chat completions."""
    # Of a model that is not in its list of prices, the proxy asks for the whole answer, and plays that as a stream.
    for model, limit, reason in ((f"sim-echo?{QUICK}", 10_000, "stop"), ("gpt-4o-mini", 20, "length")):
        answers = [ask(service, model, max_tokens=limit) for service in (responses, direct)]
        assert text(answers[0]) == text(answers[1]) != ""
        ends = [events[-1].json() for events in answers]
        assert [end["finish_reason"] for end in ends] == [reason] * 2
        assert ends[0]["usage"]["total_tokens"] == ends[1]["usage"]["total_tokens"]
    called = [ask(service, f"tools?{QUICK}", tools=[TOOL]) for service in (responses, direct)]
    joined = ["".join(piece.get("arguments", "") for piece in pieces(found, "tool_call")) for found in called]
    assert joined[0] == joined[1] != ""
    assert called[0][-1].json()["finish_reason"] == "tool_calls"


def test_cancel(through: Server, counted: Callable[[], dict[str, int]]) -> None:
    """The stop button goes through the proxy and ends the generation behind it."""
    body = {"prompt": "x", "model": "never-ends?rate=50&first=0"}
    with httpx.stream("POST", f"{through.url}/v1/chat", json=body, timeout=60) as answer:
        received = b""
        for data in answer.iter_raw():
            received += data
            if received.count(b"event: delta") == 3:
                assert counted()["live"] == 1
                httpx.delete(f"{through.url}{answer.headers['content-location']}").raise_for_status()
    events = parse(received)
    assert events[-1].json()["finish_reason"] == "cancelled"
    wait_until(lambda: counted()["streams_aborted"] == 1)
    assert counted()["live"] == 0
