"""The AI SDK's `WorkflowChatTransport`, as it is published, on a React page in Chromium, through the real nginx."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, expect

from tests.real.browser import Door, opened, tab
from tests.real.node import CLIENTS, Installed
from tests.real.processes import Server, launch, launch_nginx, stats
from tests.real.test_client_pages import SLOW, answer, ask, begun, whole
from tests.waiting import wait_until

pytestmark = pytest.mark.real

CHAT = "/v1/ai-sdk/chat"


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    package = Installed(tmp_path_factory.mktemp("page"))
    return package.bundle((CLIENTS / "workflow-page.jsx").read_text())


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    with ExitStack() as started:
        service = launch(tmp_path_factory.mktemp("service"), simulator, retry_wait=0.01)
        started.callback(service.stop)
        server = launch_nginx(tmp_path_factory.mktemp("nginx"), service)
        started.callback(server.stop)
        yield server


@pytest.fixture
def door(nginx: Server) -> Iterator[Door]:
    with Door(nginx.url) as door:
        yield door


def gets(door: Door) -> list[str]:
    return [head.split(" ")[1] for head in door.heads if head.startswith(f"GET {CHAT}/")]


def test_a_chat(browser: Browser, door: Door, script: str) -> None:
    """The page's JSON is called text by the browser, names no chat, and is answered over one request."""
    with opened(browser, door, script, MODEL="sim-echo?rate=0&first=0") as page:
        ask(page)
        whole(page)
        (post,) = [head for head in door.heads if head.startswith("POST")]
        assert "\ncontent-type: text/plain" in post.lower()
        assert gets(door) == []


def test_short_answers(browser: Browser, door: Door, script: str) -> None:
    """An answer that has ended before the page is rendered is not asked for again."""
    last = "(text) => [...document.querySelectorAll('.assistant')].at(-1)?.textContent === text"
    with opened(browser, door, script, MODEL="sim-echo?rate=0&first=0") as page:
        for text in map(str, range(10)):
            ask(page, text)
            page.wait_for_function(last, arg=text)
            expect(page.locator("output")).to_have_text("ready")
        assert gets(door) == []


def test_a_run_that_was_forgotten(browser: Browser, door: Door, script: str) -> None:
    """A page goes on after a cut although another tab, where the answer has ended, has deleted the id of the run."""
    with opened(browser, door, script, MODEL=SLOW) as page:
        ask(page)
        begun(page)
        page.evaluate("localStorage.removeItem('run')")
        door.cut(reset=True)
        whole(page)


def test_a_run_of_another_service(browser: Browser, door: Door, script: str) -> None:
    """A page that has the id of a run which the service does not know says so once, and forgets it."""
    with opened(browser, door, script, MODEL="sim-echo?rate=0&first=0") as page:
        page.evaluate("localStorage.setItem('run', 'chat_nothing')")
        page.reload()
        expect(page.locator("output")).to_have_text("error")
        page.reload()
        expect(page.locator("output")).to_have_text("ready")
        ask(page)
        whole(page)
        assert len(gets(door)) == 1


def test_reload_and_second_tab(browser: Browser, door: Door, script: str, simulator: Server) -> None:
    """A page that is reloaded in the middle of an answer, and a second tab, show it whole, through cuts."""
    asked = stats(simulator)["requests"]
    with opened(browser, door, script, MODEL=SLOW) as page:
        ask(page)
        begun(page)
        second = tab(page.context, door)
        begun(second)
        page.reload()
        begun(page)
        door.cut(reset=True)
        begun(page, len(answer(page)))
        door.cut()
        whole(page)
        whole(second)
        assert page.locator(".user").count() == 0  # it keeps its messages nowhere
        page.reload()
        expect(page.locator("output")).to_have_text("ready")
        assert page.locator(".assistant").count() == 0
    assert stats(simulator)["requests"] == asked + 1


def test_a_phone_that_slept(browser: Browser, door: Door, script: str, simulator: Server) -> None:
    """A page that was frozen while its connection broke goes on where it was when it wakes up."""
    asked = stats(simulator)["requests"]
    with opened(browser, door, script, MODEL=SLOW) as page:
        ask(page)
        begun(page)
        phone = page.context.new_cdp_session(page)
        phone.send("Page.setWebLifecycleState", {"state": "frozen"})
        door.cut(reset=True)
        phone.send("Page.setWebLifecycleState", {"state": "active"})
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        whole(page)
        *_, last = gets(door)
        assert int(last.partition("?startIndex=")[2]) > 0
    assert stats(simulator)["requests"] == asked + 1


def test_a_phone_without_a_network(browser: Browser, door: Door, script: str, simulator: Server) -> None:
    """A page that had no network when its connection broke has the answer whole, once, when it is shown again."""
    asked = stats(simulator)["requests"]
    with opened(browser, door, script, MODEL=SLOW) as page:
        ask(page)
        begun(page)
        with door.refusing():
            expect(page.locator("output")).to_have_text("error")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        whole(page)
        assert page.locator(".user").count() == 1
    assert stats(simulator)["requests"] == asked + 1


@pytest.mark.parametrize("end", ["error", "cancel"])
def test_it_asks_for_nothing_after_the_end(browser: Browser, door: Door, script: str, nginx: Server, end: str) -> None:
    """An answer that broke off, or that was stopped elsewhere, has an end, and the page goes on with the next one."""
    model = "cut-before-finish?after=5&rate=0&first=0" if end == "error" else "never-ends?rate=50&first=0"
    with opened(browser, door, script, MODEL=model) as page:
        ask(page, "hi")
        if end == "cancel":
            begun(page)
            page.evaluate(f"fetch(`{CHAT}/${{localStorage.getItem('run')}}/cancel`, {{ method: 'POST' }})")
        expect(page.locator("output")).to_have_text("error" if end == "error" else "ready")
        assert ("The upstream" in (page.locator("p").text_content() or "")) is (end == "error")
        page.evaluate("window.MODEL = 'sim-echo?rate=0&first=0'")
        ask(page, "again")
        page.wait_for_function("[...document.querySelectorAll('.assistant')].at(-1)?.textContent === 'again'")
        assert gets(door) == []


def test_the_last_chunks(browser: Browser, door: Door, script: str) -> None:
    """A page that asks for the last chunks, which here are all, goes on behind those after a cut."""
    with opened(browser, door, script, MODEL=SLOW, OPTIONS={"initialStartIndex": -1000}) as page:
        ask(page)
        begun(page)
        page.reload()
        begun(page)
        door.cut(reset=True)
        whole(page)
        asked = [int(url.partition("?startIndex=")[2]) for url in gets(door)]
        # The page may go on with its first request before it is gone: the reload breaks that request's connection.
        _, *others = asked[asked.index(-1000) :]
        assert others[-1] > 3


def test_a_page_of_another_origin(
    browser: Browser, script: str, simulator: Server, start_service: Callable[..., Server]
) -> None:
    """A page of a listed origin reads an answer, and its rest after a cut; one that only `*` lets in is refused."""
    home = f"http://localhost:{simulator.port}"  # any page of that server's: the script makes it ours
    for allowed, status in ((home, "ready"), ("*", "error")):
        service = start_service(simulator, allowed_origins=allowed)
        with Door(service.url) as door, browser.new_context() as context:
            context.add_init_script(f"window.MODEL = {json.dumps(SLOW)}; window.API = {json.dumps(door.url + CHAT)};")
            page = context.new_page()
            page.goto(home)
            page.evaluate("document.body.innerHTML = '<div id=root></div>'")
            page.add_script_tag(content=script)
            ask(page)
            if status == "ready":
                begun(page)
                door.cut(reset=True)
                whole(page)
            expect(page.locator("output")).to_have_text(status)
            assert ("415" in (page.locator("p").text_content() or "")) is (status == "error")


def test_stopping(browser: Browser, door: Door, script: str, simulator: Server) -> None:
    """A page stops the answer by the id of its run, whatever reads it."""
    before = stats(simulator)["streams_aborted"]
    with opened(browser, door, script, MODEL="never-ends?rate=50&first=0") as page:
        ask(page, "hi")
        begun(page)
        run = page.evaluate("localStorage.getItem('run')")
        stopped = page.evaluate(
            f"fetch({json.dumps(f'{CHAT}/{run}/stream')}, {{ method: 'DELETE' }}).then((r) => r.status)"
        )
        assert stopped == 204
        expect(page.locator("output")).to_have_text("ready")
        wait_until(lambda: stats(simulator)["streams_aborted"] == before + 1)
