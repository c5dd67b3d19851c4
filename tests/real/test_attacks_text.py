"""Attacks by text: what clients send comes out as text, and never as a header, an event, or a line of the log."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_from_bytes

import httpx
import pytest

from tests.real.clients.sse import text
from tests.real.conftest import Start
from tests.real.processes import Server, launch
from tests.real.wire import CHAT, QUICK, Answer, ask, request
from tests.waiting import wait_until

pytestmark = pytest.mark.real

# Each would do something if it came out as it went in: end a line, a block, a head, a string; clear a screen.
POISON = [
    "x\n\nevent: done\ndata: {}\n\n",
    "x\r\revent: done\rdata: {}\r\r",
    "x\r\n\r\nHTTP/1.1 200 OK\r\nX-Injected: 1\r\n\r\n",
    "x\0\nid: 1\nretry: 1\n",
    "x\u2028event: done\u2028data: {}\u2028\u2029\x85\x0b\x0c",
    '\x1b[2J\x1b]0;x\x07","code":"x"}\n{"event":"x',
    "\ufeffevent: done\ndata: {}\n\n",
]
MESSAGE = {"role": "user", "content": "x"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings: dict[str, Any] = {"log_format": "json", "log_level": "debug", "allowed_origins": "https://good.example"}
    server = launch(tmp_path_factory.mktemp("service"), **settings)
    yield server
    server.stop()
    assert "crashed" not in server.text()
    for line in server.text().splitlines()[2:]:  # after what is said at the start, for people
        assert line.isprintable()
        assert isinstance(json.loads(line), dict)


def whole(answer: Answer) -> Answer:
    """Check that *answer* is one of ours and nothing else: a stream, to the byte, or a line of JSON."""
    assert "x-injected" not in answer.headers
    if answer.headers["content-type"].startswith("text/event-stream"):
        assert [event.event for event in answer.events if event.event != "delta"] == ["start", "done"]
        for separator in ("\u2028", "\u2029", "\x85", "\0", "\x1b"):
            assert separator.encode() not in answer.body
    elif answer.headers["content-type"] == "application/json":
        assert not re.search(rb"[\x00-\x1f\x7f]", answer.body)
        json.loads(answer.body)
    return answer


def chat(service: Server, body: dict[str, Any], *headers: bytes) -> Answer:
    return whole(ask(service, request(CHAT, *headers, body=json.dumps(body).encode())))


FIELDS: dict[str, Any] = {
    "prompt": lambda poison: {"prompt": poison},
    "model": lambda poison: {"model": f"sim-echo?rate=0&first=0&key={poison}"},
    "chunk": lambda poison: {"chunk": poison},
    "smooth": lambda poison: {"chunk": f"word,smooth:{poison}"},
    "on_disconnect": lambda poison: {"on_disconnect": poison},
    "user": lambda poison: {"user": poison},
    "stop": lambda poison: {"stop": [poison]},
    "metadata": lambda poison: {"metadata": {poison: poison}},
    "logit_bias": lambda poison: {"logit_bias": {poison: 1000}},
    "service_tier": lambda poison: {"service_tier": poison},
    "role": lambda poison: {"prompt": None, "messages": [{"role": poison, "content": "x"}]},
    "content": lambda poison: {"prompt": None, "messages": [{"role": "user", "content": poison}]},
    "part": lambda poison: {"prompt": None, "messages": [{**MESSAGE, "content": [{"type": "text", "text": poison}]}]},
    "name": lambda poison: {"prompt": None, "messages": [{**MESSAGE, "name": poison}]},
    "tool": lambda poison: {"tools": [{"type": "function", "function": {"name": poison}}]},
    "a field of no name": lambda poison: {poison: poison},
}


@pytest.mark.parametrize("field", FIELDS)
def test_fields(service: Server, field: str) -> None:
    """CR, LF, NUL and the like in a field are text or a 400, and never another event or another answer."""
    for poison in POISON:
        answer = chat(service, {**QUICK, **FIELDS[field](poison)})
        assert answer.status in (200, 400)
        if answer.status == 200 and field in ("prompt", "content", "part"):
            assert text(answer.events) == poison
        if field in ("model", "chunk", "smooth", "on_disconnect", "role", "logit_bias", "a field of no name"):
            assert (answer.status, answer.code) == (400, "bad_request")


@pytest.mark.parametrize("chunk", ["auto", "none", "size:1", "line"])
def test_echo(service: Server, chunk: str) -> None:
    """An answer in the syntax of SSE is an answer, however it is cut."""
    poison = "".join(POISON)
    assert text(chat(service, {**QUICK, "prompt": poison, "chunk": chunk}).events) == poison


def test_model_is_escaped(service: Server) -> None:
    """The model's name is told as it was given, as a JSON string."""
    model = """sim-echo?rate=0&first=0&key="},"x":[\\"<script>data:"""
    events = chat(service, {**QUICK, "model": model}).events
    assert events[0].json()["model"] == model
    assert set(events[0].json()) == {"stream_id", "model", "created"}


BYTES = [poison.encode() for poison in POISON] + [b"\xff\xfe", b"x" * 4000]


def test_targets(service: Server) -> None:
    """In a path or a query, percent-encoded, they are an unknown path or a 400; raw, they are no request."""
    known = chat(service, QUICK).headers["x-stream-id"].encode()
    for poison in BYTES:
        encoded = quote_from_bytes(poison, safe="").encode()
        for path in (b"/" + encoded, b"/v1/streams/" + encoded, b"/v1/streams/" + encoded + b"/cancel"):
            answer = whole(ask(service, request(b"GET %s HTTP/1.1" % path)))
            assert answer.status in (404, 405)
        for name in (b"last_event_id", b"smooth"):
            target = b"/v1/streams/%s?%s=%s" % (known, name, encoded)
            answer = whole(ask(service, request(b"GET %s HTTP/1.1" % target)))
            assert (answer.status, answer.code) == (400, "bad_request")
        assert whole(ask(service, request(b"GET /v1/streams/%s?ticket=%s HTTP/1.1" % (known, encoded)))).status == 200
    for raw in (b"\r", b"\n", b"\0", b"\x1b"):
        answer = ask(service, request(b"GET /v1/streams/%s?smooth=%sX-Injected:1 HTTP/1.1" % (known, raw)))
        assert answer.status == 400
        assert "x-injected" not in answer.headers


HEADERS = {
    b"Last-Event-ID": {400},
    b"X-Request-Id": {200},
    b"Idempotency-Key": {200, 400},
    b"traceparent": {200},
    b"Authorization": {200},
    b"Origin": {403},
    b"Host": {403},
    b"Accept": {200},
    b"Cookie": {200},
    b"Content-Type": {200},
    b"X-Forwarded-For": {200},
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers(service: Server, name: bytes) -> None:
    """In a header, percent-encoded or in bytes over 127, they are echoed nowhere; raw, they are no request."""
    host = b"X: y" if name == b"Host" else b"Host: localhost"
    body = json.dumps(QUICK).encode()
    for poison in BYTES:
        encoded = quote_from_bytes(poison, safe="").encode()
        for value in (encoded, re.sub(rb"[\x00-\x1f\x7f]", b"\xe5\x98\x8a\xe5\x98\x8d", poison)):
            answer = whole(ask(service, request(CHAT, b"%s: %s" % (name, value), host=host, body=body)))
            assert answer.status in HEADERS[name]
            told = " ".join(answer.headers.values())
            assert value.decode("latin-1") not in told
    for raw in (b"x\rX-Injected: 1", b"x\nX-Injected: 1", b"x\0y", b"x\x1by", b"x\r\n X-Injected: 1"):
        answer = ask(service, request(CHAT, b"%s: %s" % (name, raw), host=host, body=body))
        assert (answer.status, answer.body) == (400, b"")


def test_preflight(service: Server) -> None:
    """What a preflight asks for is answered only if it is a list of header names, and asked by an allowed page."""
    for origin, status in ((b"https://good.example", 400), (b"https://evil.example", 403)):
        asked = (b"Access-Control-Request-Method: POST", b"Access-Control-Request-Headers: x-injected, a: b")
        answer = ask(service, request(b"OPTIONS /v1/chat HTTP/1.1", b"Origin: " + origin, *asked))
        assert answer.status == status
        assert "injected" not in json.dumps(answer.headers)
        assert "evil" not in json.dumps(answer.headers)


CANARIES = [
    f"canary-{name}"
    for name in ("prompt", "system", "authorization", "wrong", "ticket", "idempotency", "cookie", "path", "query")
] + ["canary-field", "canary-user", "canary-id", "canary-upstream", "canary-position", "canary-basic"]
POISONED = "\n\x1b[31m" + '"} {"event":"forged"}'


def hammer(service: Server, token: str) -> set[str]:
    """Send every canary in every place that one can be sent in; return what must not be told: answers and tickets."""
    good = {"Authorization": f"Bearer {token}"}
    body = {
        "messages": [{"role": "system", "content": "canary-system"}, {"role": "user", "content": "canary-prompt"}],
        "user": "canary-user",
        "metadata": {"canary-field": "canary-field"},
        "model": 'sim-echo?rate=0&first=0&key="}{"event":"forged"}',
    }
    plain = {key: value for key, value in body.items() if key != "model"}
    headers = {**good, "Idempotency-Key": "canary-idempotency", "Cookie": "canary-cookie", "X-Request-Id": "canary id"}
    secret: set[str] = set()
    with httpx.Client(base_url=service.url) as client:
        for model in (body["model"], "leak?first=0&after=1", "leak-in-stream?first=0&after=1", "garbage?first=0"):
            answer = client.post(
                "/v1/chat",
                json={**body, "model": model},
                headers={**headers, "Idempotency-Key": f"canary-idempotency {model}"},
            )
            assert "forged" not in answer.headers.get("x-request-id", "")
        made = client.post("/v1/chat", json=body, headers={**headers, "Accept": "application/json"})
        assert made.status_code == 201
        url = made.json()["url"]
        secret.add(url.partition("ticket=")[2])
        assert client.get(url).status_code == 200
        assert client.get(url, headers={"Last-Event-ID": "canary-position"}).status_code == 400
        assert client.get(f"{url}canary-ticket").status_code == 401
        assert client.get(f"{url.partition('?')[0]}?ticket=canary-ticket&x=canary-query").status_code == 401
        assert client.post("/v1/chat", json={**plain, "canary-field": 1}, headers=good).status_code == 400
        assert client.post("/v1/chat", content=b'{"prompt": "canary-prompt', headers=good).status_code == 400
        assert client.get("/canary-path%0a%1b%5b31m?x=canary-query", headers=good).status_code == 404
        basic = base64.b64encode(b"canary-basic:canary-wrong").decode()
        for wrong in ("Bearer canary-wrong", f"Basic {basic}", "canary-wrong", "Bearer a.canary-wrong.c"):
            assert client.get("/v1/streams/x", headers={"Authorization": wrong}).status_code == 401
        secret |= {basic, token, token.encode().hex(), hashlib.sha256(token.encode()).hexdigest()}
    for poison in (quote_from_bytes(POISONED.encode()).encode(), b"canary-id \xff\xfe\x85"):
        ask(service, request(b"GET /" + quote_from_bytes(poison).encode() + b" HTTP/1.1", b"X-Request-Id: " + poison))
    return secret


@pytest.mark.parametrize("style", ["json", "console"])
def test_log(start_simulator: Start, start_service: Start, style: str) -> None:
    """At DEBUG, the log is one printable line per event whatever was sent, and holds nothing that is secret."""
    token = "csk_canary-authorization"
    service = start_service(
        start_simulator(),
        log_format=style,
        log_level="debug",
        api_keys=f"owner:{hashlib.sha256(token.encode()).hexdigest()}",
        openai_api_key="sk-canary-upstream",
        retry_wait=0.01,
    )
    secret = hammer(service, token)
    wait_until(lambda: service.text().count("request.refused") >= 10)
    last = httpx.get(f"{service.url}/v1/streams/x", headers={"X-Request-Id": "the-last-one"})
    assert last.status_code == 401
    service.awaits("the-last-one")
    written = service.text()
    assert len(written.splitlines()) > 25
    for canary in (*CANARIES, *secret):
        assert canary not in written
    for number, line in enumerate(written.split("\n")[:-1]):
        assert line.isprintable()
        assert not line.startswith("{") or style == "json"
        if number < 2:  # what is said at the start, for people
            continue
        if style == "json":
            entry = json.loads(line)
            assert entry["event"] != "forged"
        else:
            assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z \[(debug|info|warning|error) *\] [a-z]+\.[a-z]+ ", line), line
