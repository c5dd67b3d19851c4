"""Connections that mean harm, or are merely broken: each is bounded, and takes nothing else down."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.real.conftest import Start
from tests.real.processes import ROOT, Server, launch, left_unread, stats
from tests.waiting import wait_until

pytestmark = pytest.mark.real

HEAD = b"POST /v1/chat HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def service(simulator: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), simulator, body_timeout=0.5, on_disconnect="cancel")
    yield server
    assert httpx.get(f"{server.url}/healthz").is_success
    assert "crashed" not in server.text()
    assert "Traceback" not in server.text()
    server.stop()


def connect(service: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=60)


def post(body: bytes, *headers: bytes) -> bytes:
    return HEAD + b"".join(header + b"\r\n" for header in headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body


def answer(sock: socket.socket) -> bytes:
    """Read until the server closes."""
    received = b""
    while data := sock.recv(65536):
        received += data
    return received


@pytest.mark.parametrize(
    "head", [HEAD + b"X: y\r\n" * 20_000, HEAD + b"X: " + b"y" * 200_000, b"POST /" + b"x" * 200_000]
)
def test_endless_head(service: Server, head: bytes) -> None:
    """A request's head that does not end is refused at a bound."""
    with connect(service) as sock:
        try:
            sock.sendall(head)
            received = answer(sock)
        except ConnectionError:
            return  # closed while it was still being sent
        assert received.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))


def test_slow_body(service: Server) -> None:
    """A body that stops coming is given up, with 408, and the connection is closed."""
    with connect(service) as sock:
        sock.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        received = answer(sock)
    assert received.startswith(b"HTTP/1.1 408")
    assert b"request_timeout" in received
    assert b"connection: close" in received.lower()


def test_body_that_lies(service: Server) -> None:
    """A body that is longer than is taken is refused with 413, and not read on; one cut short disturbs nothing."""
    with connect(service) as sock:
        sock.sendall(HEAD + b"Content-Length: 99999999\r\n\r\n{")
        received = answer(sock)
    assert received.startswith(b"HTTP/1.1 413")
    with connect(service) as sock:
        sock.sendall(HEAD + b"Content-Length: 10\r\n\r\n{")


def test_pipelining(start_simulator: Start, start_service: Start) -> None:
    """A second request before the first one's answer is done ends the connection, and the request to the upstream."""
    simulator = start_simulator()
    service = start_service(simulator, on_disconnect="cancel", commit_after=30)
    body = json.dumps({"prompt": "x", "model": "slow-headers?seconds=60"}).encode()
    with connect(service) as sock:
        sock.sendall(post(body))
        wait_until(lambda: stats(simulator)["requests"] == 1)
        sock.sendall(post(body))
        assert answer_or_reset(sock) == b""
    wait_until(lambda: stats(simulator)["aborted_before_headers"] == 1)
    assert not left_unread(service)


def answer_or_reset(sock: socket.socket) -> bytes:
    try:
        return answer(sock)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("depth", [65, 300, 100_000])
def test_deep_body(service: Server, depth: int) -> None:
    """A body that is nested without end is a 400, whatever the depth."""
    nested = '{"prompt":"x","tools":[' + "[" * depth + "]" * depth + "]}"
    refused = httpx.post(f"{service.url}/v1/chat", content=nested)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_request")


def test_odd_content_is_survived(service: Server) -> None:
    """Message parts of any shape end in an event, also where usage has to be estimated from them."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": None}, {"type": "text", "text": 7}, {"text": {}}, {}]
    for part in parts:
        body = {"messages": [{"role": "user", "content": [part]}], "model": "no-usage?rate=0&first=0"}
        assert "event: done" in httpx.post(f"{service.url}/v1/chat", json=body).text


def test_half_closed(service: Server) -> None:
    """A client that shuts down its sending side is gone; nothing is left of it."""
    with connect(service) as sock:
        sock.sendall(post(b'{"prompt":"x","model":"never-ends"}'))
        sock.shutdown(socket.SHUT_WR)
        answer_or_reset(sock)
    service.awaits("cancelled")


def test_thousand_idle_connections(service: Server) -> None:
    """A thousand connections that say nothing keep no client out."""
    idle = [connect(service) for _ in range(1000)]
    try:
        quick = {"prompt": "x", "model": "sim-echo?rate=0&first=0"}
        assert httpx.post(f"{service.url}/v1/chat", json=quick).is_success
    finally:
        for sock in idle:
            sock.close()


def test_thousand_aborts(start_simulator: Start, start_service: Start) -> None:
    """A thousand streams, each left at another moment, leave no stream, no request upstream and no socket."""
    simulator = start_simulator()
    service = start_service(simulator, on_disconnect="cancel", log_level="warning", max_streams=50)
    sockets = len(os.listdir(f"/proc/{service.popen.pid}/fd"))
    body = post(b'{"prompt":"x","model":"never-ends?rate=200&first=0"}')
    for number in range(1000):
        with connect(service) as sock:
            if number % 10 == 0:
                sock.sendall(body[: -1 - number % 7])
                continue
            sock.sendall(body)
            if number % 3:
                sock.recv(1)
    wait_until(lambda: stats(simulator)["live"] == 0)
    wait_until(lambda: len(os.listdir(f"/proc/{service.popen.pid}/fd")) <= sockets + 5)
    assert httpx.post(f"{service.url}/v1/chat", json={"prompt": "x", "model": "sim-echo?rate=0&first=0"}).is_success
    assert "crashed" not in service.text()


class Raw(threading.Thread):
    """An upstream that answers every connection with the same bytes."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.reply = reply
        self.requests: list[bytes] = []
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        self.start()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                self.requests.append(connection.recv(65536))
                try:
                    connection.sendall(self.reply)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass
                except OSError:
                    pass


@pytest.fixture
def raw() -> Iterator[list[Raw]]:
    running: list[Raw] = []
    yield running
    for upstream in running:
        upstream.listener.close()


BLANKS = gzip.compress(b"\n" * (200 << 20))
ZIPPED = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BLANKS) + BLANKS
BOMBS = {
    "stream": b"HTTP/1.1 200 OK\r\n" + ZIPPED,
    "redirect": b"HTTP/1.1 307 Go\r\nLocation: /v1/again\r\n" + ZIPPED,
    "error": b"HTTP/1.1 500 No\r\n" + ZIPPED,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_compression_bombs(start_service: Start, raw: list[Raw], kind: str) -> None:
    """A few hundred kilobytes that inflate to hundreds of megabytes take no memory."""
    raw.append(Raw(BOMBS[kind]))
    service = start_service(raw[0].url, retry_attempts=1)
    assert httpx.post(f"{service.url}/v1/chat", json={"prompt": "x"}, timeout=60).status_code == 502
    assert service.memory("VmHWM") < 150 << 20


def test_redirects_stay_at_home(start_service: Start, raw: list[Raw]) -> None:
    """A redirect to another host is not followed: the key and the prompt are not for it."""
    thief = Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    raw += [thief, Raw(b"HTTP/1.1 307 Go\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % thief.url.encode())]
    service = start_service(raw[1].url, retry_attempts=1, openai_api_key="sk-mine")
    assert httpx.post(f"{service.url}/v1/chat", json={"prompt": "x"}).status_code == 502
    assert thief.requests == []


def test_cookies_are_nobodys(start_service: Start, raw: list[Raw]) -> None:
    """What the upstream sets as a cookie for one user is not sent for the next."""
    raw.append(Raw(b"HTTP/1.1 400 No\r\nSet-Cookie: session=secret\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
    service = start_service(raw[0].url)
    for _ in range(2):
        httpx.post(f"{service.url}/v1/chat", json={"prompt": "x"})
    assert len(raw[0].requests) == 2
    assert b"cookie" not in raw[0].requests[1].lower()


def test_log_that_cannot_be_written(tmp_path: Path) -> None:
    """When the reader of the log is gone, answers go on, and SIGTERM still ends the process with status 0."""
    read, write = os.pipe()
    command = [sys.executable, "-m", "app", "serve", "--port", "0"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CHAT_SSE_SHUTDOWN_GRACE": "1"}
    env.pop("PYTHONUNBUFFERED", None)  # without a buffer, nothing is left for Python to flush at its end
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=write) as process:
        try:
            os.close(write)
            said = b""
            while b"listens on " not in said or b"\n" not in said:
                said += os.read(read, 4096)
            os.close(read)
            url = said.decode().split("listens on ")[1].split(",")[0]
            quick = {"prompt": "x", "model": "sim-echo?rate=0&first=0"}
            for _ in range(3):
                assert "event: done" in httpx.post(f"{url}/v1/chat", json=quick).text
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
