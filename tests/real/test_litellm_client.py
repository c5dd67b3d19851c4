"""LiteLLM's SDK as a client of `POST /v1/chat/completions`: nothing is set but its `api_base`.

It runs with a Python of its own (tests/servers/environments.py): it asks for another version of openai than we test.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.processes import Server
from tests.servers.environments import environment
from tests.waiting import wait_until

pytestmark = pytest.mark.real

SCRIPT = Path(__file__).parent / "clients" / "ask_litellm.py"
TEXT = "Hello, 你好, สวัสดี, مرحبا 👩‍👩‍👧‍👦!\nA stream belongs to the server, not to a connection. "
QUICK = "rate=0&first=0"
MESSAGES = [{"role": "user", "content": TEXT}]
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}


class Client:
    """The script, as one process that asks a service again and again."""

    def __init__(self, process: subprocess.Popen[str], impatient: Server) -> None:
        self._process = process
        self._url = impatient.url

    def __call__(
        self, model: str, *, stream: bool = True, leave: int | None = None, **more: Any
    ) -> list[dict[str, Any]]:
        """Have it ask, and return the lines that it prints."""
        request = {"messages": MESSAGES, **more}
        plan = {"url": self._url, "model": model, "stream": stream, "leave": leave, "request": request}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(plan) + "\n")
        self._process.stdin.flush()
        printed = (json.loads(line) for line in self._process.stdout)
        return list(itertools.takewhile(lambda line: "end" not in line, printed))


@pytest.fixture(scope="module")
def process() -> Iterator[subprocess.Popen[str]]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PYTHON"))}
    with subprocess.Popen(
        [environment("litellm") / "python", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=env | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # its own list of prices, not the one in the network
    ) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def client(process: subprocess.Popen[str], impatient: Server) -> Client:
    return Client(process, impatient)


def text(lines: list[dict[str, Any]]) -> str:
    choices = [line["piece"]["choices"] for line in lines if "piece" in line]
    return "".join(choice["delta"]["content"] or "" for found in choices for choice in found)


@pytest.mark.parametrize("rate", ["0", "30"], ids=["quick", "with keep-alives"])
def test_stream(client: Client, rate: str) -> None:
    """The pieces are the text, and what LiteLLM builds of them has the finish reason and the upstream's usage."""
    lines = client(f"sim-echo?rate={rate}&first=0")
    built = lines[-1]
    assert text(lines) == built["message"]["message"]["content"] == TEXT
    assert built["message"]["finish_reason"] == "stop"
    assert built["usage"] == client(f"sim-echo?{QUICK}", stream=False)[0]["usage"]
    assert built["usage"]["completion_tokens"] > 10


def test_unstreamed(client: Client) -> None:
    """Without streaming the answer is the same."""
    (line,) = client(f"sim-echo?{QUICK}", stream=False)
    assert line["message"]["message"]["content"] == TEXT
    assert line["message"]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [True, False])
def test_tools(client: Client, stream: bool) -> None:
    """A call that comes in pieces is one call, whose arguments are JSON."""
    message = client(f"tools?{QUICK}", stream=stream, tools=[TOOL])[-1]["message"]
    (call,) = message["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert isinstance(json.loads(call["function"]["arguments"]), dict)
    assert message["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("model", "error", "status"),
    [
        ("error-400", "BadRequestError", 400),
        ("error-429?retry_after=60", "RateLimitError", 429),
        ("error-500", "BadGatewayError", 502),
    ],
)
def test_errors_before_the_stream(client: Client, model: str, error: str, status: int) -> None:
    """A refusal is the exception that LiteLLM has for its status."""
    (line,) = client(model)
    assert (line["error"], line["status"]) == (error, status), line


@pytest.mark.parametrize("model", ["error-in-stream", "cut-before-finish"])
def test_an_error_in_the_stream(client: Client, model: str) -> None:
    """An answer that breaks off raises, after what came of it; it never looks whole."""
    *pieces, last = client(f"{model}?after=3&rate=50&first=0")
    assert text(pieces)
    assert last["error"] == "MidStreamFallbackError", last


def test_leaving(client: Client, counted: Callable[[], dict[str, int]]) -> None:
    """Who closes its stream hangs up, and the generation ends, though the client's process lives on."""
    assert len(client("never-ends?rate=50&first=0", leave=5)) == 5
    wait_until(lambda: counted()["streams_aborted"] == 1)
    assert counted()["requests"] == 1
