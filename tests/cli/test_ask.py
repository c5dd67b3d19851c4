"""`chat-sse ask`: what it prints, and the exit status of each end. `tests/real` asks a real service."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.cli import main
from tests.ports import free_port


def event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


START, DELTA = event("start", {}), event("delta", {"content": "Hi."})


class _Answers(BaseHTTPRequestHandler):
    """A service whose answer is named by the prompt."""

    said: list[dict[str, str]]
    keys: list[str | None]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.said.append(body)
        self.keys.append(self.headers["authorization"])
        status, kind, answer = {
            "done": (200, "text/event-stream", START + DELTA + event("done", {"finish_reason": "stop"})),
            "short": (200, "text/event-stream", START + DELTA + event("done", {"finish_reason": "length"})),
            "error": (200, "text/event-stream", START + DELTA + event("error", {"error": {"message": "It broke."}})),
            "cut": (200, "text/event-stream", START + DELTA),
            "refused": (429, "application/json", b'{"error":{"message":"Too many requests."}}'),
            "nonsense": (502, "text/html", b"<html>"),
        }[body["prompt"]]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Be silent."""


@pytest.fixture
def service() -> Iterator[ThreadingHTTPServer]:
    _Answers.said, _Answers.keys = [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("prompt", "status", "out", "err"),
    [
        ("done", 0, "Hi.\n", ""),
        ("short", 1, "Hi.\n", "chat-sse: ended by length\n"),
        ("error", 1, "Hi.\n", "chat-sse: It broke.\n"),
        ("cut", 1, "Hi.\n", "chat-sse: the answer was cut off\n"),
        ("refused", 1, "", "chat-sse: Too many requests.\n"),
        ("nonsense", 1, "", "chat-sse: the service answered with an error\n"),
    ],
)
def test_ends(
    service: ThreadingHTTPServer,
    capsys: pytest.CaptureFixture[str],
    prompt: str,
    status: int,
    out: str,
    err: str,
) -> None:
    """The answer is on stdout, and any other end than the usual one is told on stderr with status 1."""
    assert main(["ask", prompt, "--url", f"http://127.0.0.1:{service.server_port}"]) == status
    assert capsys.readouterr() == (out, err)


def test_what_it_asks(service: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The options go into the request, and the key comes from the option or from the environment."""
    where = ["--url", f"http://127.0.0.1:{service.server_port}"]
    monkeypatch.setenv("CHAT_SSE_KEY", "csk_environment")
    assert main(["ask", "done", *where]) == 0
    assert main(["ask", "done", "--model", "m", "--chunk", "word", "--key", "csk_option", *where]) == 0
    assert _Answers.said == [{"prompt": "done"}, {"prompt": "done", "model": "m", "chunk": "word"}]
    assert _Answers.keys == ["Bearer csk_environment", "Bearer csk_option"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["ask", "\udcff"], "the prompt is not UTF-8"),
        (["ask", "x", "--key", "café"], "the key is not printable ASCII"),
        (["ask", "x", "--url", "http://127.0.0.1:{port}"], "http://127.0.0.1:{port}: "),
    ],
)
def test_what_cannot_be_asked(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake is a sentence and no traceback."""
    port = free_port()
    assert main([argument.replace("{port}", str(port)) for argument in arguments]) == 1
    assert capsys.readouterr().err.startswith(f"chat-sse: {complaint.replace('{port}', str(port))}")


def test_certificates_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A wrong `SSL_CERT_FILE` is told in a sentence."""
    (tmp_path / "empty.pem").write_text("")
    for name in ("none.pem", "empty.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / name))
        assert main(["ask", "hi", "--url", "http://127.0.0.1:1"]) == 1
        assert "SSL_CERT_FILE" in capsys.readouterr().err
