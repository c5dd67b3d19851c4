"""README's two commands on a bare Debian, as a newcomer types them: one serves, the other runs the tests.

`TESTS_RUN` has the arguments of the second one. What is committed is what is tried.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy.debian import CACHE, bootstrap, copied, entering, environment
from tests.ports import free_port
from tests.real.clients.sse import check, parse
from tests.real.processes import LISTENS, ROOT, Server, log_file

pytestmark = pytest.mark.timeout(3 * 3600)

# What README's reader has before: someone who may install, and a clone.
BARE = ("ca-certificates", "procps", "sudo")


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def debian(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A bare Debian 12, and 13, with a clone in /chat-sse."""
    assert os.geteuid() == 0, "a Debian in a folder needs root"
    with copied(bootstrap(request.param, *BARE), CACHE / f"{request.param}-readme") as root:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root / "chat-sse")], check=True)
        yield root


def typed(debian: Path, command: str) -> list[str]:
    """Return the command line that runs *command* in the clone."""
    variables = [f"{name}={value}" for name, value in environment().items()]
    return entering(debian, "/usr/bin/env", "-i", *variables, "sh", "-c", f"cd /chat-sse && exec {command}")


def test_serving(debian: Path, tmp_path: Path) -> None:
    """`deploy/run` installs what is missing, says where it listens, and answers."""
    port = free_port()
    service = Server(typed(debian, f"deploy/run --port {port}"), log_file(tmp_path, "service"))
    try:
        service.awaits(LISTENS, timeout=600)
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat", json={"prompt": "hi"}, timeout=60)
        check(parse(answer.content), dense=False)
    finally:
        service.popen.kill()  # and its child with it
        service.popen.wait()


def test_testing(debian: Path) -> None:
    """`tests/run` installs what is missing, and everything passes."""
    assert subprocess.run(typed(debian, f"tests/run {os.environ.get('TESTS_RUN', '')}"), check=False).returncode == 0
