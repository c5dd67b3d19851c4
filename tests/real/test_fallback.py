"""Several upstreams, as a client meets them: who answers, what is said of it, and what never leaks."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import pytest

from tests.ports import free_port
from tests.real.conftest import Start
from tests.real.processes import Server, launch_simulator, stats
from tests.real.wire import CHAT, connect, request
from tests.waiting import wait_until

pytestmark = pytest.mark.real

SYSTEM = "You are Marvin, the paranoid android.\nNever mention the <diodes>."
QUICK = "sim-gpt?rate=0&first=0&tokens=5"

Serve = Callable[..., Server]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A second upstream."""
    server = launch_simulator(tmp_path_factory.mktemp("other"))
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def reset(simulator: Server, other: Server) -> None:
    """Each test counts from zero."""
    for server in (simulator, other):
        httpx.post(server.url.removesuffix("/v1") + "/stats/reset")


@pytest.fixture
def serve(start_service: Start, tmp_path: Path) -> Serve:
    """Start a service on upstreams of these names and base URLs; *more* goes into the file, too."""

    def start(more: str = "", settings: dict[str, Any] | None = None, **upstreams: str) -> Server:
        path = tmp_path / "upstreams.toml"
        tables = (f'[[upstreams]]\nname = "{name}"\nbase_url = "{url}"\n' for name, url in upstreams.items())
        path.write_text("".join(tables) + more)
        return start_service(config=path, log_format="json", retry_wait=0.01, **(settings or {}))

    return start


def model(*route: str, name: str = "m", more: str = "") -> str:
    return f'[[models]]\nname = "{name}"\nroute = {json.dumps(route)}\n{more}\n'


def ask(service: Server, **body: Any) -> list[httpx_sse.ServerSentEvent]:
    with (
        httpx.Client(timeout=60) as client,
        httpx_sse.connect_sse(client, "POST", f"{service.url}/v1/chat", json={"prompt": "hi", **body}) as source,
    ):
        return list(source.iter_sse())


def ended(service: Server) -> dict[str, Any]:
    """Return the canonical line of the last stream that ended."""
    pattern = r'(?m)^\{.*"event": ?"stream\.(?:finished|failed)".*\}$'
    service.awaits(pattern)
    line: dict[str, Any] = json.loads(re.findall(pattern, service.text())[-1])
    return line


def closed() -> str:
    return f"http://127.0.0.1:{free_port()}/v1"


def test_a_dead_upstream(simulator: Server, serve: Serve) -> None:
    """Where the first choice cannot be reached the second answers; the start event and the log say so."""
    service = serve(a=closed(), b=simulator.url)
    events = ask(service, model=QUICK)
    start, done = events[0].json(), events[-1]
    assert (events[0].event, start["fallback"], start["model"]) == ("start", "b", QUICK)
    assert (done.event, done.json()["finish_reason"]) == ("done", "stop")
    line = ended(service)
    assert (line["event"], line["upstream"], line["upstream_fallback"]) == ("stream.finished", "b", True)


def test_the_first_choice(simulator: Server, serve: Serve) -> None:
    """Where the first choice answers, no event and no log line tells of a fallback."""
    service = serve(a=simulator.url, b=closed())
    events = ask(service, model=QUICK)
    assert "fallback" not in events[0].json()
    assert (ended(service)["upstream"], ended(service)["upstream_fallback"]) == ("a", False)


def test_a_failing_model(simulator: Server, other: Server, serve: Serve) -> None:
    """An alias leads to a model that fails, then, after one try, to another upstream's under its own name."""
    service = serve(model("a/error-503?first=0", f"b/{QUICK}"), a=simulator.url, b=other.url)
    events = ask(service, model="m")
    assert (events[0].json()["model"], events[0].json()["fallback"], events[-1].event) == ("m", "b", "done")
    assert (stats(simulator)["requests"], stats(other)["requests"]) == (1, 1)


def test_not_after_content(simulator: Server, other: Server, serve: Serve) -> None:
    """An upstream that fails in the middle of its answer is not replaced: the stream ends with the error."""
    service = serve(model("a/cut-reset?first=0&after=3", f"b/{QUICK}"), a=simulator.url, b=other.url)
    events = ask(service, model="m")
    assert (events[-1].event, events[-1].json()["error"]["code"]) == ("error", "upstream_disconnected")
    assert "fallback" not in events[0].json()
    assert stats(other)["requests"] == 0
    assert ended(service)["upstream"] == "a"


def test_not_for_a_wrong_request(simulator: Server, other: Server, serve: Serve) -> None:
    """What the first choice refuses as wrong is the client's answer; no other upstream is paid for it."""
    service = serve(model("a/error-400?first=0", f"b/{QUICK}"), a=simulator.url, b=other.url)
    answer = httpx.post(f"{service.url}/v1/chat", json={"prompt": "hi", "model": "m"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "upstream_rejected")
    assert stats(other)["requests"] == 0


def test_all_fail(simulator: Server, serve: Serve) -> None:
    """If no upstream answers, the client is told when to come back, as one of them said."""
    text = model("a/error-429?first=0&retry_after=30", "b/x")
    service = serve(text, {"retry_attempts": 2}, a=simulator.url, b=closed())
    answer = httpx.post(f"{service.url}/v1/chat", json={"prompt": "hi", "model": "m"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "upstream_rate_limited")
    assert answer.headers["retry-after"] == "30"
    line = ended(service)
    assert (line["event"], line["upstream"], line["upstream_attempts"]) == ("stream.failed", "b", 3)


def test_a_silent_upstream(simulator: Server, other: Server, serve: Serve) -> None:
    """One that is silent past its time, and past the commit: 200 and keep-alives first, then the other one's answer."""
    silent = f'[[upstreams]]\nname = "a"\nbase_url = "{other.url}"\nfirst_token_timeout = 1.0\n'
    text = f'{silent}[[upstreams]]\nname = "b"\nbase_url = "{simulator.url}"\n'
    text += model("a/slow-content?first=0&seconds=60", f"b/{QUICK}")
    service = serve(text, {"commit_after": 0.2, "keep_alive": 0.1})
    body = {"prompt": "hi", "model": "m"}
    with httpx.stream("POST", f"{service.url}/v1/chat", json=body, timeout=60) as answer:
        assert answer.status_code == 200
        blocks = "".join(answer.iter_text()).split("\n\n")
    assert ":" in blocks[0].splitlines()
    events = [block for block in blocks if "event: " in block]
    assert "event: start" in events[0]
    assert '"fallback":"b"' in events[0]
    assert "event: done" in events[-1]
    wait_until(lambda: stats(other)["live"] == 0)
    assert ended(service)["upstream"] == "b"


def test_a_client_that_leaves_meanwhile(simulator: Server, other: Server, serve: Serve) -> None:
    """A client that leaves while the first is being waited for aborts it, and the second is not asked."""
    service = serve(model("a/slow-headers?seconds=60", f"b/{QUICK}"), a=simulator.url, b=other.url)
    body = {"prompt": "hi", "model": "m", "on_disconnect": "cancel"}
    with connect(service) as client:
        client.sendall(request(CHAT, body=json.dumps(body).encode()))
        wait_until(lambda: stats(simulator)["requests"] == 1)
    wait_until(lambda: stats(simulator)["live"] == 0)
    assert ended(service)["reason"] == "cancelled"
    assert stats(other)["requests"] == 0


def test_what_may_be_asked(simulator: Server, serve: Serve) -> None:
    """A model that is not offered is 403, what is over a cap 400 with the field's name; the cap goes upstream."""
    text = model(f"a/{QUICK.replace('tokens=5', 'tokens=50')}", more="max_output_tokens = 3\nmax_messages = 1")
    service = serve(text, a=simulator.url)
    url = f"{service.url}/v1/chat"
    for body, status, param in (
        ({"prompt": "hi", "model": QUICK}, 403, "model"),
        ({"prompt": "hi", "max_tokens": 4}, 400, "max_tokens"),
        ({"messages": [{"role": "user", "content": "hi"}] * 2}, 400, "messages"),
    ):
        answer = httpx.post(url, json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    events = ask(service)
    assert (events[0].json()["model"], events[-1].json()["finish_reason"]) == ("m", "length")


@contextmanager
def echo() -> Iterator[tuple[str, list[Any]]]:
    """Serve an upstream that refuses everything, quoting all of it. Gives its base URL and the bodies that it got."""
    bodies: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            bodies.append(json.loads(raw))
            said = "; ".join(message["content"] for message in bodies[-1]["messages"])
            answer = json.dumps({"error": {"message": f"I will not: {said}. Body: {raw.decode()}"}}).encode()
            self.send_response(500 if "fail" in said else 400)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Be silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", bodies
        finally:
            server.shutdown()
            thread.join()


def test_the_system_message_is_the_servers_own(serve: Serve) -> None:
    """It goes upstream first, and from an upstream that quotes it neither to the client nor into the log."""
    with echo() as (url, bodies):
        service = serve(
            model("a/x", more=f"system = {json.dumps(SYSTEM)}"), {"log_level": "debug", "retry_attempts": 1}, a=url
        )
        prompts = ("hello, hello", "hello, hello, fail")
        answers = [httpx.post(f"{service.url}/v1/chat", json={"prompt": prompt}) for prompt in prompts]
        own = [{"role": "system", "content": "Be mine."}, {"role": "user", "content": "hi"}]
        refused = httpx.post(f"{service.url}/v1/chat", json={"messages": own})
        wait_until(lambda: service.text().count("stream.failed") == 2)
    assert [answer.status_code for answer in answers] == [400, 502]
    assert bodies[0]["messages"] == [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "hello, hello"}]
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages[0].role")
    for answer in answers:
        assert "I will not: [redacted]" in answer.text
    assert "hello, hello" not in service.text()
    seen = service.text() + "".join(answer.text for answer in (*answers, refused))
    for piece in (*SYSTEM.splitlines(), "Marvin", "diodes"):
        assert piece not in seen
