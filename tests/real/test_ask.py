"""`chat-sse ask` against a real service: whole answers, cut connections, a pipe that closes, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.real.conftest import Start
from tests.real.processes import ROOT, Server, launch
from tests.real.proxy import Cut, Proxy
from tests.waiting import wait_until

pytestmark = pytest.mark.real

ECHO = "sim-echo?rate=0&first=0"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One service with the built-in simulator, for the tests that change nothing about it."""
    server = launch(tmp_path_factory.mktemp("service"), retry_wait=0.01)
    yield server
    server.stop()


def command(service: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "app", "ask", "--url", service, *arguments]


def run(service: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    asked = command(service, *arguments)
    return subprocess.run(asked, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=120, check=False)


def test_whole(service: Server) -> None:
    """The answer is printed as it comes, from an argument, from a pipe, and as JSON."""
    whole = run(service.url, "你好 world", "--model", ECHO)
    assert (whole.returncode, whole.stdout, whole.stderr) == (0, "你好 world\n", "")
    assert run(service.url, "--model", ECHO, "--chunk", "word", stdin="from stdin").stdout == "from stdin\n"
    lines = [json.loads(line) for line in run(service.url, "hi", "--json", "--model", ECHO).stdout.splitlines()]
    assert [line["event"] for line in lines] == ["start", "delta", "done"]


def test_other_ends(service: Server) -> None:
    """An answer that broke and a request that was refused have exit statuses of their own."""
    broken = run(service.url, "hi", "--model", "cut-before-finish?after=3&rate=0&first=0")
    assert broken.returncode == 1
    assert broken.stdout.strip()
    assert "closed the connection early" in broken.stderr
    refused = run(service.url, "hi", "--chunk", "nonsense")
    assert refused.returncode == 3
    assert "chunk" in refused.stderr


def test_a_conversation(service: Server) -> None:
    """Each line of standard input is answered, with the turns before it."""
    talk = run(service.url, "--chat", "--system", "Echo.", "--model", ECHO, stdin="one\ntwo\n")
    assert (talk.returncode, talk.stdout, talk.stderr) == (0, "one\ntwo\n", "")


def test_cut_connections_are_resumed(service: Server) -> None:
    """An answer whose connection breaks again and again is printed whole, once."""
    text = "A stream reaches its reader, whatever breaks in between. " * 20
    cuts = [Cut(blocks=3, reset=True), Cut(octets=700), Cut(blocks=2)]
    with Proxy(service.url, cuts) as proxy:
        whole = run(proxy.url, text, "--model", "sim-echo?rate=0&first=0", "--chunk", "size:10")
        assert (whole.returncode, whole.stdout, whole.stderr) == (0, text + "\n", "")
        assert len(proxy.links) == 4


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let children take Ctrl-C: a shell that starts the tests in the background has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("how", ["pipe", "interrupt"])
def test_who_leaves_stops_the_stream(
    start_service: Start, simulator: Server, counted: Callable[[], dict[str, int]], how: str
) -> None:
    """If the pipe after it closes, or Ctrl-C is pressed, it ends without a traceback, and the upstream is stopped."""
    service = start_service(simulator)
    asked = command(service.url, "hi", "--model", "never-ends?rate=50")
    with subprocess.Popen(asked, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        assert asking.stderr is not None
        asking.stdout.read(1)
        if how == "pipe":
            asking.stdout.close()
        else:
            asking.send_signal(signal.SIGINT)
        assert asking.wait(60) == {"pipe": 141, "interrupt": 130}[how]
        assert asking.stderr.read() == ""
    wait_until(lambda: counted()["streams_aborted"] == 1)
    service.awaits("cancelled")
