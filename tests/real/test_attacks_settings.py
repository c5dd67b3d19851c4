"""Secrets in settings that are wrong: the real commands end with one sentence, which has nothing of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

CANARY = "hunter2-canary"


@pytest.mark.parametrize("command", ["serve", "check"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CHAT_SSE_JOURNAL", f"redis://:{CANARY}/x@127.0.0.1:6379/0"),
        ("CHAT_SSE_JOURNAL", f"redis+cluster://:{CANARY}#x@127.0.0.1:6379"),
        ("OPENAI_BASE_URL", f"https://user:{CANARY}@example.com/v1"),
        ("ALL_PROXY", f"socks5://user:{CANARY}@127.0.0.1:1080"),
    ],
)
def test_one_sentence(command: str, name: str, value: str, tmp_path: Path) -> None:
    """Neither `serve` nor `check` ends with a traceback."""
    kept = {key: text for key, text in os.environ.items() if not key.lower().endswith("_proxy")}
    environment = {**kept, "PYTHONPATH": str(Path(__file__).parent.parent.parent), "OPENAI_API_KEY": "k", name: value}
    ended = subprocess.run(
        [sys.executable, "-m", "app", command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode in (1, 2)
    assert said.startswith("chat-sse: ")
    assert said.count("\n") == 1
    assert name in said
    assert CANARY not in said
