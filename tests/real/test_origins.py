"""Hosts, origins and what else a browser goes by, on the wire."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from tests.real.browser import nothing_done
from tests.real.conftest import Start
from tests.real.processes import Server, launch

pytestmark = pytest.mark.real

FRIEND = "https://app.example.com"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), simulator, allowed_origins=FRIEND)
    yield server
    server.stop()


PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,last-event-id,user-agent,x-title,x-stainless-os",
}


def words(header: str) -> set[str]:
    return {word.strip() for word in header.lower().split(",")}


def test_a_preflight(service: Server) -> None:
    """A preflight says what may be sent, for ten minutes; cookies are never wanted."""
    for method in ("GET", "POST", "DELETE"):
        headers = {"Origin": FRIEND, **PREFLIGHT, "Access-Control-Request-Method": method}
        answer = httpx.options(f"{service.url}/v1/chat", headers=headers)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == FRIEND
        assert words(answer.headers["access-control-allow-methods"]) >= {"get", "post", "delete"}
        assert words(answer.headers["access-control-allow-headers"]) >= words(
            PREFLIGHT["Access-Control-Request-Headers"]
        )
        assert answer.headers["access-control-max-age"] == "600"
        assert "origin" in words(answer.headers["vary"])
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", ""])
def test_a_strangers_preflight(service: Server, origin: str) -> None:
    """A stranger's preflight is refused, and tells it nothing."""
    answer = httpx.options(f"{service.url}/v1/chat", headers={"Origin": origin, **PREFLIGHT})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_answers_vary(service: Server) -> None:
    """A cache between may not give one origin's answer to another: each says that it depends on it."""
    for headers in ({}, {"Origin": FRIEND}, {"Origin": service.url}):
        answer = httpx.get(f"{service.url}/client.js", headers=headers)
        assert answer.status_code == 200
        assert "origin" in words(answer.headers["vary"])
        allowed = answer.headers.get("access-control-allow-origin")
        assert allowed == (FRIEND if headers.get("Origin") == FRIEND else None)
    exposed = words(
        httpx.get(f"{service.url}/client.js", headers={"Origin": FRIEND}).headers["access-control-expose-headers"]
    )
    assert exposed >= {"x-stream-id", "x-request-id", "content-location", "location", "retry-after"}


def ask_raw(service: Server, *lines: str, body: bytes = b"") -> bytes:
    """Send a request as it is written, and return the answer whole."""
    head = "\r\n".join([*lines, "Connection: close", f"Content-Length: {len(body)}", "", ""])
    with closing(socket.create_connection(("127.0.0.1", service.port), timeout=60)) as sock:
        sock.sendall(head.encode("latin-1") + body)
        answer = b""
        while data := sock.recv(65536):
            answer += data
    return answer


@pytest.mark.parametrize(
    "lines",
    [
        ("POST /v1/chat HTTP/1.1", "Host: evil.example"),
        ("POST /v1/chat HTTP/1.1", "Host: evil.example", "X-Forwarded-Host: localhost", "Forwarded: host=localhost"),
        ("POST /v1/chat HTTP/1.1", "Host: localhost.evil.example:80"),
        ("POST /v1/chat HTTP/1.1", "Host: localhost", "Host: evil.example"),
        ("POST /v1/chat HTTP/1.1", "Host: evil.example", "Host: localhost"),
        ("POST /v1/chat HTTP/1.1",),
        ("POST /v1/chat HTTP/1.0",),
        ("POST http://localhost/v1/chat HTTP/1.1", "Host: evil.example"),
        ("POST http://localhost/v1/chat HTTP/1.1",),
    ],
    ids=["another", "forwarded", "suffix", "second", "first", "none", "old", "absolute", "absolute alone"],
)
def test_another_host_is_refused(service: Server, simulator: Server, lines: tuple[str, ...]) -> None:
    """On loopback without credentials, only a request for one of loopback's own names gets anything done."""
    with nothing_done(service, simulator, "host_not_allowed"):
        answer = ask_raw(service, *lines, body=b'{"prompt":"hi"}')
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b'"host_not_allowed"' in answer


def test_an_absolute_target_is_no_name(service: Server) -> None:
    """The name in a request's target counts for nothing: browsers send none, and it admits no request."""
    answer = ask_raw(service, "GET http://evil.example/client.js HTTP/1.1", "Host: localhost")
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_names_of_loopback(service: Server, start_service: Start, simulator: Server) -> None:
    """Loopback's names are ours there; where others are given, those are, and only those."""
    for host in ("localhost", "127.0.0.1:1", "[::1]:8000", "LOCALHOST."):
        assert ask_raw(service, "GET /client.js HTTP/1.1", f"Host: {host}").startswith(b"HTTP/1.1 200 ")
    named = start_service(simulator, allowed_hosts="chat.example.com, 10.0.0.1")
    for host, status in (("chat.example.com:443", 200), ("10.0.0.1", 200), ("localhost", 403), ("example.com", 403)):
        answer = ask_raw(named, "GET /client.js HTTP/1.1", f"Host: {host}")
        assert answer.startswith(b"HTTP/1.1 %d " % status), host


def test_another_port_is_another_origin(service: Server) -> None:
    """A page of this machine's, but of another port, is a stranger's; ours is ours, with or without TLS."""
    ours = f"Host: localhost:{service.port}"
    for origin, status in (
        (f"http://localhost:{service.port}", 200),
        (f"https://localhost:{service.port}", 200),
        (f"http://localhost:{service.port + 1}", 403),
        ("http://localhost", 403),
        (f"http://localhost:{service.port}@evil.example", 403),
        (f"http://localhost:{service.port}.evil.example", 403),
        (f"http://evil.example#localhost:{service.port}", 403),
    ):
        answer = ask_raw(service, "GET /client.js HTTP/1.1", ours, f"Origin: {origin}")
        assert answer.startswith(b"HTTP/1.1 %d " % status), origin


def test_a_dev_server(start_simulator: Start, start_service: Start) -> None:
    """A page of another port may ask the simulator. In front of anything else, the log says what to set."""
    page = {"Origin": "http://localhost:5173"}
    easy = start_service()
    easy.awaits("Pages of other origins may use it: those of loopback, on any port")
    answer = httpx.post(f"{easy.url}/v1/chat", json={"prompt": "hi"}, headers=page)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, page["Origin"])
    real = start_service(start_simulator())
    real.awaits("Pages of other origins may not use it: CHAT_SSE_ALLOWED_ORIGINS is empty")
    assert httpx.options(f"{real.url}/v1/chat", headers={**page, **PREFLIGHT}).status_code == 403
    real.awaits(r"Pages of 'http://localhost:5173' may not use this service: CHAT_SSE_ALLOWED_ORIGINS does not list")


# What is served as a page.


def test_pages_are_locked_up(service: Server) -> None:
    """Other sites may not frame, sniff or load the pages, except the client, which they are to import."""
    for path in ("/", "/playground/playground.js", "/playground/playground.css", "/client.js"):
        headers = httpx.get(f"{service.url}{path}").headers
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == ("cross-origin" if path == "/client.js" else "same-origin")
        assert "camera=()" in headers["permissions-policy"]
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


def test_without_the_playground(start_service: Start, simulator: Server) -> None:
    """Switched off, the playground is not there, and the client still is."""
    alone = start_service(simulator, playground="false")
    for path, status in (
        ("/", 404),
        ("/playground/playground.js", 404),
        ("/playground/playground.css", 404),
        ("/client.js", 200),
    ):
        assert httpx.get(f"{alone.url}{path}").status_code == status
