"""aider, the coding agent: it edits a file as the model says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.clients.offline import ENVIRONMENT
from tests.real.openai_sdk import saying
from tests.real.processes import launch
from tests.servers.environments import environment

pytestmark = pytest.mark.real

EDIT = "hello.txt\n```\nHello, 你好\n```\n"


def test_an_edit(tmp_path: Path) -> None:
    """The model's answer streams, and is what is in the file then."""
    work = tmp_path / "work"
    work.mkdir()
    with saying() as upstream:
        upstream.says(
            {"delta": {"content": EDIT[:12]}}, {"delta": {"content": EDIT[12:]}}, {"delta": {}, "finish_reason": "stop"}
        )
        service = launch(tmp_path, upstream.url)
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONUTF8": "1"}
        env |= {"OPENAI_API_BASE": f"{service.url}/v1", "OPENAI_API_KEY": "csk_test", **ENVIRONMENT}
        alone = ["--no-git", "--yes-always", "--no-check-update", "--analytics-disable", "--map-tokens", "0"]
        options = ["--model", "openai/m", "--edit-format", "whole", "--no-pretty", "--no-show-model-warnings", *alone]
        try:
            done = subprocess.run(
                [str(environment("aider") / "aider"), *options, "--message", "Write hello.txt"],
                cwd=work,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        finally:
            service.stop()
    assert done.returncode == 0, done.stderr
    assert (work / "hello.txt").read_text() == "Hello, 你好\n"
    [asked] = upstream.asked
    assert asked["stream"] is True
