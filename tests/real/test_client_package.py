"""The npm package of app/client/, packed, installed and used: in Node, and its types."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from zipfile import ZipFile

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from app.events import Event
from app.wire import Reading
from app.wire.ai_sdk import UIMessageEncoder
from app.wire.native import EventEncoder
from tests.real.node import CLIENTS, NODE, Installed, install
from tests.real.processes import ROOT, Server, launch, stats
from tests.real.proxy import Cut, Proxy
from tests.waiting import wait_until
from tests.wire.answers import EVERYTHING, STOP, STREAM_ID, STREAMS, ai_sdk, batches, blocks_of, encoded

pytestmark = pytest.mark.real

TEXT = "Hello, 你好, สวัสดี, مرحبا 👩‍👩‍👧‍👦! \u2028 A stream belongs to the server, not to a connection.\n" * 2
KEY = "csk_for-this-test-alone"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), simulator, reconnect_ms=50, retry_wait=0.01)
    yield server
    server.stop()


def read(package: Installed, url: str, **plan: Any) -> dict[str, Any]:
    """Read one stream of the service at *url* in Node, and return what came of it."""
    plan["options"] = {"url": f"{url}/v1/chat", **plan.get("options", {})}
    (found,) = package.run("package-read", **plan)
    return dict(found)


def losses(found: dict[str, Any]) -> list[float]:
    return [delay for state, delay, _ in found["news"] if state == "lost"]


def asked(proxy: Proxy) -> list[str]:
    return [head.split(" ")[0] for head in proxy.heads]


def test_a_stream(package: Installed, service: Server) -> None:
    """A stream is read to its end over one request."""
    with Proxy(service.url) as proxy:
        found = read(package, proxy.url, body={"prompt": TEXT, "model": "sim-echo?rate=0&first=0"})
        assert (found["text"], found["end"]["type"]) == (TEXT, "done")
        assert found["end"]["data"]["usage"]["total_tokens"] > 0
        assert found["news"] == [["open", None, None]]
        assert asked(proxy) == ["POST"]


def test_cuts(package: Installed, service: Server, simulator: Server) -> None:
    """Cut again and again at any byte, it goes on after the last event: each id once, one generation."""
    before = stats(simulator)["requests"]
    chance = random.Random(11)
    with Proxy(service.url) as proxy:
        proxy.plan(Cut(octets=chance.randrange(450, 2500), reset=chance.random() < 0.5) for _ in range(12))
        body = {"prompt": TEXT * 3, "model": "sim-echo?rate=200&first=0", "chunk": "none"}
        # Its `fetch` throws away what was not read when the cut came, so that all of them may pass without an event.
        found = read(package, proxy.url, body=body, options={"retries": 12, "maxDelay": 200})
        assert (found["text"], found["end"]["type"]) == (TEXT * 3, "done")
        numbers = [int(name.rpartition("-")[2]) for name, *_ in found["seen"]]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(losses(found)) >= 8
        assert asked(proxy).count("POST") == 1
    assert stats(simulator)["requests"] == before + 1


def test_attach(package: Installed, service: Server) -> None:
    """A stream is read again by its URL, from the start or after an event."""
    whole = read(package, service.url, body={"prompt": TEXT, "model": "sim-echo?rate=0&first=0", "chunk": "none"})
    assert read(package, service.url, attach=whole["url"])["text"] == TEXT
    after = {"after": whole["seen"][10][0]}
    rest = read(package, service.url, attach=whole["id"], options=after)
    said = "".join(data["content"] for _, kind, data in whole["seen"][11:] if kind == "delta")
    assert rest["text"] == said != ""


@pytest.mark.parametrize(
    ("plan", "status", "code"),
    [
        ({"body": {"nonsense": 1}}, 400, "bad_request"),
        ({"body": {"prompt": "hi"}, "key": None}, 401, "unauthenticated"),
        ({"body": {"prompt": "hi", "model": "other"}}, 403, "model_not_allowed"),
        ({"attach": "A" * 22}, 404, "unknown_stream"),
    ],
    ids=["400", "401", "403", "404"],
)
def test_what_is_final(
    package: Installed, start_service: Callable[..., Server], simulator: Server, plan: Any, status: int, code: str
) -> None:
    """What the service refuses is thrown with its status, code and message, and asked once."""
    hashed = subprocess.run(["sha256sum"], input=KEY, capture_output=True, text=True, check=True).stdout.split()[0]
    service = start_service(simulator, api_keys=f"page:{hashed}", models="sim-gpt,sim-echo")
    with Proxy(service.url) as proxy:
        found = read(package, proxy.url, **{"key": KEY, **plan})
        assert (found["known"], found["name"], found["status"], found["code"]) == (True, "ChatError", status, code)
        assert found["message"].endswith(".")
        assert (losses(found), len(asked(proxy))) == ([], 1)


class Canned:
    """A server that gives *answers*, (status, headers, body), one after another, and keeps the requests' keys."""

    def __init__(self, *answers: tuple[int, dict[str, str], str]) -> None:
        left = list(answers)
        self.keys: list[str] = []
        keys = self.keys

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                keys.append(self.headers["Idempotency-Key"])
                status, headers, body = left.pop(0)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._thread = Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Canned:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


WHOLE = (
    200,
    {"Content-Type": "text/event-stream", "X-Stream-Id": STREAM_ID},
    encoded(EventEncoder(Reading(STREAM_ID)), [*EVERYTHING, STOP]).decode(),
)
ERROR = json.dumps({"error": {"message": "Full.", "code": "overloaded", "retryable": True}})


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after(package: Installed, status: int) -> None:
    """A 429 or 503 is asked again with the same key, no earlier than its Retry-After says; one that is final, never."""
    again = {"Retry-After": "2", "X-Should-Retry": "true"}
    with Canned((status, again, ERROR), (status, again, ERROR), WHOLE) as server:
        found = read(package, server.url, body={"prompt": "hi"})
        assert found["end"]["type"] == "done"
        assert [delay >= 2000 for delay in losses(found)] == [True, True]
        assert len(server.keys) == 3
        assert len(set(server.keys)) == 1
    with Canned((status, {"X-Should-Retry": "false"}, ERROR)) as server:
        found = read(package, server.url, body={"prompt": "hi"})
        assert (found["status"], found["message"], losses(found)) == (status, "Full.", [])
    with Canned((status, {**again, "Retry-After": "60"}, ERROR)) as server:  # longer than it waits
        found = read(package, server.url, body={"prompt": "hi"})
        assert (found["status"], losses(found)) == (status, [])


def test_a_proxys_failures(package: Installed) -> None:
    """A 502 that a proxy made, with a page for people, is tried again; it is not the service's."""
    with Canned((502, {"Content-Type": "text/html"}, "<h1>Bad Gateway</h1>"), WHOLE) as server:
        found = read(package, server.url, body={"prompt": "hi"})
        assert found["end"]["type"] == "done"
        assert len(losses(found)) == 1


@pytest.mark.parametrize("stop_at", [0, 5], ids=["at once", "later"])
def test_stop(package: Installed, service: Server, simulator: Server, stop_at: int) -> None:
    """`cancel()` stops the upstream, and the stream ends as cancelled."""
    before = stats(simulator)["streams_aborted"]
    found = read(package, service.url, body={"prompt": "hi", "model": "never-ends?head=0.2"}, stopAt=stop_at)
    assert found["end"]["data"]["finish_reason"] == "cancelled"
    if stop_at:
        wait_until(lambda: stats(simulator)["streams_aborted"] == before + 1)
    wait_until(lambda: stats(simulator)["live"] == 0)


def test_stop_while_it_waits(package: Installed, tmp_path: Path, simulator: Server) -> None:
    """`cancel()` between two connections stops the upstream, and the end is read at once."""
    service = launch(tmp_path, simulator, reconnect_ms=600_000)
    try:
        with Proxy(service.url, [Cut(octets=2000)]) as proxy:
            body = {"prompt": "hi", "model": "never-ends?head=0.2"}
            found = read(package, proxy.url, body=body, stopLost=True, options={"maxDelay": 600_000})
        assert losses(found)[0] > 200_000
        assert found["end"]["data"]["finish_reason"] == "cancelled"
    finally:
        service.stop()


def test_leaving(package: Installed, service: Server, simulator: Server) -> None:
    """Leaving the loop closes the connection."""
    before = stats(simulator)["streams_aborted"]
    body = {"prompt": "hi", "model": "never-ends", "on_disconnect": "cancel"}
    read(package, service.url, body=body, leaveAt=3)
    wait_until(lambda: stats(simulator)["streams_aborted"] == before + 1)


class Parts:
    """What the package makes of native events for the AI SDK, in a process of its own."""

    def __init__(self, package: Installed) -> None:
        command = package.command("package-parts")
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, texts: list[str], *, continues: bool = False) -> list[dict[str, Any]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"batches": texts, "continues": continues}) + "\n")
        self._process.stdin.flush()
        found: list[dict[str, Any]] = json.loads(self._process.stdout.readline())
        return found

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def parts(package: Installed) -> Iterator[Parts]:
    parts = Parts(package)
    yield parts
    parts.end()


def check_parts(parts: Parts, events: list[Event], sizes: list[int], *, continues: bool) -> None:
    encode = EventEncoder(Reading(STREAM_ID, merge_after=2))
    texts = [encode(batch).decode() for batch in batches(events, sizes)]
    said = [{"data": json.dumps(part)} for part in parts(texts, continues=continues)]
    own = blocks_of(encoded(UIMessageEncoder(Reading(STREAM_ID), continues=continues), events))
    assert ai_sdk([*said, {"data": "[DONE]"}]) == ai_sdk(own)


@pytest.mark.parametrize("continues", [False, True])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_parts_of_everything(parts: Parts, size: int, continues: bool) -> None:
    """The package makes the same parts of native events, merged or not, as the service's own dialect does."""
    check_parts(parts, [*EVERYTHING, STOP], [size], continues=continues)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(STREAMS, st.lists(st.integers(1, 6), max_size=4), st.booleans())
def test_the_parts_of_any_stream(parts: Parts, events: list[Event], sizes: list[int], continues: bool) -> None:
    """So it does for any stream."""
    check_parts(parts, events, sizes, continues=continues)


def test_a_large_event_takes_linear_time(package: Installed) -> None:
    """An event of 4 MB takes about as long to parse in four thousand pieces as in one.

    Reading again what came before, with each piece, would take hundreds of times as long.
    """
    pieces, whole = package.run("package-parser", length=4_000_000, sizes=[1000, 4_000_000])
    assert pieces < 30 * max(whole, 1000)  # microseconds


def test_types(package: Installed) -> None:
    """A strict TypeScript program can use all of it, and what is wrong is an error."""
    program = package.folder / "package-types.ts"
    program.write_text((CLIENTS / program.name).read_text())
    compiler = install() / "typescript" / "bin" / "tsc"
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2023,dom,dom.iterable"]
    (package.folder / "package.json").write_text('{"type": "module"}')
    command = [NODE, str(compiler), *options, str(program)]
    done = subprocess.run(command, cwd=package.folder, capture_output=True, text=True, check=False)
    # Other packages' types want those of Node, which are not installed.
    wrong = [line for line in done.stdout.splitlines() if line[:1].strip() and install().parent.name not in line]
    assert wrong == []
    assert done.returncode in (0, 2), done.stderr  # it ran


def test_what_is_declared_is_exported(package: Installed) -> None:
    """Each name that the types declare is exported, and each one that is exported is declared."""
    program = """
        for (const name of ["chat-sse-client", "chat-sse-client/ai-sdk", "chat-sse-client/react"]) {
          console.log(JSON.stringify([name, Object.keys(await import(name)).sort()]));
        }
    """
    script = package.folder / "names.mjs"
    script.write_text(program)
    done = subprocess.run([NODE, str(script)], capture_output=True, text=True, check=True)
    exported = dict(json.loads(line) for line in done.stdout.splitlines())
    assert exported == {
        "chat-sse-client": ["ChatError", "ChatStream", "EventParser", "attach", "chat", "find"],
        "chat-sse-client/ai-sdk": ["ChatSseTransport"],
        "chat-sse-client/react": ["useChatSse"],
    }


def test_an_aborted_request_is_not_sent(package: Installed, service: Server) -> None:
    """A request that was aborted before the transport got it asks for nothing."""
    script = package.folder / "aborted.mjs"
    script.write_text(
        """
        import { ChatSseTransport } from "chat-sse-client/ai-sdk";
        const transport = new ChatSseTransport({ api: process.argv[2] });
        const abortSignal = AbortSignal.abort();
        const asked = { trigger: "submit-message", chatId: "a-chat-of-a-page", messages: [], abortSignal };
        await transport.sendMessages(asked).catch(({ name }) => console.log(name));
        await transport.reconnectToStream(asked).catch(({ name }) => console.log(name));
        """
    )
    with Proxy(service.url) as proxy:
        command = [NODE, str(script), f"{proxy.url}/v1/ai-sdk/chat"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.split() == ["AbortError"] * 2
        assert proxy.links == []


def test_the_wheel(tmp_path: Path) -> None:
    """A wheel has the module that the service serves, and no packages that somebody has installed beside it."""
    for name in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split():
        if name.startswith("app/") or "/" not in name:
            (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / "source" / name)
    module = tmp_path / "source" / "app" / "client" / "node_modules" / "ai" / "index.js"
    module.parent.mkdir(parents=True)
    module.write_text("")
    (tmp_path / "source" / ".gitignore").unlink()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path)]
    subprocess.run([*command, str(tmp_path / "source")], capture_output=True, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "app/client/client.js" in names
    assert not [name for name in names if "node_modules" in name]


def test_the_module_is_the_one_that_is_served(package: Installed, service: Server) -> None:
    """The package has what `/client.js` is."""
    packed = (package.folder / "node_modules" / "chat-sse-client" / "client.js").read_bytes()
    assert packed == httpx.get(f"{service.url}/client.js").content
