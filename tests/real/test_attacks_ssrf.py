"""Attacks on whom the service asks: nothing that a client says leads it to any other place, or leaks there."""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest

from tests.real.clients.sse import text
from tests.real.conftest import Start
from tests.real.processes import Server, launch, stats
from tests.real.wire import CHAT, QUICK, ask, request
from tests.waiting import wait_until

pytestmark = pytest.mark.real

KEY = "csk_" + secrets.token_hex(16)
KEYS = f"owner:{hashlib.sha256(KEY.encode()).hexdigest()}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), simulator, api_keys=KEYS)
    yield server
    assert "crashed" not in server.text()
    server.stop()


def client(service: Server, token: str) -> httpx.Client:
    return httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)


class Canary(threading.Thread):
    """A server that the service has no business with: it notes who connects, and what is said."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.heard: list[bytes] = []
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                self.heard.append(connection.recv(65536))


@pytest.fixture
def canary() -> Iterator[Canary]:
    bird = Canary()
    yield bird
    bird.listener.close()


def lures(url: str, port: int) -> Iterator[dict[str, Any]]:
    """Everything in a body that might be taken for where to go."""
    part = {"type": "image_url", "image_url": {"url": f"{url}/image.png"}}
    file = {"type": "file", "file": {"file_data": url, "file_id": url}}
    message = {"role": "user", "content": [{"type": "text", "text": "x"}, part, file]}
    yield {"prompt": None, "messages": [message]}
    yield {"prompt": None, "messages": [{"role": "user", "content": "x", "url": url, "base_url": url}]}
    for model in (
        url,
        f"{url}/v1",
        f"@127.0.0.1:{port}/",
        f"../../../../{url}",
        f"openai/{url}",
        f"x#{url}",
        f"x?api_base={url}",
    ):
        yield {"model": model}
    for field in ("base_url", "api_base", "openai_base_url", "url", "endpoint", "webhook", "proxy", "upstream", "jku"):
        yield {field: url}
    yield {"metadata": {"base_url": url, "callback": url}}
    yield {"tools": [{"type": "mcp", "server_url": url, "function": {"name": url, "url": url}}]}
    yield {"web_search_options": {"url": url}}
    yield {"user": url, "service_tier": url}


def test_nothing_leads_elsewhere(service: Server, simulator: Server, canary: Canary) -> None:
    """Nothing that a client can say makes the service connect to any other place than its upstream."""
    authority = f"127.0.0.1:{canary.port}".encode()
    credentials = b"Authorization: Bearer " + KEY.encode()
    before = stats(simulator)["requests"]
    with client(service, KEY) as owner:
        for lure in lures(canary.url, canary.port):
            body = {key: value for key, value in {**QUICK, **lure}.items() if value is not None}
            assert owner.post("/v1/chat", json=body).status_code in (200, 400, 403, 404)
    for name in (
        *("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server", "Forwarded", "X-Real-IP"),
        *(
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-Host",
            "Referer",
            "Via",
            "X-Upstream",
            "X-Base-Url",
            "Proxy",
            "Location",
        ),
        *("Link", "X-Callback-Url", "Destination", "OpenAI-Base-URL", "X-HTTP-Host-Override", "Proxy-Connection"),
    ):
        for value in (authority, canary.url.encode(), b"host=" + authority):
            header = name.encode() + b": " + value
            answer = ask(service, request(CHAT, credentials, header, body=json.dumps(QUICK).encode()))
            assert text(answer.events) == "x"
    for line in (b"POST %s/v1/chat HTTP/1.1", b"GET %s/healthz HTTP/1.1", b"GET %s HTTP/1.1"):
        ask(service, request(line % canary.url.encode(), credentials, body=json.dumps(QUICK).encode()))
    ask(service, request(CHAT, credentials, host=b"Host: " + authority, body=json.dumps(QUICK).encode()))
    assert ask(service, request(b"CONNECT %s HTTP/1.1" % authority, credentials)).status == 400
    assert stats(simulator)["requests"] > before + 60
    assert canary.heard == []
    connect_once = socket.create_connection(("127.0.0.1", canary.port))  # it would have noticed
    connect_once.sendall(b"hello")
    wait_until(lambda: canary.heard == [b"hello"])
    connect_once.close()


def test_keys_of_a_jwt_come_from_the_settings(start_service: Start, canary: Canary) -> None:
    """Where a token says that its key is (`jku`, `x5u`, an issuer) is not asked; nor is `kid` a path."""
    service = start_service(jwt_secret="j" * 32, jwt_issuer="https://good.example")
    claims = {"sub": "mallory", "exp": 4_000_000_000, "iss": "https://good.example"}
    headers: list[dict[str, Any]] = [
        {"jku": canary.url},
        {"x5u": canary.url},
        {"kid": canary.url},
        {"kid": "../../../../dev/null"},
        {"jwk": {"kty": "oct", "k": "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg"}},
    ]
    for header in headers:
        token = jwt.encode(claims, "x" * 32, algorithm="HS256", headers=header)
        with client(service, token) as mallory:
            assert mallory.post("/v1/chat", json=QUICK).status_code == 401, header
    token = jwt.encode({**claims, "iss": canary.url}, "j" * 32, algorithm="HS256")
    with client(service, token) as mallory:
        assert mallory.post("/v1/chat", json=QUICK).status_code == 401
    token = jwt.encode(claims, "j" * 32, algorithm="HS256", headers={"jku": canary.url})
    with client(service, token) as good:
        assert good.post("/v1/chat", json=QUICK).status_code == 200
    assert canary.heard == []


def test_credentials_are_not_upstream_s(start_service: Start, canary: Canary) -> None:
    """What a client shows us stays here: the upstream gets our key, or none, and nothing of the client's headers."""
    proxied = start_service(f"{canary.url}/v1", api_keys=KEYS, openai_api_key="sk-ours", retry_attempts=1)
    shown = {
        "Cookie": "session=theirs",
        "X-Request-Id": "theirs",
        "X-Custom": "theirs",
        "OpenAI-Organization": "theirs",
    }
    with client(proxied, KEY) as owner:
        assert owner.post("/v1/chat", json=QUICK, headers=shown).status_code == 502
    (head,) = [heard.partition(b"\r\n\r\n")[0].lower() for heard in canary.heard]
    assert b"authorization: bearer sk-ours" in head
    for theirs in (b"theirs", KEY.encode().lower(), b"cookie"):
        assert theirs not in head
