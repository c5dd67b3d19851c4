"""The real `ai` package reading and resuming what we send: in Node, and on a React page in Chromium.

In each test it checks every part against its own schema, and throws on one that is not in it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from app.edge.dialects.ui_messages import to_openai
from app.wire import Reading
from app.wire.ai_sdk import UIMessageEncoder
from app.wire.openai import completion
from app.wire.transcript import Transcript
from tests.real.browser import Door, opened
from tests.real.node import CLIENTS, NODE, Node, install
from tests.real.processes import Server, launch, stats
from tests.real.proxy import Cut, Proxy
from tests.waiting import wait_until
from tests.wire.answers import EVERYTHING, STOP, STREAM_ID, blocks_of, encoded

pytestmark = pytest.mark.real

TEXT = "Hello, 你好, สวัสดี, مرحبا 👩‍👩‍👧‍👦! \u2028 A stream belongs to the server, not to a connection.\n" * 2
FAST = "?rate=0&first=0"
SLOW = "sim-echo?rate=10&first=0"  # some six seconds for the text
CHAT = "/v1/ai-sdk/chat"
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("look_up", "convert")]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), simulator, keep_alive=0.05, retry_wait=0.01)
    yield server
    server.stop()


class Chats(Node):
    def chat(self, url: str, chat_id: str, *steps: Any, **arguments: Any) -> list[dict[str, Any]]:
        """Have the SDK's chat do *steps* at the service at *url*, and return how it was after each."""
        return self("ai-sdk", api=f"{url}{CHAT}", id=chat_id, steps=steps, **arguments)


@pytest.fixture(scope="module")
def node() -> Chats:
    return Chats()


@pytest.fixture
def chat_id(request: pytest.FixtureRequest) -> str:
    """An id of the test's own, with characters that need escaping in a path."""
    return f"Chat über {request.node.name}"


def user(text: str = "hi") -> dict[str, Any]:
    return {"id": "u", "role": "user", "parts": [{"type": "text", "text": text}]}


def body(model: str, **parameters: Any) -> dict[str, Any]:
    return {"id": "c", "messages": [user(TEXT)], "trigger": "submit-message", "model": model, **parameters}


def texts(message: dict[str, Any], kind: str = "text") -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == kind)


def roles(state: dict[str, Any]) -> list[str]:
    return [message["role"] for message in state["messages"]]


def read(node: Chats, service: Server, asked: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the parts of an answer, which passed the SDK's schema, and the message that the SDK makes of them."""
    head, *found, last = node("ai-sdk-read", url=f"{service.url}{CHAT}", body=asked)
    assert head == {"status": 200, "header": "v1"}
    return [line["part"] for line in found], last["message"]


def test_text(node: Chats, service: Server) -> None:
    """A text is one part of the message, whole, with its usage beside it."""
    parts, message = read(node, service, body(f"sim-echo{FAST}"))
    assert message["parts"] == [{"type": "step-start"}, {"type": "text", "text": TEXT, "state": "done"}]
    assert message["id"] == parts[0]["messageId"]
    assert parts[-1]["finishReason"] == "stop"
    assert message["metadata"]["usage"]["total_tokens"] > 0


def test_reasoning(node: Chats, service: Server) -> None:
    """Reasoning is a part of its own, before the text."""
    _, message = read(node, service, body(f"reasoning{FAST}"))
    assert [part["type"] for part in message["parts"]] == ["step-start", "reasoning", "text"]
    assert all(part["state"] == "done" and part["text"] for part in message["parts"][1:])


def test_refusal(node: Chats, service: Server) -> None:
    """A refusal is read as a text that says that it is one."""
    _, message = read(node, service, body(f"refusal{FAST}"))
    (refusal,) = message["parts"][1:]
    assert refusal["text"]
    assert refusal["providerMetadata"] == {"chat-sse": {"refusal": True}}


def test_messages(node: Chats) -> None:
    """What we send to the model for a page's messages is what the SDK's own OpenAI provider sends."""
    call = {"type": "tool-f", "toolCallId": "c1", "input": {"q": "é"}}
    other = {"type": "dynamic-tool", "toolName": "g", "toolCallId": "c2", "input": '{"q', "errorText": "no"}
    steps = [
        {"type": "step-start"},
        {"type": "text", "text": "a"},
        call | {"state": "output-available", "output": {"t": [1, None]}},
        other | {"state": "output-error"},
        {"type": "step-start"},
        {"type": "text", "text": "b"},
        {"type": "text", "text": "c"},
    ]
    denied = {"state": "output-denied", "approval": {"id": "1", "approved": False, "reason": "not now"}}
    unfinished = [{"type": "step-start"}, {"type": "text", "text": "a"}, call | {"state": "input-available"}]
    files = [
        {"type": "file", "mediaType": "image/png", "url": "https://example.com/a.png"},
        {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,iVBORw0KGgo="},
        {"type": "file", "mediaType": "audio/wav", "url": "data:audio/wav;base64,UklGRg=="},
        {"type": "file", "mediaType": "application/pdf", "url": "data:application/pdf;base64,JVBERg=="},
        {
            "type": "file",
            "mediaType": "application/pdf",
            "url": "data:application/pdf;base64,JVBERg==",
            "filename": "a",
        },
        {"type": "text", "text": "?"},
    ]
    chats: list[list[dict[str, Any]]] = [
        [{"role": "system", "parts": [{"type": "text", "text": "Be brief."}]}, user()],
        [user(), {"role": "assistant", "parts": steps}, user()],
        [user(), {"role": "assistant", "parts": [{"type": "step-start"}, call | denied]}],
        [user(), {"role": "assistant", "parts": unfinished}, user()],
        [{"role": "user", "parts": files}],
    ]
    sent = node("ai-sdk-messages", chats=chats)
    assert [to_openai(chat) for chat in chats] == sent


@contextmanager
def canned(body: bytes) -> Iterator[str]:
    """Serve *body* as an event stream; give its URL."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("X-Vercel-AI-UI-Message-Stream", "v1")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_whole_answer_and_back(node: Chats) -> None:
    """Everything that an answer can have passes the SDK's schema, and goes back upstream as it came."""
    data = encoded(UIMessageEncoder(Reading(STREAM_ID)), [*EVERYTHING, STOP])
    with canned(data) as url:
        head, *found, last = node("ai-sdk-read", url=url)
    assert head == {"status": 200, "header": "v1"}
    assert [line["part"] for line in found] == [
        json.loads(block["data"]) for block in blocks_of(data) if block["data"] != "[DONE]"
    ]
    message = last["message"]
    assert {part["type"] for part in message["parts"]} == {
        *("step-start", "reasoning", "text", "source-url", "file", "tool-mcp__get", "tool-run", "data-extra"),
    }
    for part in message["parts"]:
        if part["type"].startswith("tool-"):
            part |= {"state": "output-available", "output": "42"}
    whole = completion(STREAM_ID, Transcript.of([*EVERYTHING, STOP]))["choices"][0]["message"]
    notes = ("refusal", "annotations")  # for the page; a refusal is a text to it
    sent = {name: value for name, value in whole.items() if name not in notes}
    sent |= {"content": "Hello, worldno", "audio": {"id": "a"}}
    assert to_openai([user(), message])[1] == sent


def test_conversation(node: Chats, service: Server, chat_id: str) -> None:
    """A message is answered, the answer made again, and the next message answered: each message is there once."""
    model = {"model": f"sim-echo{FAST}"}
    first, again, second = node.chat(service.url, chat_id, ["send", "one"], ["regenerate"], ["send", TEXT], body=model)
    assert [roles(state) for state in (first, again, second)] == [["user", "assistant"]] * 2 + [
        ["user", "assistant"] * 2
    ]
    assert [texts(message) for message in second["messages"]] == ["one", "one", TEXT, TEXT]
    assert first["messages"][1]["id"] != again["messages"][1]["id"]
    assert (second["status"], second["finished"]["finishReason"]) == ("ready", "stop")


def test_tools(node: Chats, service: Server, chat_id: str) -> None:
    """The page gets whole calls, sends what they put out by itself, and the answer goes on with the same message."""
    options = {"body": {"model": f"tools{FAST}", "tools": TOOLS}}
    (asked,) = node.chat(service.url, chat_id, ["send", TEXT], **options)
    calls = asked["messages"][1]["parts"][1:]
    assert [(call["type"], call["state"]) for call in calls] == [
        ("tool-look_up", "input-available"),
        ("tool-convert", "input-available"),
    ]
    assert all(call["input"] == {"query": TEXT[:200], "city": "東京", "unit": "celsius"} for call in calls)
    assert asked["finished"]["finishReason"] == "tool-calls"
    outputs = [
        ["output", {"toolCallId": calls[0]["toolCallId"], "output": {"temperature": 21}}],
        ["output", {"toolCallId": calls[1]["toolCallId"], "state": "output-error", "errorText": "no such unit"}],
    ]
    steps = (*outputs, ["settled"], ["send", "thanks"])
    *_, answered, after = node.chat(service.url, chat_id, *steps, messages=asked["messages"], **options)
    assert answered["status"] == "ready"
    assert roles(answered) == ["user", "assistant"]
    assert [part["type"] for part in answered["messages"][1]["parts"]] == [
        *("step-start", "tool-look_up", "tool-convert"),
        *("step-start", "text"),
    ]
    assert answered["messages"][1]["id"] == asked["messages"][1]["id"]
    assert (after["status"], roles(after)) == ("ready", ["user", "assistant"] * 2)


def cut_short(node: Chats, service: Server, chat_id: str, *steps: Any, **options: Any) -> list[dict[str, Any]]:
    """Have a chat send the text and lose the connection in the middle of the answer, then do *steps*."""
    with Proxy(service.url, [Cut(blocks=15, reset=True)]) as proxy:
        broken, *rest = node.chat(proxy.url, chat_id, ["send", TEXT], *steps, body={"model": SLOW}, **options)
    assert broken["status"] == "error"
    assert TEXT.startswith(texts(broken["messages"][1]))
    assert 0 < len(texts(broken["messages"][1])) < len(TEXT)
    return [broken, *rest]


def whole(state: dict[str, Any]) -> None:
    """Assert that the page shows the question and the whole of the answer, once."""
    assert state["status"] == "ready"
    assert roles(state)[-2:] == ["user", "assistant"]
    assert len(state["messages"]) == 2
    assert texts(state["messages"][1]) == TEXT
    assert state["messages"][1]["parts"][-1]["state"] == "done"


def test_resume_on_the_same_page(node: Chats, service: Server, simulator: Server, chat_id: str) -> None:
    """A page whose connection broke reads the stream again, from its start, and has the answer whole, once."""
    asked = stats(simulator)["requests"]
    *_, resumed, again = cut_short(node, service, chat_id, ["resume"], ["resume"])
    whole(resumed)
    whole(again)  # there was nothing left to resume, and it changed nothing
    assert stats(simulator)["requests"] == asked + 1


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_resume_on_another_page(node: Chats, service: Server, chat_id: str, kept: int) -> None:
    """So does a page that was reloaded, whether it kept nothing, the question, or what it had of the answer."""
    (broken,) = cut_short(node, service, chat_id)
    (resumed,) = node.chat(service.url, chat_id, ["resume"], messages=broken["messages"][:kept])
    resumed["messages"] = [user(TEXT), *resumed["messages"]][-2:] if kept == 0 else resumed["messages"]
    whole(resumed)


def test_resume_an_answer_to_the_outputs_of_tools(node: Chats, service: Server, chat_id: str) -> None:
    """A reloaded page has it as a message of its own, and keeps the calls and their outputs."""
    call = {"type": "tool-f", "toolCallId": "c", "state": "output-available", "input": {}, "output": TEXT}
    kept = [user(TEXT), {"id": "a", "role": "assistant", "parts": [{"type": "step-start"}, call]}]
    model = {"model": SLOW}
    with Proxy(service.url, [Cut(blocks=15)]) as proxy:
        (broken,) = node.chat(proxy.url, chat_id, ["submit"], messages=kept, body=model)
    assert roles(broken) == ["user", "assistant"]
    assert 0 < len(texts(broken["messages"][1])) < len(TEXT)
    (resumed,) = node.chat(service.url, chat_id, ["resume"], messages=kept)
    assert resumed["status"] == "ready"
    assert resumed["messages"][:2] == kept
    (answer,) = resumed["messages"][2:]
    assert texts(answer) == TEXT


def test_positions(node: Chats, service: Server, chat_id: str) -> None:
    """Its transport gets exactly the rest after a position that its page names, and nothing after the last one."""
    asked = body(f"reasoning{FAST}", chunk="none") | {"id": chat_id}
    blocks = blocks_of(httpx.post(f"{service.url}{CHAT}", json=asked).content)
    whole = [json.loads(block["data"]) for block in blocks[:-1]]
    ids = [block["id"] for block in blocks]
    found = node("ai-sdk-positions", api=f"{service.url}{CHAT}", id=chat_id, positions=ids)
    assert found == [*(whole[count:] for count in range(1, len(ids))), None]


def test_nothing_to_resume(node: Chats, service: Server, chat_id: str) -> None:
    """A chat that nothing is live of is told so, and is as it was."""
    (state,) = node.chat(service.url, chat_id, ["resume"], messages=[user()])
    assert (state["status"], state["messages"]) == ("ready", [user()])


@pytest.mark.parametrize(("method", "path"), [("DELETE", "stream"), ("POST", "cancel")])
def test_stop(node: Chats, service: Server, simulator: Server, chat_id: str, method: str, path: str) -> None:
    """The stop button ends the answer at the upstream; the page keeps what it has and can go on."""
    where = f"/{chat_id.replace(' ', '%20')}/{path}"
    aborted = stats(simulator)["streams_aborted"]
    steps = [["begin", ["send", "hi", 20]], ["fetch", [method, where]], ["end"], ["fetch", [method, where]]]
    lines = node.chat(service.url, chat_id, *steps, ["resume"], body={"model": "never-ends?rate=50&first=0"})
    assert [line["answer"] for line in lines if "answer" in line] == [204, 204]
    last = lines[-1]
    assert (last["status"], roles(last)) == ("ready", ["user", "assistant"])
    assert last["messages"][1]["parts"][-1]["state"] == "done"
    assert last["messages"][1]["metadata"]["usage"]["estimated"]
    wait_until(lambda: stats(simulator)["streams_aborted"] == aborted + 1)


def test_an_error_before_the_stream(node: Chats, service: Server, chat_id: str) -> None:
    """The page has its message, no answer to it, and an error that is a sentence for its reader."""
    (state,) = node.chat(service.url, chat_id, ["send", "hi"], body={"model": f"sim-echo{FAST}", "top_k": 1})
    assert (state["status"], roles(state)) == ("error", ["user"])
    assert state["error"] == "'top_k' is not a field of this request."


def test_an_error_in_the_stream(node: Chats, service: Server, chat_id: str) -> None:
    """The page has what came, and the error; the next message is answered all the same."""
    model = "cut-before-finish?after=5&rate=0&first=0"
    broken, after = node.chat(service.url, chat_id, ["send", "hi"], ["send", "hi"], body={"model": model})
    assert (broken["status"], roles(broken)) == ("error", ["user", "assistant"])
    assert broken["error"]
    assert not broken["error"].startswith("{")
    assert texts(broken["messages"][1])
    assert not broken["finished"]["isDisconnect"]
    assert roles(after) == ["user", "assistant"] * 2


def test_keep_alives(node: Chats, service: Server, chat_id: str) -> None:
    """They are no parts to it."""
    with Proxy(service.url) as proxy:
        model = {"model": "sim-echo?rate=2&first=0"}  # ten comments in each pause, as a rule
        (state,) = node.chat(proxy.url, chat_id, ["send", "one two three four"], body=model)
        assert texts(state["messages"][1]) == "one two three four"
        assert proxy.received.count(b"\n:\n") >= 3


# The page in clients/, bundled for the browser, at the service's own origin.

LINE = TEXT.strip().replace("\n", " ")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    modules = install()
    bundle = tmp_path_factory.mktemp("bundle") / "page.js"
    esbuild, source = modules / "esbuild" / "bin" / "esbuild", CLIENTS / "ai-sdk-page.jsx"
    options = ["--bundle", "--jsx=automatic", '--define:process.env.NODE_ENV="production"', f"--outfile={bundle}"]
    env = {**os.environ, "NODE_PATH": str(modules)}
    done = subprocess.run([NODE, esbuild, source, *options], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return bundle.read_text()


def answer(page: Page) -> str:
    return page.locator(".assistant").text_content() or ""


def ask(page: Page) -> None:
    """Type the line, send it, and wait for some of the answer, in the middle of which it is then."""
    page.fill("input", LINE)
    page.press("input", "Enter")
    page.wait_for_function("document.querySelector('.assistant')?.textContent.length > 20")
    assert LINE.startswith(answer(page))
    assert page.text_content("output") == "streaming"


def ended(page: Page) -> None:
    """Wait for the end of the answer, which is there whole, and once."""
    expect(page.locator("output")).to_have_text("ready")
    page.wait_for_function("document.querySelector('.assistant')")
    assert page.locator(".assistant").count() == 1
    assert answer(page) == LINE


def test_a_page_that_is_reloaded(
    browser: Browser, service: Server, simulator: Server, script: str, chat_id: str
) -> None:
    """`useChat` shows an answer as it comes, and again all of it when the page is reloaded in the middle of it."""
    asked = stats(simulator)["requests"]
    with Door(service.url) as door, opened(browser, door, script, CHAT=chat_id, MODEL=SLOW) as page:
        ask(page)
        page.reload()
        expect(page.locator("output")).to_have_text("streaming")
        ended(page)
        assert page.locator(".user").count() == 0  # it keeps its messages nowhere
    assert stats(simulator)["requests"] == asked + 1


def test_a_page_that_loses_its_connection(browser: Browser, service: Server, script: str, chat_id: str) -> None:
    """It has the answer whole when it resumes, in the message that it has a part of."""
    with Door(service.url) as door, opened(browser, door, script, CHAT=chat_id, MODEL=SLOW) as page:
        ask(page)
        door.cut(reset=True)
        expect(page.locator("output")).to_have_text("error")
        page.click("button")
        ended(page)
        assert page.locator(".user").count() == 1


def test_records_without_a_word(service: Server) -> None:
    """Records that this dialect has no word for, here log probabilities that leave alone, do not end the body."""
    asked = {
        "id": "chat-with-logprobs",
        "messages": [user("hi")],
        "model": "sim-gpt?tokens=40&rate=400&first=0",
        "logprobs": True,
        "chunk": "sentence",
    }
    answer = httpx.post(f"{service.url}{CHAT}", json=asked)
    lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    snapshot = httpx.get(
        f"{service.url}/v1/streams/{answer.headers['x-stream-id']}", headers={"Accept": "application/json"}
    ).json()
    parts = [json.loads(line[6:]) for line in lines[:-1]]
    assert "".join(part["delta"] for part in parts if part["type"] == "text-delta") == snapshot["content"] != ""
