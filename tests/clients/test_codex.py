"""Codex, OpenAI's coding agent, whose only API is Responses. This runs with tests/clients/run, which installs it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.offline import ENVIRONMENT
from tests.clients.packages import package
from tests.real.node import NODE
from tests.real.openai_sdk import Upstream, saying
from tests.real.processes import launch

pytestmark = pytest.mark.real

CODEX = "@openai/codex@0.169.0"
COMMAND = "echo marker-$((40 + 2))"
CALL = {
    "index": 0,
    "id": "c",
    "type": "function",
    "function": {"name": "exec_command", "arguments": json.dumps({"cmd": COMMAND})},
}


class Loop:
    """What an upstream says: a call of the shell, and what the shell said once it has that."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def __iter__(self) -> Iterator[dict[str, Any]]:
        last = self._upstream.asked[-1]["messages"][-1]
        if last["role"] == "tool":
            return iter(({"delta": {"content": f"Said: {last['content']}"}}, {"delta": {}, "finish_reason": "stop"}))
        return iter(({"delta": {"tool_calls": [CALL]}}, {"delta": {}, "finish_reason": "tool_calls"}))


@pytest.fixture(scope="module")
def codex() -> list[str]:
    """The command, installed first if that is still to be done."""
    return [NODE, str(package(CODEX) / "codex")]


def test_a_turn_with_a_tool(codex: list[str], tmp_path: Path) -> None:
    """It calls its shell, sends the output back, and says what the model makes of that."""
    work = tmp_path / "work"
    work.mkdir()
    with saying() as upstream:
        upstream.choices = Loop(upstream)  # type: ignore[assignment]  # it is gone through, and nothing else
        service = launch(tmp_path, upstream.url)
        provider = f'{{name="local",base_url="{service.url}/v1",wire_api="responses",env_key="LOCAL_KEY"}}'
        env = {"HOME": str(tmp_path), "CODEX_HOME": str(tmp_path), "PATH": os.environ["PATH"], "LOCAL_KEY": "csk_test"}
        env |= ENVIRONMENT
        options = ["-c", "model_provider=local", "-c", f"model_providers.local={provider}", "-m", "m"]
        options += ["-c", 'web_search="disabled"', "--disable", "multi_agent"]  # upstreams of chats have no such tools
        unasked = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "-C", str(work)]
        try:
            done = subprocess.run(
                [*codex, "exec", *unasked, *options, "Say it"],
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        finally:
            service.stop()
    assert done.returncode == 0, done.stderr
    assert "marker-42" in done.stdout
    first, second = upstream.asked
    assert {tool["type"] for tool in first["tools"]} <= {"function", "custom"}
    assert [message["role"] for message in second["messages"][-2:]] == ["assistant", "tool"]
