"""Behind the real nginx, with the very file that deploy/ ships."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.real.conftest import Start
from tests.real.processes import ROOT, Server, left_unread
from tests.upstream.raw import CHUNK, FINISH
from tests.waiting import wait_until

pytestmark = pytest.mark.real

DELTAS = 10
CONFIG = (ROOT / "deploy" / "nginx.conf").read_text()


@pytest.fixture
def service(start_service: Start, simulator: Server) -> Server:
    return start_service(simulator, on_disconnect="cancel")


@pytest.fixture
def nginx(start_nginx: Start, service: Server) -> Server:
    return start_nginx(service)


def curl(url: str, **body: object) -> list[str]:
    return ["curl", "-sSN", f"{url}/v1/chat", "-d", json.dumps({"prompt": "hi", **body})]


def test_deltas_arrive_as_they_are_sent(start_service: Start, start_nginx: Start) -> None:
    """Through nginx, curl -N gets each delta before the upstream sends the next."""
    arrived = threading.Semaphore(0)

    class StepByStep(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            for _ in range(DELTAS):
                self.wfile.write(CHUNK % b"word")
                if not arrived.acquire(timeout=30):
                    break  # it has been buffered
            self.wfile.write(FINISH)

        def log_message(self, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), StepByStep) as upstream:
        thread = threading.Thread(target=upstream.serve_forever, args=(0.02,))
        thread.start()
        try:
            nginx = start_nginx(start_service(f"http://127.0.0.1:{upstream.server_port}/v1"))
            deltas = 0
            with subprocess.Popen(curl(nginx.url), stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    if line.startswith(b"event: delta"):
                        deltas += 1
                        arrived.release()
            assert process.returncode == 0
            assert deltas == DELTAS
        finally:
            upstream.shutdown()
            thread.join()


def test_the_answer_is_whole(nginx: Server) -> None:
    """What comes out of nginx is byte for byte what the service sends: no event lost, none invented, one terminal."""
    text = "Ünïcödé 你好 👩‍👧 " * 200
    out = subprocess.run(curl(nginx.url, prompt=text, model="sim-echo?rate=0&first=0"), capture_output=True, check=True)
    blocks = [
        dict(line.split(": ", 1) for line in block.split("\n")) for block in out.stdout.decode().split("\n\n")[:-1]
    ]
    assert "".join(json.loads(b["data"])["content"] for b in blocks if b["event"] == "delta") == text
    assert [b["event"] for b in blocks if b["event"] in ("done", "error")] == ["done"]


def test_an_abort_reaches_upstream(nginx: Server, service: Server, counted: Callable[[], dict[str, int]]) -> None:
    """curl killed mid-answer: nginx lets the service go, and the service the upstream."""
    with subprocess.Popen(curl(nginx.url, model="never-ends"), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(b"event: delta"):
                break
        process.kill()
    wait_until(lambda: counted()["streams_aborted"] == 1)
    assert not left_unread(service)


def test_a_killed_service_is_a_cut_not_an_end(nginx: Server, service: Server, tmp_path: Path) -> None:
    """kill -9 mid-answer: the reader sees a transfer that broke (curl 18), and no terminal event."""
    out = tmp_path / "out"
    with out.open("wb") as stdout, subprocess.Popen(curl(nginx.url, model="never-ends"), stdout=stdout) as process:
        wait_until(lambda: b"event: delta" in out.read_bytes())
        service.send(signal.SIGKILL)
        assert process.wait(60) == 18
    assert b"event: done" not in out.read_bytes()
    assert b"event: error" not in out.read_bytes()


def test_errors_and_ids_pass_through(nginx: Server) -> None:
    """Statuses, error bodies and request ids are the service's own; nginx only adds an id where there was none."""
    answer = httpx.post(f"{nginx.url}/v1/chat", json={"nonsense": 1}, headers={"X-Request-Id": "mine"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (400, "mine")
    assert answer.json()["error"]["param"] == "nonsense"
    assert len(httpx.get(f"{nginx.url}/healthz").headers["x-request-id"]) == 32
    large = httpx.post(f"{nginx.url}/v1/chat", content=b"x" * (2 << 20))
    assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")


def test_a_service_that_is_not_there(nginx: Server, service: Server) -> None:
    """What nginx itself has to say is in the form of the service's errors, and says when to come back."""
    service.stop()
    answer = httpx.post(f"{nginx.url}/v1/chat", json={"prompt": "hi"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["code"] == "overloaded"


def test_connections_are_reused(nginx: Server, service: Server) -> None:
    """nginx keeps its connections to the service: many requests, few connections."""
    with httpx.Client() as client:
        for _ in range(20):
            client.get(f"{nginx.url}/healthz").raise_for_status()
    table = Path("/proc/net/tcp").read_text().splitlines()
    address = f"0100007F:{service.port:04X}"
    # Without keep-alive each would be closed after its answer, and none be left.
    assert sum(1 for row in table if row.split()[2] == address and row.split()[3] == "01") == 1


def test_both_families() -> None:
    """Whatever nginx listens on over IPv4, with TLS or without, it listens on over IPv6 as well."""
    listens = re.findall(r"^ *(?:# +)?listen +(\S+?)(;| [^;]*;)$", CONFIG, re.MULTILINE)
    four = [line for line in listens if not line[0].startswith("[::]:")]
    assert [(f"[::]:{port}", rest) for port, rest in four] == [line for line in listens if line not in four]
    assert len(four) == 3


def test_the_redirect_to_tls() -> None:
    """The server that sends plain http to https sends it to the operator's name, not to one that the request claims."""
    (target,) = re.findall(r"^ *# *return 301 (\S+);$", CONFIG, re.MULTILINE)
    assert target == "https://chat.example.com$request_uri"


def test_metrics_are_for_this_machine(nginx: Server) -> None:
    """nginx lets no other address read the metrics."""
    assert httpx.get(f"{nginx.url}/metrics").status_code == 200
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as stranger:
        assert stranger.get(f"{nginx.url}/metrics").status_code == 403
        for path in (
            "/metrics%0A",
            "/v1/chat%0A",
            "/metrics%00",
            "/metrics%0D%0A",
        ):
            assert stranger.get(f"{nginx.url}{path}").status_code in (400, 404)
        assert stranger.get(f"{nginx.url}/healthz").status_code == 200


def test_an_odd_request_id_is_not_echoed(nginx: Server) -> None:
    """What nginx says itself is JSON whatever the reader calls its request."""
    for odd in ('a"b', "a b", "\\"):
        answer = httpx.post(f"{nginx.url}/v1/chat", content=b" " * 1_500_000, headers={"X-Request-Id": odd})
        assert answer.status_code == 413
        assert answer.json()["error"]["request_id"] != odd
