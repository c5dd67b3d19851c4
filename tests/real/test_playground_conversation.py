"""Conversations in the playground: what earlier turns, options and tools' results add to a request, and its copies."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from tests.real.node import NODE
from tests.real.playground import answer, ask, ended, part, playground, snapshot
from tests.real.processes import Server, launch, stats
from tests.waiting import wait_until

pytestmark = pytest.mark.real

ECHO = "sim-echo?rate=0&first=0"
KEY = "csk_for-these-tests-alone"
TRANSPORTS = ["fetch", "native"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), simulator, reconnect_ms=200, retry_wait=0.01)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    """A service that asks for credentials."""
    keys = f"tests:{hashlib.sha256(KEY.encode()).hexdigest()}"
    server = launch(tmp_path_factory.mktemp("service"), simulator, reconnect_ms=200, api_keys=keys)
    yield server
    server.stop()


@pytest.fixture
def page(browser: Browser, service: Server) -> Iterator[Page]:
    with playground(browser, service) as page:
        yield page


@pytest.fixture
def unlocked(browser: Browser, locked: Server) -> Iterator[Page]:
    """The playground of the service that asks for credentials, with a key."""
    with playground(browser, locked) as page:
        unlock(page)
        yield page


def unlock(page: Page) -> None:
    page.click("#keys")
    page.fill("#key", KEY)
    page.keyboard.press("Enter")


def sent(page: Page, prompt: str, model: str, transport: str = "fetch") -> dict[str, Any]:
    """Ask, wait for the end, and return the body that was sent."""
    with page.expect_request("**/v1/chat") as request:
        ask(page, prompt, model, transport)
    ended(page)
    return body_of(request.value)


def body_of(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request.post_data or "")
    return body


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_earlier_turns_are_sent(page: Page, transport: str) -> None:
    """A question is asked after what was said before, which stays in view; what got no answer is not sent again."""
    assert sent(page, "one", ECHO, transport) == {"prompt": "one", "model": ECHO}
    assert sent(page, "two", ECHO, transport)["messages"] == [user("one"), assistant("one"), user("two")]
    ask(page, "refuse this", "error-400", transport)
    expect(part(page, "ending")).to_contain_text("Invalid value in the request")
    expect(page.locator("#prompt")).to_have_value("refuse this")
    page.fill("#system", "Be brief.")
    page.fill("#temperature", "0.5")
    assert sent(page, "three", ECHO, transport) == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            *(user("one"), assistant("one"), user("two"), assistant("two"), user("three")),
        ],
        "model": ECHO,
        "temperature": 0.5,
    }
    expect(page.locator(".turn .answer")).to_have_text(["one", "two", "", "three"])


def test_a_new_chat(page: Page) -> None:
    """It begins without what was said before, and a stream that was read is read no longer; the options stay."""
    ask(page, "hi", "never-ends")
    wait_until(lambda: len(answer(page)) > 20)
    page.click("#fresh")
    expect(page.locator("#prompt")).to_be_focused()
    expect(page.locator("#state")).to_have_text("idle")
    expect(page.locator(".turn, #events li")).to_have_count(0)
    expect(page.locator("#characters")).to_have_text("–")
    assert "?stream=" not in page.url
    page.fill("#system", "Be brief.")
    assert sent(page, "two", ECHO)["messages"] == [{"role": "system", "content": "Be brief."}, user("two")]
    expect(page.locator(".turn")).to_have_count(1)


def test_a_reload_brings_the_conversation_back(page: Page) -> None:
    """A page that is loaded again has the turns before, with calls and results, and goes on from there."""
    assert sent(page, "one", ECHO)
    page.click("#example")
    sent(page, "Paris", "tools?rate=0&first=0")
    part(page, "result textarea").fill("12 °C")
    page.fill("#tools", "")
    ask(page, "two", "never-ends")
    wait_until(lambda: len(answer(page)) > 20)
    before = page.locator(".turn .asked").all_inner_texts()
    page.reload()
    wait_until(lambda: len(answer(page)) > 20)
    assert page.locator(".turn .asked").all_inner_texts() == before == ["one", "Paris", "two"]
    page.click("#stop")
    stopped = ended(page)
    messages = sent(page, "three", ECHO)["messages"]
    assert [message["role"] for message in messages] == [
        *("user", "assistant", "user", "assistant", "tool", "user", "assistant", "user")
    ]
    assert [messages[n]["content"] for n in (0, 1, 2, 4, 5, 6, 7)] == [
        *("one", "one", "Paris", "12 °C", "two", stopped, "three")
    ]
    assert messages[3]["tool_calls"][0]["id"] == messages[4]["tool_call_id"]


def test_what_tools_return_is_sent(page: Page) -> None:
    """A call gets a field for its result, which is sent after the call, with a question or without one."""
    page.click("#example")
    tools = json.loads(page.input_value("#tools"))
    assert sent(page, "Paris", "tools?rate=0&first=0") == {
        "prompt": "Paris",
        "model": "tools?rate=0&first=0",
        "tools": tools,
    }
    part(page, "result textarea").fill("12 °C")
    with page.expect_request("**/v1/chat") as request:
        page.fill("#model", ECHO)
        page.click("#send")
    ended(page)
    question, call, result = body_of(request.value)["messages"]
    assert (question, call["role"], call["content"]) == (user("Paris"), "assistant", None)
    (called,) = call["tool_calls"]
    assert (called["type"], called["function"]["name"]) == ("function", "get_weather")
    assert json.loads(called["function"]["arguments"])["query"] == "Paris"
    assert result == {"role": "tool", "tool_call_id": called["id"], "content": "12 °C"}
    assert sent(page, "Thanks", ECHO)["messages"][2:] == [result, assistant("Paris"), user("Thanks")]


@pytest.mark.parametrize(("tools", "problem"), [("[{", "This is not JSON: "), ("{}", "This is not a list")])
def test_wrong_tools_are_not_sent(page: Page, tools: str, problem: str) -> None:
    """The page says what is wrong with them where they are typed, and sends nothing until it is mended."""
    page.fill("#tools", tools)
    expect(page.locator("#wrong")).to_contain_text(problem)
    page.locator("#options > summary").click()
    ask_without_waiting(page, "hi")
    expect(page.locator("#tools")).to_be_focused()
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator("#prompt")).to_have_value("hi")
    page.fill("#tools", "[]")
    expect(page.locator("#wrong")).to_be_hidden()


def ask_without_waiting(page: Page, prompt: str) -> None:
    page.fill("#prompt", prompt)
    page.keyboard.press("Enter")


def test_models_are_offered(unlocked: Page) -> None:
    """The model's field offers what the service lists for the caller, with descriptions."""
    unlocked.focus("#model")
    expect(unlocked.locator("#models option[value=sim-echo]")).to_have_text("The last user message, said again.")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_timing_chart(page: Page, transport: str) -> None:
    """The chart has the answer's first event and token, its deltas, cuts and end; the meters have the usage."""
    ask(page, "words " * 60, "sim-echo?rate=20&first=0", transport)
    wait_until(lambda: len(answer(page)) > 40)
    page.click("#drop")
    ended(page)
    legend = page.locator("#legend li").all_inner_texts()
    assert [words.rstrip("0123456789 ms.–") for words in legend] == [
        *("Answered", "First event", "First token", "Ended", "Cut")
    ]
    expect(page.locator("#chart .cut")).to_have_count(1)
    assert len(page.locator("#chart .deltas").get_attribute("d") or "") > 100
    usage = snapshot(page)["usage"]
    expect(page.locator("#input")).to_have_text(str(usage["prompt_tokens"]))
    expect(page.locator("#output")).to_have_text(str(usage["completion_tokens"]))


def test_a_refusal_counts_down(page: Page) -> None:
    """The row of a refused request says how long it is until the request may be sent again."""
    ask(page, "hi", "error-429?retry_after=2&first=0")
    left = page.locator("#events .refused .left")
    expect(left).to_contain_text("Retry-After: 2 s, ")
    expect(left).to_have_text("Retry-After: 2 s, which are over.")


def test_the_headers_are_in_view(page: Page) -> None:
    """Status and request id open to the answer's headers."""
    ask(page, "hi", ECHO, "native")
    ended(page)
    page.click("#answered summary")
    expect(page.locator("#answered pre")).to_contain_text("location: /v1/streams/")
    ask(page, "hi", ECHO)
    ended(page)
    expect(page.locator("#answered pre")).to_contain_text("content-type: text/event-stream; charset=utf-8")


# Copies.


def copied(page: Page, what: str) -> str:
    """Press a button that copies, and return what is pasted afterwards."""
    button = part(page, f"copies [data-copy={what}]")
    button.click()
    expect(button).to_have_text("Copied")
    page.focus("#prompt")
    page.fill("#prompt", "")
    page.keyboard.press("Control+V")
    return page.input_value("#prompt")


def run(what: str, code: str, directory: Path, **environment: str) -> str:
    """Run copied code as its reader would, and return the text of the answer that it printed."""
    file = directory / f"copied-{what}.mjs"
    file.write_text(code)
    program = {"curl": "bash", "script": NODE, "python": sys.executable}[what]
    done = subprocess.run(
        [program, file], capture_output=True, text=True, check=True, timeout=60, env={**os.environ, **environment}
    )
    data = [line.removeprefix("data: ") for line in done.stdout.splitlines() if line.startswith(("data: {", "{"))]
    assert data
    return "".join(json.loads(one).get("content", "") for one in data)


@pytest.mark.parametrize("clipboard", [True, False])
def test_copies(page: Page, tmp_path: Path, clipboard: bool) -> None:
    """The answer is copied as it is, and the request as code that gets the same answer, also over plain http."""
    text = 'It\'s 5 $HOME `id` \\ "two" 👩‍👩‍👧 ${key} {x}\nlines'
    if clipboard:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    else:
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.fill("#tools", '[{"type": "function", "function": {"name": "f", "strict": true, "description": null}}]')
    ask(page, "before", ECHO, chunk="word")
    ended(page)
    ask(page, text, ECHO)
    ended(page)
    assert copied(page, "answer") == text
    for what in ("curl", "script", "python"):
        code = copied(page, what)
        assert "before" in code  # the whole conversation
        assert "word" in code
        assert run(what, code, tmp_path) == text


def test_copies_of_an_attached_stream(page: Page, tmp_path: Path) -> None:
    """Where the page did not ask, the code reads the stream that the page reads."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page, "attached", ECHO)
    ended(page)
    page.reload()
    ended(page)
    assert copied(page, "link") == page.url
    for what in ("curl", "script", "python"):
        assert run(what, copied(page, what), tmp_path) == "attached"


def test_copies_have_no_key(unlocked: Page, tmp_path: Path) -> None:
    """Code that needs a key names a variable."""
    page = unlocked
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page, "hi", ECHO)
    ended(page)
    for what in ("curl", "script", "python", "link"):
        code = copied(page, what)
        assert KEY not in code
        if what == "script":
            code = code.replace('key = ""', f'key = "{KEY}"')
        if what != "link":
            assert run(what, code, tmp_path, CHAT_SSE_KEY=KEY) == "hi"


def test_a_link_opens_the_same(page: Page, service: Server) -> None:
    """A link brings prompt and options into another page, which sends nothing by itself, and no server sees them."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    options = {"#system": "Be brief & kind.", "#temperature": "0.5", "#tools": "[]", "#model": ECHO}
    for field, value in options.items():
        page.fill(field, value)
    ask(page, "你好 & +#?\nhow?", ECHO, chunk="word", smooth="150")
    ended(page)
    page.fill("#model", "another")
    link = copied(page, "link")
    assert link.startswith(f"{service.url}/#prompt=")
    other = page.context.new_page()
    asked: list[str] = []
    other.on("request", lambda request: asked.append(request.url))
    other.goto(link)
    for field, value in {**options, "#chunk": "word", "#smooth": "150", "#transport": "fetch"}.items():
        expect(other.locator(field)).to_have_value(value)
    expect(other.locator("#prompt")).to_have_value("你好 & +#?\nhow?")
    assert not [url for url in asked if "/v1/" in url or "prompt" in url.partition("#")[0]]
    other.click("#send")
    assert ended(other) == "你好 & +#?\nhow?"
    other.goto(f"{service.url}/#prompt=again")
    expect(other.locator("#prompt")).to_have_value("again")
    expect(other.locator("#system")).to_have_value("")


# The caller's streams.


def test_streams_are_listed(unlocked: Page, browser: Browser, locked: Server, simulator: Server) -> None:
    """What runs on another device is listed for its caller, by its question, and opens, to be read and stopped."""
    before = stats(simulator)["streams_aborted"]
    ask(unlocked, "Where is it?", "never-ends")
    wait_until(lambda: len(answer(unlocked)) > 20)
    with playground(browser, locked) as other:
        other.locator("#streams > summary").click()
        expect(other.locator("#none")).to_contain_text("API key")
        unlock(other)
        stream = other.locator("#mine button").first
        expect(stream.locator(".title")).to_have_text("Where is it?")
        expect(stream).to_contain_text("running elsewhere")
        stream.focus()
        other.keyboard.press("Enter")
        wait_until(lambda: len(answer(other)) > 20)
        expect(other.locator("#mine [aria-current=true]")).to_contain_text("running here")
        other.click("#stop")
        wait_until(lambda: stats(simulator)["streams_aborted"] == before + 1)
        assert ended(other) == ended(unlocked)
        expect(other.locator("#mine button").first).to_contain_text("done")
