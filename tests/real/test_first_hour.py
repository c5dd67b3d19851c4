"""The first hour of a newcomer, where it goes wrong: a sentence says what is missing or taken, and what helps."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.ports import free_port
from tests.real.conftest import Start
from tests.real.processes import ROOT

pytestmark = pytest.mark.real

# What `deploy/run` needs before it has a Python: no apt-get, no sudo, and no python3.
TOOLS = ("sh", "dirname", "git", "id", "env")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone."""
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", tmp_path / "chat-sse"], check=True)
    return tmp_path / "chat-sse"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A directory for PATH that has the tools of every system, and nothing else."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None, tool
        (directory / tool).symlink_to(found)
    return directory


def run(command: list[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run *command* to its end; return its exit status and what it printed."""
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )
    return done.returncode, done.stdout + done.stderr


def chat_sse(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run the command line as a user does who has no other settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CHAT_SSE_", "OPENAI_"))}
    return run([sys.executable, "-m", "app", *arguments], folder, {**clean, "PYTHONPATH": str(ROOT), **environment})


def python_of(version: str, directory: Path) -> None:
    """Put a `python3` into *directory* that is of another *version*, as far as a script can see."""
    numbers = tuple(int(number) for number in version.split("."))
    code = f"import sys; sys.version_info = {numbers}; exec(sys.argv[1])"
    script = directory / "python3"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo "Python {version}" && exit\n[ "$1" = -c ] || exit 99\n'
        f"exec {sys.executable} -c '{code}' \"$2\"\n"
    )
    script.chmod(0o755)


def test_a_python_that_is_too_old(clone: Path, bare: Path) -> None:
    """`deploy/run` says which Python it needs and which it found, before it makes or installs anything."""
    python_of("3.9.2", bare)
    status, said = run([str(clone / "deploy" / "run")], clone, {"PATH": str(bare)})
    assert status == 1
    assert said.strip() == (
        "deploy/run: chat-sse needs Python 3.11 or newer, and python3 is Python 3.9.2. "
        "Name a newer one: PYTHON=python3.13 deploy/run"
    )
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize("named", ["", "python3.99"])
def test_no_python(clone: Path, bare: Path, named: str) -> None:
    """Where there is no Python and nothing to install it with, or not the one that was named, a sentence says so."""
    environment = {"PATH": str(bare)} | ({"PYTHON": named} if named else {})
    status, said = run([str(clone / "deploy" / "run")], clone, environment)
    assert status == 1
    assert f"cannot find {named or 'python3'} with its module venv" in said
    assert len(said.splitlines()) == 1


def test_a_port_in_use(tmp_path: Path) -> None:
    """A port that is taken is one sentence, with what helps; it is not the log of a service that comes and goes."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        status, said = chat_sse(tmp_path, "serve", "--port", str(other.getsockname()[1]))
    assert status == 2
    [line] = said.splitlines()
    assert "Another program listens there: stop it, or choose another port with --port." in line


def test_an_upstream_that_is_down(start_service: Start, tmp_path: Path) -> None:
    """Client, log, `ask` and `check --ask` each say that the upstream cannot be reached; where it is, only the log."""
    port = free_port()
    service = start_service(f"http://127.0.0.1:{port}/v1", retry_attempts=1)
    answer = httpx.post(f"{service.url}/v1/chat", json={"prompt": "hi"}, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert str(port) not in answer.text
    assert re.search(rf"127\.0\.0\.1:{port}: connection refused", service.text())
    status, said = chat_sse(tmp_path, "ask", "--url", service.url, "hi")
    assert (status, len(said.splitlines())) == (3, 1)
    status, said = chat_sse(tmp_path, "check", "--ask", OPENAI_BASE_URL=f"http://127.0.0.1:{port}/v1")
    assert status == 1
    assert f"127.0.0.1:{port}: connection refused" in said


def test_no_service(tmp_path: Path) -> None:
    """`ask` says that no service listens there, and exits with the status that its help lists for that."""
    url = f"http://127.0.0.1:{free_port()}"
    status, said = chat_sse(tmp_path, "ask", "--url", url, "hi")
    assert status == 4
    [line] = said.splitlines()
    assert url in line


def test_a_setting_that_is_wrong(tmp_path: Path) -> None:
    """A misspelt setting ends the start with one sentence that names it and the one that was probably meant."""
    status, said = chat_sse(tmp_path, "serve", CHAT_SSE_PROT="9000")
    assert status == 2
    [line] = said.splitlines()
    assert "CHAT_SSE_PROT" in line
    assert "CHAT_SSE_PORT" in line
