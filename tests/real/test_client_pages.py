"""The npm package of app/client/ in pages: `useChat` over its transport, and its hook, with React in Chromium."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.real.browser import Door, opened, tab
from tests.real.node import CLIENTS, Installed
from tests.real.processes import Server, launch, stats
from tests.real.proxy import Cut
from tests.waiting import wait_until

pytestmark = pytest.mark.real

LINE = "Hello, 你好, สวัสดี, مرحبا 👩‍👩‍👧‍👦! A stream belongs to the server, not to a connection. " * 3
SLOW = "sim-echo?rate=8&first=0"  # eleven seconds, in which a slow machine opens three pages


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), simulator, reconnect_ms=50, retry_wait=0.01)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def chat_script(package: Installed) -> str:
    return package.bundle((CLIENTS / "package-page.jsx").read_text())


@pytest.fixture(scope="module")
def hook_script(package: Installed) -> str:
    return package.bundle((CLIENTS / "package-hook-page.jsx").read_text())


@pytest.fixture
def door(service: Server) -> Iterator[Door]:
    with Door(service.url) as door:
        yield door


@contextmanager
def chatting(
    browser: Browser,
    door: Door,
    script: str,
    request: pytest.FixtureRequest,
    model: str = SLOW,
    chunk: str = "auto",
    **options: Any,
) -> Iterator[Page]:
    chat = f"Chat über {request.node.name}"  # which needs escaping in a path
    with opened(browser, door, script, CHAT=chat, MODEL=model, CHUNK=chunk, OPTIONS=options) as page:
        yield page


def ask(page: Page, text: str = LINE) -> None:
    page.fill("input", text)
    page.press("input", "Enter")


def answer(page: Page) -> str:
    return page.locator(".assistant").text_content() or ""


def begun(page: Page, least: int = 20) -> None:
    """Wait until some of the answer is there."""
    page.wait_for_function("(least) => document.querySelector('.assistant')?.textContent.length > least", arg=least)


def whole(page: Page) -> None:
    """Wait for the end of the answer, which is one text, whole, and there once."""
    expect(page.locator("output")).to_have_text("ready")
    page.wait_for_function("document.querySelector('.assistant')")
    assert page.locator(".assistant").count() == 1
    assert answer(page) == LINE
    parts = page.evaluate("window.messages.at(-1).parts.map(({ type, state }) => [type, state])")
    assert parts == [["step-start", None], ["text", "done"]]


def test_cuts(
    browser: Browser, door: Door, chat_script: str, simulator: Server, request: pytest.FixtureRequest
) -> None:
    """Cut again and again at any byte, the page shows the answer as if nothing had been: one text, one generation."""
    asked = stats(simulator)["requests"]
    chance = random.Random(5)
    # A busy browser throws away what came right before a cut, so that all of them may pass without an event.
    with chatting(browser, door, chat_script, request, chunk="none", retries=12, maxDelay=200) as page:
        page.wait_for_load_state("networkidle")  # it has asked whether an answer is being written
        door.plan(Cut(octets=chance.randrange(450, 1500), reset=chance.random() < 0.5) for _ in range(12))
        ask(page)
        whole(page)
        assert page.locator(".user").text_content() == LINE
        assert page.evaluate("window.news.filter((state) => state === 'lost').length") >= 8
        assert page.evaluate("window.finished") == {"isAbort": False, "isDisconnect": False, "isError": False}
        # One POST in all, and no reading from the start once an event was there.
        assert door.requests("POST /v1/ai-sdk/chat") == 1
        gets = [head for head in door.heads if head.startswith("GET /v1/streams/")]
        resumed = ["\nlast-event-id: " in head.lower() for head in gets]
        assert resumed == sorted(resumed)
        assert resumed[-1]
        assert all("\nx-page: page" in head.lower() for head in gets)
    assert stats(simulator)["requests"] == asked + 1


def test_a_head_that_is_cut(
    browser: Browser, door: Door, chat_script: str, simulator: Server, request: pytest.FixtureRequest
) -> None:
    """Chromium takes a response whose head broke off for a whole one. The page takes it for a cut, wherever it was."""
    asked = stats(simulator)["requests"]
    with chatting(browser, door, chat_script, request, retries=1000, maxDelay=5) as page:
        page.wait_for_load_state("networkidle")
        door.plan(Cut(octets=octets) for octets in range(10, 800, 7))
        ask(page)
        whole(page)
        assert page.evaluate("window.news.filter((state) => state === 'lost').length") > 80
    assert stats(simulator)["requests"] == asked + 1


def test_reload_and_second_tab(
    browser: Browser, door: Door, chat_script: str, simulator: Server, request: pytest.FixtureRequest
) -> None:
    """A page that is reloaded in the middle of the answer, and a second tab, show it whole."""
    asked = stats(simulator)["requests"]
    with chatting(browser, door, chat_script, request) as page:
        ask(page)
        begun(page)
        second = tab(page.context, door)
        begun(second)
        page.reload()
        begun(page)
        door.cut(reset=True)
        whole(page)
        whole(second)
        assert page.locator(".user").count() == 0  # it keeps its messages nowhere
        page.reload()
        expect(page.locator("output")).to_have_text("ready")  # and nothing is live
        assert page.locator(".assistant").count() == 0
    assert stats(simulator)["requests"] == asked + 1


@pytest.mark.parametrize("wake", ["visible", "online"])
def test_a_phone_that_slept(
    browser: Browser, door: Door, chat_script: str, request: pytest.FixtureRequest, wake: str
) -> None:
    """A page whose connection died while it was away goes on at once when it is shown again or the network is back."""
    events = {
        "visible": "document.dispatchEvent(new Event('visibilitychange'))",
        "online": "window.dispatchEvent(new Event('online'))",
    }
    with chatting(browser, door, chat_script, request) as page:
        ask(page)
        begun(page)
        door.lose()
        page.evaluate(events[wake])
        whole(page)
        assert page.evaluate("window.news") == ["open", "lost", "open"]


@pytest.mark.parametrize("after", ["before it began", "later", "reloaded"])
def test_stop(
    browser: Browser, door: Door, chat_script: str, simulator: Server, request: pytest.FixtureRequest, after: str
) -> None:
    """`stop()` stops the upstream at once, and the page keeps what it has and can go on."""
    before = stats(simulator)["streams_aborted"]
    model = "never-ends?rate=50&first=0" + ("&head=1" if after == "before it began" else "")
    with chatting(browser, door, chat_script, request, model) as page:
        ask(page, "hi")
        if after == "before it began":
            wait_until(lambda: door.requests("POST") == 1)
        else:
            begun(page)
        if after == "reloaded":
            page.reload()
            begun(page)
        page.click("#stop")
        expect(page.locator("output")).to_have_text("ready")
        if after != "before it began":
            wait_until(lambda: stats(simulator)["streams_aborted"] == before + 1)
        wait_until(lambda: stats(simulator)["live"] == 0)
        assert page.evaluate("window.finished?.isAbort ?? true")
        page.evaluate("window.MODEL = 'sim-echo?rate=0&first=0'")
        ask(page, "again")
        page.wait_for_function("[...document.querySelectorAll('.assistant')].at(-1)?.textContent === 'again'")


def test_resuming_twice_stops_nothing(
    browser: Browser, door: Door, chat_script: str, simulator: Server, request: pytest.FixtureRequest
) -> None:
    """A page that resumes while it reads replaces its reader, and the answer goes on."""
    before = stats(simulator)["streams_aborted"]
    with chatting(browser, door, chat_script, request) as page:
        ask(page)
        begun(page)
        page.reload()
        begun(page)
        page.click("#resume")
        whole(page)
    assert stats(simulator)["streams_aborted"] == before


def test_giving_up(browser: Browser, door: Door, chat_script: str, request: pytest.FixtureRequest) -> None:
    """A service that stays away makes the answer an error, which the SDK takes for a disconnect; then it resumes."""
    with chatting(browser, door, chat_script, request, retries=2, maxDelay=50) as page:
        page.evaluate("Object.defineProperty(navigator, 'onLine', { value: true })")
        ask(page)
        begun(page)
        with door.refusing():
            expect(page.locator("output")).to_have_text("error")
        assert page.evaluate("window.finished") == {"isAbort": False, "isDisconnect": True, "isError": True}
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        whole(page)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("cut-before-finish?after=5&rate=0&first=0", "The upstream"),
        ("error-400?first=0", "Invalid value"),
    ],
    ids=["in the stream", "before it"],
)
def test_errors(
    browser: Browser, door: Door, chat_script: str, request: pytest.FixtureRequest, model: str, sentence: str
) -> None:
    """An error is a sentence for the page's reader, and nothing is tried again."""
    with chatting(browser, door, chat_script, request, model) as page:
        ask(page, "hi")
        expect(page.locator("output")).to_have_text("error")
        shown = page.locator("p").text_content() or ""
        assert sentence in shown
        assert not shown.startswith("{")
        assert door.requests("POST") == 1
        assert "lost" not in page.evaluate("window.news")


# The hook.


def test_the_hook(browser: Browser, door: Door, hook_script: str) -> None:
    """It shows an answer through cuts, renders less often than events come, and reads a stream again by its URL."""
    with opened(browser, door, hook_script) as page:
        door.plan([Cut(octets=2000, reset=True), Cut(octets=2000)])
        body = {"prompt": LINE, "model": "sim-echo?rate=400&first=0", "chunk": "none"}
        page.evaluate("(body) => answer.send(body)", body)
        expect(page.locator("output")).to_have_text("done")
        assert page.locator(".answer").text_content() == LINE
        expect(page.locator("p")).to_have_text("stop")
        events = page.evaluate("window.events")
        assert (events[0], events[-1]) == ("start", "done")
        assert page.evaluate("window.answer.end.usage.total_tokens") > 0
        url = page.evaluate("window.answer.url")
        page.evaluate("(url) => answer.follow(url)", url)
        expect(page.locator("output")).to_have_text("done")
        assert page.locator(".answer").text_content() == LINE
        page.evaluate("(body) => answer.send(body)", {"prompt": "hi", "model": "reasoning?rate=0&first=0"})
        expect(page.locator(".reasoning")).not_to_be_empty()


def test_the_hooks_rendering(browser: Browser, door: Door, hook_script: str) -> None:
    """However many events come at once, the page is rendered once a frame."""
    with opened(browser, door, hook_script) as page:
        body = {"prompt": LINE * 20, "model": "sim-echo?rate=0&first=0", "chunk": "none"}
        renders = page.evaluate("window.renders")
        page.evaluate("(body) => answer.send(body)", body)
        expect(page.locator("output")).to_have_text("done")
        assert page.locator(".answer").text_content() == LINE * 20
        frames = page.evaluate("window.renders") - renders
        assert frames < len(page.evaluate("window.events")) / 2


def test_the_hooks_stop(browser: Browser, door: Door, hook_script: str, simulator: Server) -> None:
    """`stop()` stops the upstream; a component that goes stops reading, and the answer goes on as its policy says."""
    before = stats(simulator)["streams_aborted"]
    with opened(browser, door, hook_script) as page:
        body = {"prompt": "hi", "model": "never-ends?rate=50&first=0"}
        page.evaluate("(body) => void answer.send(body)", body)
        page.wait_for_function("document.querySelector('.answer').textContent.length > 20")
        page.evaluate("answer.stop()")
        expect(page.locator("output")).to_have_text("done")
        expect(page.locator("p")).to_have_text("cancelled")
        wait_until(lambda: stats(simulator)["streams_aborted"] == before + 1)
        page.evaluate("(body) => void answer.send(body)", {**body, "on_disconnect": "cancel"})
        page.wait_for_function("document.querySelector('.answer').textContent.length > 20")
        page.evaluate("show(false)")
        wait_until(lambda: stats(simulator)["streams_aborted"] == before + 2)


def test_the_hooks_errors(browser: Browser, door: Door, hook_script: str) -> None:
    """What the service refuses, and an answer that breaks off, are errors with a message, a status and a code."""
    with opened(browser, door, hook_script) as page:
        page.evaluate("answer.send({ nonsense: 1 })")
        expect(page.locator("output")).to_have_text("error")
        assert page.evaluate("[answer.error.status, answer.error.code]") == [400, "bad_request"]
        page.evaluate("answer.send({ prompt: 'hi', model: 'cut-before-finish?after=5&rate=0&first=0' })")
        page.wait_for_function("window.answer.error?.code === 'upstream_disconnected'")
        assert page.locator(".answer").text_content() != ""
