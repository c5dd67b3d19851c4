"""The real clients of AG-UI: `HttpAgent` of `@ag-ui/client`, and TanStack AI's chat, in Node.

`HttpAgent` checks each event against the protocol's schema, and the events' order with its `verifyEvents`. It warns of
what it does not know.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest

from app.edge.bodies import Defaults
from app.edge.dialects.ag_ui import parse_run
from app.wire import Reading
from app.wire.ag_ui import RunEncoder, asked_of
from app.wire.openai import completion
from app.wire.transcript import Transcript
from tests.real.node import Node
from tests.real.processes import Server, launch, stats
from tests.real.proxy import Cut, Proxy
from tests.wire.answers import ENDS, EVERYTHING, STOP, STREAM_ID, encoded

pytestmark = pytest.mark.real

TEXT = "Hello, 你好, สวัสดี, مرحبا 👩‍👩‍👧‍👦! \u2028 A stream belongs to the server, not to a connection.\n" * 2
FAST = "?rate=0&first=0"
USER = {"id": "u", "role": "user", "content": TEXT}
TOOLS = [{"name": "look_up", "description": "", "parameters": {"type": "object"}}]


class Agents(Node):
    def runs(self, url: str, *runs: dict[str, Any], **arguments: Any) -> list[dict[str, Any]]:
        """Have `HttpAgent` do *runs*, and return what it made of each. It has to find nothing odd in any."""
        found = self("ag-ui", url=url, runs=runs, **arguments)
        assert [run.pop("warnings") for run in found] == [[]] * len(found)
        return found


@pytest.fixture(scope="module")
def node() -> Agents:
    return Agents()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), simulator, keep_alive=0.05, retry_wait=0.01)
    yield server
    server.stop()


def asking(model: str, message: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"message": message or USER, "input": {"forwardedProps": {"model": model}, **more}}


def test_a_conversation(node: Agents, service: Server) -> None:
    """Two runs of a conversation are answered, each with one message and its usage."""
    second = {**USER, "id": "v", "content": "more"}
    url = f"{service.url}/v1/ag-ui"
    runs = node.runs(url, asking(f"sim-echo{FAST}"), asking(f"sim-echo{FAST}", second))
    assert [run["error"] for run in runs] == [None, None]
    assert [(message["role"], message["content"]) for message in runs[1]["messages"]] == [
        ("user", TEXT),
        ("assistant", TEXT),
        ("user", "more"),
        ("assistant", "more"),
    ]
    assert runs[0]["finished"]["outcome"] == {"type": "success"}
    assert runs[0]["finished"]["usage"][0]["outputTokens"] > 0


def test_reasoning_and_refusal(node: Agents, service: Server) -> None:
    """Reasoning is a message before the answer; a refusal is one that says that it is one."""
    url = f"{service.url}/v1/ag-ui"
    (thought,) = node.runs(url, asking(f"reasoning{FAST}"))
    assert [message["role"] for message in thought["messages"]] == ["user", "reasoning", "assistant"]
    (refused,) = node.runs(url, asking(f"refusal{FAST}"))
    assert refused["messages"][-1]["metadata"] == {"chat-sse": {"refusal": True}}


def test_tools(node: Agents, service: Server) -> None:
    """Calls are pending when the run is over, and their outputs are answered in the next."""
    url = f"{service.url}/v1/ag-ui"
    (called,) = node.runs(url, asking(f"tools{FAST}", tools=TOOLS))
    calls = called["messages"][-1]["toolCalls"]
    assert called["finished"]["outcome"]["pendingToolCallIds"] == [call["id"] for call in calls]
    for call in calls:
        json.loads(call["function"]["arguments"])
    outputs = [
        {"id": f"t{n}", "role": "tool", "toolCallId": call["id"], "content": "42"} for n, call in enumerate(calls)
    ]
    (answered,) = node.runs(
        url, asking(f"sim-gpt{FAST}", outputs.pop(), tools=TOOLS), messages=[*called["messages"], *outputs]
    )
    assert answered["error"] is None
    assert answered["messages"][-1]["content"]


def test_failures(node: Agents, service: Server) -> None:
    """A failure in the middle is the run's error; one before the first event is a status, with our sentence."""
    url = f"{service.url}/v1/ag-ui"
    (broken,) = node.runs(url, asking(f"error-in-stream{FAST}&after=1"))
    assert broken["error"]["code"].startswith("upstream_")
    (refused,) = node.runs(url, asking(f"error-429{FAST}"))
    assert (refused["error"]["status"], "upstream_rate_limited" in refused["error"]["message"]) == (429, True)


@contextmanager
def canned(body: bytes) -> Iterator[tuple[str, list[Any]]]:
    """Serve *body* as an event stream; give its URL, and the bodies that were sent there."""
    asked: list[Any] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_a_whole_answer_and_back(node: Agents) -> None:
    """Everything that an answer can have passes the client's checks, and goes back upstream as it came."""
    reading = Reading(STREAM_ID, asked=asked_of("t", "r"))
    whole = completion(STREAM_ID, Transcript.of([*EVERYTHING, STOP]))["choices"][0]["message"]
    outputs = [
        {"id": call["id"], "role": "tool", "toolCallId": call["id"], "content": "42"} for call in whole["tool_calls"]
    ]
    with canned(encoded(RunEncoder(reading), [*EVERYTHING, STOP])) as (url, asked):
        (first,) = node.runs(url, asking("m"))
        node.runs(url, asking("m", {**USER, "id": "v"}), messages=[*first["messages"], *outputs])
    assert first["error"] is None
    assert [message["role"] for message in first["messages"]] == ["user", "reasoning", "assistant", "assistant"]
    sent = asyncio.run(parse_run(asked[1], Defaults("m", "auto", 0, 0))).stream.messages
    # What is for the page: media and notes. The refusal is a message of its own.
    others = ("refusal", "annotations", "images", "audio")
    expected = {name: value for name, value in whole.items() if name not in others}
    assert sent[1] == {**expected, "content": "Hello, world"}
    assert sent[2] == {"role": "assistant", "content": "no"}


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_every_end(node: Agents, end: Any) -> None:
    """However an answer ends, the client finds its events in order."""
    with canned(encoded(RunEncoder(Reading(STREAM_ID)), [*EVERYTHING, end])) as (url, _):
        (run,) = node.runs(url, asking("m"))
    assert ("finished" in run) is (run["error"] is None)


def test_tanstack_comes_back(node: Agents, service: Server, simulator: Server) -> None:
    """TanStack's chat comes back after each cut with the same POST: its text is whole, and was generated once."""
    text = TEXT.strip()  # as TanStack's client sends it
    with Proxy(service.url, [Cut(blocks=5), Cut(octets=900, reset=True), Cut(octets=700)]) as proxy:
        before = stats(simulator)
        (found,) = node(
            "tanstack-chat", url=f"{proxy.url}/v1/ag-ui", body={"model": "sim-echo?rate=60&first=0"}, text=text
        )
        assert (found["status"], found["error"]) == ("ready", None)
        assert [message["role"] for message in found["messages"]] == ["user", "assistant"]
        assert [part["content"] for part in found["messages"][1]["parts"]] == [text]
        positions = proxy.header("last-event-id")
        assert positions[0] is None
        assert len([position for position in positions if position]) == 3
        assert stats(simulator)["requests"] == before["requests"] + 1


def test_tanstack_after_a_cut_at_every_event(node: Agents, start_service: Any, simulator: Server) -> None:
    """Each connection but the last breaks after one event, and the text is whole: it gets each event once."""
    service = start_service(simulator)
    text = TEXT.strip()
    body = {"model": f"sim-echo{FAST}", "chunk": "size:8"}
    told = {"threadId": "t", "runId": "r", "messages": [{**USER, "content": text}], "forwardedProps": body}
    events = httpx.post(f"{service.url}/v1/ag-ui", json=told).text.count("\n\n")
    with Proxy(service.url, [Cut(blocks=1)] * (events - 1)) as proxy:
        before = stats(simulator)
        url = f"{proxy.url}/v1/ag-ui"
        (found,) = node("tanstack-chat", url=url, body=body, text=text, reconnect={"delayMs": 0})
        assert (found["status"], found["error"]) == ("ready", None)
        assert [part["content"] for part in found["messages"][1]["parts"]] == [text]
        positions = proxy.header("last-event-id")
        assert len(set(positions)) == len(positions) == events > 20
        assert stats(simulator)["requests"] == before["requests"] + 1


def test_tanstack_after_a_reload(node: Agents, service: Server, simulator: Server) -> None:
    """A page that knows its thread only finds the run that is live, and has its text from the start."""
    text = TEXT.strip()
    before = stats(simulator)
    (found,) = node(
        "tanstack-reload", url=f"{service.url}/v1/ag-ui", body={"model": "sim-echo?rate=30&first=0"}, text=text
    )
    assert found["error"] is None
    assert (found["status"], found["text"], found["joined"]) == ("ready", text, text)
    assert [bool(name) for name in found["names"]] == [True, False, False, False]  # the thread, its run, the run again
    assert stats(simulator)["requests"] == before["requests"] + 1


def test_tanstack_reads_reasoning(node: Agents, service: Server) -> None:
    """Reasoning and text are parts of one message."""
    url = f"{service.url}/v1/ag-ui"
    (thought,) = node("tanstack-chat", url=url, body={"model": f"reasoning{FAST}"}, text="hi")
    assert thought["error"] is None
    assert [part["type"] for message in thought["messages"][1:] for part in message["parts"]] == ["thinking", "text"]
    assert len(thought["messages"]) == 2
