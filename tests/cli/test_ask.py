"""`chat-sse ask`: what it prints, and the exit status of each end. `tests/real` asks a real service."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app import __version__
from app.cli import main
from tests.ports import free_port


def stream(*events: tuple[str, object]) -> bytes:
    blocks = [
        f"id: s-{number}\nevent: {name}\ndata: {json.dumps(data)}\n\n" for number, (name, data) in enumerate(events, 1)
    ]
    return "".join(blocks).encode()


START = ("start", {"stream_id": "s"})
DELTA = ("delta", {"content": "Hi."})
DONE = ("done", {"finish_reason": "stop"})
CALL = ("done", {"finish_reason": "tool_calls"})
PICTURE = {"type": "image", "media_type": "image/png", "url": f"data:image/png;base64,{'A' * 100}"}
NOTES = {"annotations": [{"type": "url_citation", "url_citation": {"url": "https://example.com/a"}}]}
ANSWERS = {
    "done": stream(START, DELTA, DONE),
    "short": stream(START, DELTA, ("done", {"finish_reason": "length"})),
    "error": stream(START, DELTA, ("error", {"error": {"message": "It broke."}})),
    "refusal": stream(START, ("refusal", {"content": "I would "}), ("refusal", {"content": "rather not."}), DONE),
    "tool": stream(
        START,
        ("tool_call", {"index": 0, "id": "c", "name": "weather", "arguments": '{"city":'}),
        ("tool_call", {"index": 0, "arguments": '"Rome"}'}),
        CALL,
    ),
    "picture": stream(START, ("delta", {"content": "See:"}), ("media", PICTURE), ("annotation", NOTES), DONE),
    "reasoning": stream(START, ("reasoning", {"content": "Hm."}), ("extra", {"chunk": {"a": 1}}), DELTA, DONE),
}
REFUSALS = {
    "refused": (429, b'{"error":{"message":"Too many requests."}}'),
    "nonsense": (502, b"<html>"),
}


class _Answers(BaseHTTPRequestHandler):
    """A service whose answer is named by the last message. It knows no stream that is to be resumed."""

    said: list[dict[str, object]]
    keys: list[str | None]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.said.append(body)
        self.keys.append(self.headers["authorization"])
        prompt = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        status, answer = REFUSALS.get(prompt) or (200, ANSWERS[prompt])
        self.send_response(status)
        self.send_header("Content-Type", "text/event-stream")
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
        ("short", 5, "Hi.\n", "chat-sse: the answer ended early: length\n"),
        ("error", 1, "Hi.\n", "chat-sse: It broke.\n"),
        ("refused", 3, "", "chat-sse: Too many requests.\n"),
        ("nonsense", 3, "", "chat-sse: the service answered with an error\n"),
        ("refusal", 0, "I would rather not.\n", ""),
        ("tool", 0, '[tool call: weather({"city":"Rome"})]\n', ""),
        (
            "picture",
            0,
            "See:\n[image: data:image/png;base64,AAAAAAAAAAAAAAAAAA… (122 characters)]\n[source: https://example.com/a]\n",
            "",
        ),
        ("reasoning", 0, "Hi.\n", ""),
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
    """The answer is on stdout; any other end than the usual one is told on stderr, with a status of its own."""
    assert main(["ask", prompt, "--url", f"http://127.0.0.1:{service.server_port}"]) == status
    assert capsys.readouterr() == (out, err)


def test_events_as_json(service: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--json`, each event is a line, the terminal one included; the exit status is the same."""
    assert main(["ask", "short", "--json", "--url", f"http://127.0.0.1:{service.server_port}"]) == 5
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        {"id": "s-1", "event": "start", "data": {"stream_id": "s"}},
        {"id": "s-2", "event": "delta", "data": {"content": "Hi."}},
        {"id": "s-3", "event": "done", "data": {"finish_reason": "length"}},
    ]


def test_a_prompt_from_a_pipe(service: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a prompt among the arguments, it is all of standard input; a system message goes first."""
    monkeypatch.setattr("sys.stdin", io.StringIO("done"))
    assert main(["ask", "--system", "Be brief.", "--url", f"http://127.0.0.1:{service.server_port}"]) == 0
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "done"}]
    assert _Answers.said == [{"messages": messages}]


def test_a_conversation(
    service: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `--chat`, each line is a prompt, and is asked with the turns before it that were answered."""
    monkeypatch.setattr("sys.stdin", io.StringIO("refused\n\ndone\n"))
    assert main(["ask", "reasoning", "--chat", "--url", f"http://127.0.0.1:{service.server_port}"]) == 0
    first = [{"role": "user", "content": "reasoning"}]
    answered = [*first, {"role": "assistant", "content": "Hi."}]
    assert [body["messages"] for body in _Answers.said] == [
        first,
        [*answered, {"role": "user", "content": "refused"}],
        [*answered, {"role": "user", "content": "done"}],
    ]
    assert capsys.readouterr() == ("Hi.\nHi.\n", "chat-sse: Too many requests.\n")


def test_what_it_asks(service: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The options go into the request, and the key comes from the option or from the environment."""
    where = ["--url", f"http://127.0.0.1:{service.server_port}"]
    monkeypatch.setenv("CHAT_SSE_KEY", "csk_environment")
    assert main(["ask", "done", *where]) == 0
    assert main(["ask", "done", "--model", "m", "--chunk", "word", "--key", "csk_option", *where]) == 0
    assert _Answers.said == [{"prompt": "done"}, {"prompt": "done", "model": "m", "chunk": "word"}]
    assert _Answers.keys == ["Bearer csk_environment", "Bearer csk_option"]


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["ask", "\udcff"], 2, "the prompt is not UTF-8"),
        (["ask", "x", "--key", "café"], 2, "the key is not printable ASCII"),
        (["ask", "x", "--url", "http://127.0.0.1:{port}"], 4, "http://127.0.0.1:{port}: "),
        (["ask", "x", "--url", "http://[::1"], 2, "http://[::1: "),
    ],
)
def test_what_cannot_be_asked(
    arguments: list[str], status: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake is a sentence and no traceback."""
    port = free_port()
    assert main([argument.replace("{port}", str(port)) for argument in arguments]) == status
    assert capsys.readouterr().err.startswith(f"chat-sse: {complaint.replace('{port}', str(port))}")


def test_certificates_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A wrong `SSL_CERT_FILE` is told in a sentence."""
    (tmp_path / "empty.pem").write_text("")
    for name in ("none.pem", "empty.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / name))
        assert main(["ask", "hi", "--url", "http://127.0.0.1:1"]) == 2
        assert "SSL_CERT_FILE" in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`-V` is `--version`."""
    for option in ("-V", "--version"):
        with pytest.raises(SystemExit) as ended:
            main([option])
        assert ended.value.code == 0
        assert capsys.readouterr().out == f"chat-sse {__version__}\n"


@pytest.mark.parametrize("command", ["serve", "ask", "key", "check", "simulate"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command's `--help` has a description and an example."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "example" in said
    assert f"chat-sse {command}" in said.partition("example")[2]
    assert len(said.splitlines()[2]) > 20  # the description
