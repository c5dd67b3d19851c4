"""What clients send and do that no specification asks for, over real sockets: names, slashes, HTTP/1.0, hanging up."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.real.clients.sse import check, parse
from tests.real.conftest import Start
from tests.real.processes import Server, launch, left_unread
from tests.real.wire import answers, connect, received, request
from tests.upstream.raw import CHUNK, FINISH
from tests.waiting import wait_until

pytestmark = pytest.mark.real

NAMES = ["流式抗截断/gemini-2.5-pro", "модель:7b", "🦙 llama", "plain"]
MESSAGES = [{"role": "user", "content": "hi"}]
PARTS = [{"id": "u", "role": "user", "parts": [{"type": "text", "text": "hi"}]}]
# By dialect: the path, and the body without a model.
DIALECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "native": ("/v1/chat", {"prompt": "hi"}),
    "openai": ("/v1/chat/completions", {"messages": MESSAGES, "stream": True}),
    "openai, whole": ("/v1/chat/completions", {"messages": MESSAGES}),
    "ai-sdk": ("/v1/ai-sdk/chat", {"id": "chat-1-of-a-page", "messages": PARTS}),
}


class _Asked(BaseHTTPRequestHandler):
    """An upstream that keeps the bodies of its requests. What it does is named by the model."""

    protocol_version = "HTTP/1.1"
    bodies: list[dict[str, Any]]
    left: int  # how often a client hung up

    def do_GET(self) -> None:
        self._answer(200, json.dumps({"data": [{"id": name} for name in NAMES]}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.bodies.append(body)
        if body["model"] == "429":
            self._answer(429, b'{"error":{"message":"Slow down."}}', {"Retry-After": "1"})
            return
        if body["model"] == "silent":
            self.connection.recv(1)
            _Asked.left += 1
            self.close_connection = True
            return
        headers = {"Content-Type": "text/event-stream"}
        if body["model"] != "slow":
            self._answer(200, CHUNK % b"hi" + FINISH, headers)
            return
        self._head(200, {**headers, "Connection": "close"})
        self.wfile.write(CHUNK % b"first")
        self.connection.recv(1)
        _Asked.left += 1

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(status, {**(headers or {}), "Content-Length": str(len(body))})
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Be silent."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Asked) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, upstream: str) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), upstream, retry_wait=0.01)
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def forget() -> None:
    """Forget what was asked before."""
    _Asked.bodies, _Asked.left = [], 0


@pytest.mark.parametrize("name", NAMES)
def test_model_names(service: Server, name: str) -> None:
    """A model of any name is listed, found, and asked for by that name."""
    listed = httpx.get(f"{service.url}/v1/models").json()["data"]
    assert name in [model["id"] for model in listed]
    found = httpx.get(f"{service.url}/v1/models/{quote(name, safe='')}")
    assert (found.status_code, found.json()["id"]) == (200, name)
    for path, body in DIALECTS.values():
        assert httpx.post(f"{service.url}{path}", json={**body, "model": name}).status_code == 200
        assert _Asked.bodies[-1]["model"] == name


def test_no_limit(start_service: Start, upstream: str) -> None:
    """-1 tokens are as many as the service gives, in every dialect."""
    capped = start_service(upstream, max_output_tokens=7)
    for path, body in DIALECTS.values():
        for field in ("max_tokens", "max_completion_tokens"):
            assert httpx.post(f"{capped.url}{path}", json={**body, field: -1}).status_code == 200
            assert _Asked.bodies[-1]["max_completion_tokens"] == 7
            assert "max_tokens" not in _Asked.bodies[-1]


@pytest.mark.parametrize("path", ["//v1/chat", "/v1//chat", "/v1/chat/", "///v1///chat//"])
def test_extra_slashes(service: Server, path: str) -> None:
    """They are no part of a path of the API, and no redirect tells so."""
    sent = request(b"POST %s HTTP/1.1" % path.encode(), b"Connection: close", body=b'{"prompt":"hi"}')
    (answer,) = answers(service, sent)
    assert (answer.status, answer.events[-1].event) == (200, "done")


def test_extra_slashes_elsewhere(service: Server) -> None:
    """A path that a proxy may guard has one spelling."""
    for path in (b"//metrics", b"/metrics/", b"/healthz/", b"//openapi.json"):
        (answer,) = answers(service, request(b"GET %s HTTP/1.1" % path, b"Connection: close"))
        assert (answer.status, answer.code) == (404, "not_found")


def test_known_paths(service: Server) -> None:
    """A client of an endpoint that is not here is told which one is."""
    for path in ("/v1/completions", "/v1/embeddings", "/chat/completions", "/v1/v1/chat/completions", "/v1/messages"):
        answer = httpx.post(f"{service.url}{path}", json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert "/v1" in answer.json()["error"]["message"]


def test_accept(service: Server) -> None:
    """Clients that accept JSON and anything else get the stream, and those that accept JSON alone its place."""
    for accept, kind in (
        ("application/json, text/plain, */*", "text/event-stream"),  # axios
        ("application/json, */*;q=0.5", "text/event-stream"),  # HTTPie
        ("application/json", "application/json"),
    ):
        headers = {"Accept": accept}
        begun = httpx.post(f"{service.url}/v1/chat", json={"prompt": "hi"}, headers=headers)
        assert begun.headers["content-type"].partition(";")[0] == kind
        assert begun.status_code == (201 if kind == "application/json" else 200)
        read = httpx.get(f"{service.url}/v1/streams/{begun.headers['x-stream-id']}", headers=headers)
        assert read.headers["content-type"].partition(";")[0] == kind


@pytest.mark.parametrize("more", [(), (b"Connection: keep-alive",), (b"Expect: 100-continue",)])
def test_http_1_0(service: Server, more: tuple[bytes, ...]) -> None:
    """A stream over HTTP/1.0 is its events and nothing else, as they come, until the connection closes."""
    with connect(service) as sock:
        sock.sendall(request(b"POST /v1/chat HTTP/1.0", *more, body=b'{"prompt":"hi","model":"slow"}'))
        data = b""
        while b"first" not in data:  # the upstream has not said more
            data += sock.recv(65536)
        head, _, begun = data.partition(b"\r\n\r\n")
        assert begun.startswith(b"retry: ")
        stream_id = head.partition(b"x-stream-id: ")[2].partition(b"\r\n")[0]
        httpx.delete(f"{service.url}/v1/streams/{stream_id.decode()}")
        body = begun + received(sock)
    assert head.startswith(b"HTTP/1.1 200")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    events = parse(body)
    check(events, dense=False)
    assert events[-1].json()["finish_reason"] == "cancelled"


def test_the_rest_of_http_1_0(service: Server) -> None:
    """Answers that have a length say so, errors too; HEAD and OPTIONS have no body that is not measured."""
    for line, status in (
        (b"GET /v1/models HTTP/1.0", 200),
        (b"HEAD /v1/models HTTP/1.0", 200),
        (b"GET /nothing HTTP/1.0", 404),
        (b"OPTIONS /v1/chat HTTP/1.0", 405),
        (b"POST /v1/chat HTTP/1.0", 400),
    ):
        (answer,) = answers(service, request(line))
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert "transfer-encoding" not in answer.headers
        assert int(answer.headers["content-length"]) == len(answer.body) or line.startswith(b"HEAD")


def ask(service: Server, dialect: str, model: str, *headers: bytes) -> socket.socket:
    """Send a request, and wait until the upstream has it."""
    path, body = DIALECTS[dialect]
    sock = connect(service)
    content = json.dumps({**body, "model": model}).encode()
    sock.sendall(request(b"POST %s HTTP/1.1" % path.encode(), *headers, body=content))
    wait_until(lambda: _Asked.bodies)
    return sock


@pytest.mark.parametrize("dialect", DIALECTS)
def test_hanging_up_before_the_answer(service: Server, dialect: str) -> None:
    """Before a client has the stream's id it cannot come back: its upstream is let go without a grace."""
    ask(service, dialect, "silent").close()
    wait_until(lambda: _Asked.left)
    assert not left_unread(service)


def test_hanging_up_in_the_middle(service: Server) -> None:
    """A client of OpenAI's stops its answer by hanging up; one of the native dialect may come back."""
    for dialect, ends in (("openai", True), ("openai, whole", True), ("native", False), ("ai-sdk", False)):
        _Asked.bodies, _Asked.left = [], 0
        sock = ask(service, dialect, "slow")
        if dialect != "openai, whole":
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        sock.close()
        if ends:
            wait_until(lambda: _Asked.left)
        else:
            time.sleep(0.5)
            assert not _Asked.left, dialect


@pytest.mark.parametrize("dialect", DIALECTS)
def test_hanging_up_with_a_key(service: Server, dialect: str) -> None:
    """A client that can repeat its request finds its stream again."""
    ask(service, dialect, "silent", b"Idempotency-Key: " + dialect.replace(", ", "-").encode()).close()
    time.sleep(0.5)
    assert not _Asked.left


@pytest.mark.parametrize("dialect", DIALECTS)
def test_hanging_up_between_two_tries(service: Server, dialect: str) -> None:
    """An upstream is not asked again for a client that is gone."""
    ask(service, dialect, "429").close()
    time.sleep(2.5)  # it asked for one second
    assert len(_Asked.bodies) == 1


def test_the_operators_policy(start_service: Start, upstream: str) -> None:
    """A policy that the operator has set holds in every dialect."""
    patient = start_service(upstream, on_disconnect="grace:10")
    for dialect in DIALECTS:
        _Asked.bodies, _Asked.left = [], 0
        ask(patient, dialect, "silent").close()
        time.sleep(0.3)
        assert not _Asked.left, dialect
