"""Frameworks of Python as clients: an upstream that they can ask anything, and their scripts in clients/."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.real.node import CLIENTS
from tests.real.openai_sdk import Upstream, saying
from tests.real.processes import ROOT, Server, launch
from tests.servers.environments import environment

TEXT = "It is 21 degrees."
VALUE = {"city": "Rome", "degrees": 21}


def calling(name: str, arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a call, in pieces."""
    said = json.dumps(arguments)
    named = {"index": 0, "id": "c", "type": "function", "function": {"name": name, "arguments": ""}}
    for piece in (named, *({"index": 0, "function": {"arguments": part}} for part in (said[:8], said[8:]))):
        yield {"delta": {"tool_calls": [piece]}}
    yield {"delta": {}, "finish_reason": "tool_calls"}


def saying_so(*pieces: str) -> Iterator[dict[str, Any]]:
    """Yield a text, in pieces."""
    yield from ({"delta": {"content": piece}} for piece in pieces)
    yield {"delta": {}, "finish_reason": "stop"}


class Forecaster:
    """What an upstream says: a call of the tool that it is offered, the value that it is asked for, or a text.

    A tool that does not ask for the weather stands for the structured output that it takes.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def __iter__(self) -> Iterator[dict[str, Any]]:
        asked = self._upstream.asked[-1]
        tools = [tool["function"]["name"] for tool in asked.get("tools", ())]
        if "21 degrees in Rome" in json.dumps(asked["messages"]):
            return calling("final_answer", {"answer": TEXT}) if "final_answer" in tools else saying_so(TEXT)
        if tools:
            weather = next((tool for tool in tools if tool.endswith("get_weather")), None)
            return calling(weather, {"city": "Rome"}) if weather else calling(tools[0], VALUE)
        said = json.dumps(VALUE) if asked.get("response_format") else TEXT
        return saying_so(said[:6], said[6:])


@contextmanager
def forecasting(directory: Path) -> Iterator[Server]:
    """Give a service before such an upstream."""
    with saying() as upstream:
        upstream.choices = Forecaster(upstream)  # type: ignore[assignment]  # it is gone through, and nothing else
        server = launch(directory, upstream.url)
        try:
            yield server
        finally:
            server.stop()


def ask(home: str, script: str, service: Server, failing: Server) -> dict[str, dict[str, Any]]:
    """Run a script of clients/ that asks *service*, and one whose models fail. Return what it said of each action."""
    return run(home, script, url=f"{service.url}/v1", failing=f"{failing.url}/v1", model="m")


def run(home: str, script: str, **plan: str) -> dict[str, dict[str, Any]]:
    """Run a script of clients/ with the Python of an environment. Return what it said of each action."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PYTHON"))}
    env["PYTHONPATH"] = str(ROOT)
    command = [str(environment(home) / "python"), str(CLIENTS / f"ask_{script}.py"), json.dumps(plan)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=env)
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        said = json.loads(line)
        found[said.pop("action")] = said
    return found


def check(found: dict[str, dict[str, Any]], error: str) -> None:
    """Check what a client made of each answer. *error* is the class that it raises for a 429."""
    assert found
    for action, said in found.items():
        kind = action.split()[0]
        if kind == "error":
            assert said["error"]["name"] == error, action
            continue
        assert "error" not in said, (action, said)
        if kind in ("stream", "whole"):
            assert "".join(said["pieces"]).strip() == TEXT, action
            assert said["output"] > 0, action
        elif kind == "tools":
            assert (said["text"], said["called"]) == (TEXT, ["Rome"]), action
        else:
            assert said["value"] == VALUE, action
