"""Clients whose default is Responses, with a loop of calls and outputs, over an upstream of chat completions."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.real.node import CLIENTS, lines
from tests.real.openai_sdk import Upstream, saying
from tests.real.processes import Server, launch
from tests.servers.environments import environment

pytestmark = pytest.mark.real

THOUGHT = [{"type": "reasoning.text", "text": "hm", "signature": "s"}]
SIGNATURE = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
CALLING = (
    {"delta": {"reasoning": "hm", "reasoning_details": THOUGHT}},
    {"delta": {"content": "Let me see. "}},
    {
        "delta": {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "c",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": ""},
                    **SIGNATURE,
                }
            ]
        }
    },
    {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]}},
    {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '"Rome"}'}}]}},
    {"delta": {}, "finish_reason": "tool_calls"},
)
ANSWER = (
    {"delta": {"content": "It is "}},
    {"delta": {"content": "21 degrees."}},
    {"delta": {}, "finish_reason": "stop"},
)


class Loop:
    """What an upstream says: a call, and an answer once it has the call's output."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(ANSWER if self._upstream.asked[-1]["messages"][-1]["role"] == "tool" else CALLING)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with saying() as upstream:
        upstream.choices = Loop(upstream)  # type: ignore[assignment]  # it is gone through, and nothing else
        yield upstream


@pytest.fixture(scope="module")
def service(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), upstream.url)
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def nothing_asked(upstream: Upstream) -> None:
    upstream.asked.clear()


def run(script: str, **arguments: Any) -> list[dict[str, Any]]:
    """Run a script with Node and return what it prints."""

    async def collected() -> list[dict[str, Any]]:
        return [line async for line in lines(script, **arguments)]

    return asyncio.run(collected())


def check_second_turn(asked: list[Any], output: str, *, whole: bool) -> dict[str, Any]:
    """Check what came back upstream with the second turn, and return the assistant's message.

    *whole* is whether the client returns a call as it came, or without the upstream's own fields.
    """
    _, second = asked
    *_, assistant, tool = second["messages"]
    assert tool == {"role": "tool", "tool_call_id": "c", "content": output}
    [call] = assistant["tool_calls"]
    assert call["function"] == {"name": "get_weather", "arguments": '{"city":"Rome"}'}
    assert call.keys() - {"id", "type", "function"} == (SIGNATURE.keys() if whole else set())
    found: dict[str, Any] = assistant
    return found


@pytest.mark.parametrize("store", [None, True, False])
def test_ai_sdk(service: Server, upstream: Upstream, store: bool | None) -> None:
    """The AI SDK's default model calls a tool and goes on; what is stored it refers to, and the rest it sends back."""
    options = {} if store is None else {"store": store, "include": ["reasoning.encrypted_content"]}
    check_weather(upstream, run("ai-sdk-responses", **weather(service), model="gpt-5", providerOptions=options))


@pytest.mark.parametrize("whole", [False, True])
def test_open_responses(service: Server, upstream: Upstream, whole: bool) -> None:
    """The AI SDK's provider for Open Responses calls a tool and goes on. It has no references, and sends all back."""
    check_weather(
        upstream, run("ai-sdk-responses", **weather(service), provider="open-responses", model="m", whole=whole)
    )


def weather(service: Server) -> dict[str, Any]:
    return {"url": service.url, "prompt": "Rome?", "tools": True}


def check_weather(upstream: Upstream, printed: list[dict[str, Any]]) -> None:
    """Check what the AI SDK said of the weather, and what it sent back."""
    assert printed == [
        {
            "text": "It is 21 degrees.",
            "reasoning": "hm",
            "finish": "stop",
            "tools": [{"toolName": "get_weather", "input": {"city": "Rome"}, "output": "21 degrees in Rome"}],
            "output": printed[0]["output"],
        }
    ]
    assert printed[0]["output"] > 0
    assistant = check_second_turn(upstream.asked, "21 degrees in Rome", whole=False)
    assert assistant["content"] == "Let me see. "
    assert assistant["reasoning"] == "hm"
    assert assistant["reasoning_details"] == THOUGHT


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("provider", ["openai", "open-responses"])
def test_ai_sdk_failure(start_service: Any, simulator: Server, provider: str, whole: bool) -> None:
    """It raises what the upstream said."""
    service = start_service(simulator, retry_attempts=1)
    plan = {"url": service.url, "provider": provider, "whole": whole}
    said = run("ai-sdk-responses", **plan, model="error-400", prompt="x")
    assert (said[0]["error"]["name"], said[0]["error"]["status"]) == ("AI_APICallError", 400)
    echoed = run("ai-sdk-responses", **plan, model="sim-echo?rate=0&first=0", prompt="Hello, 你好!")
    assert (echoed[-1]["text"], echoed[-1]["finish"]) == ("Hello, 你好!", "stop")


def test_tanstack(service: Server, upstream: Upstream) -> None:
    """TanStack AI's adapter for OpenAI calls a tool and goes on."""
    [said] = run("tanstack", url=service.url, prompt="Rome?")
    assert said == {"text": "Let me see. It is 21 degrees.", "called": ["Rome"]}
    assert check_second_turn(upstream.asked, "21 degrees in Rome", whole=False)["content"] == "Let me see. "


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("language", ["python", "node"])
def test_agents(service: Server, upstream: Upstream, language: str, stream: bool) -> None:
    """OpenAI's Agents SDKs run a tool and go on; signatures and reasoning come back upstream."""
    plan = {"url": service.url, "model": "m", "prompt": "Rome?", "stream": stream}
    if language == "node":
        [said] = run("agents", **plan)
    else:
        said = agents_in_python(plan)
    assert said == {"text": "It is 21 degrees.", "called": ["Rome"], "deltas": said["deltas"]}
    assert bool(said["deltas"]) is stream
    assistant = check_second_turn(upstream.asked, "21 degrees in Rome", whole=True)
    assert assistant["content"] == "Let me see. "
    assert assistant["reasoning_details"] == THOUGHT
    assert upstream.asked[0]["messages"][0] == {"role": "system", "content": "Be brief."}


def agents_in_python(plan: dict[str, Any]) -> dict[str, Any]:
    """Run the agent with a Python of its own, because the SDK asks for many packages."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PYTHON"))}
    command = [str(environment("openai-agents") / "python"), str(CLIENTS / "ask_agents.py"), json.dumps(plan)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said
