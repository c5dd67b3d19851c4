"""Virtual environments for what cannot live in ours: servers, and clients that want other versions of what we use.

`python -m tests.servers.environments NAME…` makes those of requirements/NAME.txt, in CHAT_SSE_TEST_CACHE or
~/.cache/chat-sse, each once for its list and this version of Python.
"""

from __future__ import annotations

import fcntl
import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
import time
from importlib.metadata import distributions
from pathlib import Path

LISTS = Path(__file__).parent / "requirements"
# What a package asks for and its tests do not need, as patterns. Beside a torch of another build, vLLM's break its
# start; Open WebUI's, five gigabytes, are there for documents.
SURPLUS = {"vllm": ["torchaudio", "torchcodec", "torchvision"], "open-webui": ["nvidia-*", "torch", "triton"]}


def environment(name: str) -> Path:
    """Return the directory of the commands of requirements/*name*.txt, installed first if that is still to be done."""
    wanted = LISTS / f"{name}.txt"
    version = ".".join(map(str, sys.version_info[:2]))
    digest = hashlib.sha256(wanted.read_bytes() + version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("CHAT_SSE_TEST_CACHE") or Path.home() / ".cache" / "chat-sse")
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / f"{name}-{digest}"
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another session may be at it
        if not (home / "installed").exists():
            shutil.rmtree(home, ignore_errors=True)
            # Its own pip brought up to date: that of Python 3.11 does not find a way through LiteLLM's requirements.
            _run(sys.executable, "-m", "venv", "--upgrade-deps", str(home))
            pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
            # Most of what is installed is never imported: compiling all of it would take as long as the rest.
            _run(*pip, "install", "--quiet", "--no-input", "--no-compile", "-r", str(wanted))
            installed = [each.name for each in distributions(path=[str(next(home.glob("lib/*/site-packages")))])]
            surplus = [each for pattern in SURPLUS.get(name, ()) for each in fnmatch.filter(installed, pattern)]
            if surplus:
                _run(*pip, "uninstall", "--quiet", "--yes", *surplus)
            (home / "installed").touch()
    return home / "bin"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr[-8000:]}"


if __name__ == "__main__":
    for each in sys.argv[1:]:
        began = time.monotonic()
        print(f"{each}: {environment(each)} ({time.monotonic() - began:.0f} s)", flush=True)
