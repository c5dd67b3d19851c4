"""htmx in Chromium, with attributes alone: version 4 with hx-sse, and version 2 with its sse extension."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route

from tests.real.browser import Door
from tests.real.node import install
from tests.real.processes import Server, launch
from tests.waiting import wait_until

pytestmark = pytest.mark.real

TEXT = "Hello, 你好 👩‍👩‍👧‍👦!\n  <b>not bold</b> &amp; as it is. " * 4
QUICK: dict[str, Any] = {"prompt": TEXT, "model": "sim-echo?rate=30&first=0", "chunk": "none"}
ENDLESS: dict[str, Any] = {"prompt": "hi", "model": "never-ends?rate=3&first=0"}

# What each event's JSON holds goes into the page as text: an answer is never taken for HTML.
HTMX_2 = """<!doctype html><link rel=icon href=data:,>
<script src="/page/htmx.org/dist/htmx.js"></script>
<script src="/page/htmx-ext-sse/dist/sse.js"></script>
<main hx-ext="sse" sse-connect="{url}" sse-close="done"
      hx-on::sse-error="if (event.detail.error.data) {{
        document.title = JSON.parse(event.detail.error.data).error.code;
        this.removeAttribute('sse-connect'); // else the extension connects again, and reads all from the start
        event.detail.source.close();
      }}"
      hx-on::sse-close="document.title = event.detail.type">
  <pre sse-swap="delta"
       hx-on::sse-before-message="event.preventDefault(); this.append(JSON.parse(event.detail.data).content)"></pre>
</main>"""
HTMX_4 = """<!doctype html><link rel=icon href=data:,>
<script src="/page/htmx4/dist/htmx.js"></script>
<script src="/page/htmx4/dist/ext/hx-sse.js"></script>
<pre hx-sse:connect="{url}" hx-sse:close="done"
     hx-on:delta="this.append(JSON.parse(event.detail.data).content)"
     hx-on:error="document.title = JSON.parse(event.detail.data).error.code; this.setAttribute('hx-sse:close', 'error')"
     hx-on:htmx:sse:close="document.title ||= event.detail.reason"></pre>"""
# Version 4 reads the answer to any request, and repeats a POST that was cut: with its last id, that is a resume.
HTMX_4_POST = """<!doctype html><link rel=icon href=data:,>
<script src="/page/htmx4/dist/htmx.js"></script>
<script src="/page/htmx4/dist/ext/hx-sse.js"></script>
<button hx-post="/v1/chat" hx-sse:close="done" hx-config="sse.reconnect:true" hx-swap="none"
        hx-on:htmx:before:request="
          event.detail.ctx.request.headers['Content-Type'] = 'application/json';
          event.detail.ctx.request.body = this.dataset.body"
        hx-on:delta="document.querySelector('pre').append(JSON.parse(event.detail.data).content)"
        hx-on:htmx:sse:close="document.title = event.detail.reason">Ask</button>
<pre></pre>"""


@pytest.fixture(scope="module")
def modules() -> Path:
    return install()


@pytest.fixture(scope="module")
def service(simulator: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that says `:` after a twentieth of a second, and has clients back as fast."""
    server = launch(tmp_path_factory.mktemp("service"), simulator, keep_alive=0.05, reconnect_ms=50)
    yield server
    server.stop()


@pytest.fixture
def door(service: Server) -> Iterator[Door]:
    with Door(service.url) as door:
        yield door


def start(service: Server, body: dict[str, Any]) -> str:
    answer = httpx.post(f"{service.url}/v1/chat", json=body, headers={"Accept": "application/json"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["url"])


@contextmanager
def visit(browser: Browser, modules: Path, door: Door, html: Callable[[], str]) -> Iterator[Page]:
    """Open a page of the service's own origin, with the scripts of npm's packages; nothing may go wrong in it.

    *html* is called when the browser asks for the page: what that starts is not over before a slow one has begun.
    """

    def serve(route: Route) -> None:
        path = route.request.url.removeprefix(f"{door.url}/page/")
        if path:
            route.fulfill(path=modules / path)
        else:
            route.fulfill(body=html(), content_type="text/html; charset=utf-8")

    failures: list[str] = []
    with browser.new_context() as context:
        page = context.new_page()
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.route(f"{door.url}/page/**", serve)
        page.goto(f"{door.url}/page/")
        yield page
    assert failures == []


def shown(page: Page) -> str:
    return str(page.evaluate("document.querySelector('pre').textContent"))


def longer(page: Page, than: int) -> bool:
    return len(shown(page)) > than


@pytest.mark.parametrize("html", [HTMX_2, HTMX_4], ids=["2", "4"])
def test_get(
    browser: Browser, modules: Path, service: Server, door: Door, counted: Callable[[], dict[str, int]], html: str
) -> None:
    """A stream that was started by a 201 is shown whole, though its connection breaks twice, and closed by `done`."""
    with visit(browser, modules, door, lambda: html.format(url=start(service, QUICK))) as page:
        for reached, reset in ((30, True), (100, False)):
            wait_until(partial(longer, page, reached))
            door.cut(reset=reset)
        wait_until(lambda: page.title())
        assert (page.title(), shown(page)) == ("message", TEXT)
    assert door.requests("GET /v1/streams/") == 3
    assert counted()["requests"] == 1


@pytest.mark.parametrize("html", [HTMX_2, HTMX_4], ids=["2", "4"])
def test_keep_alives(browser: Browser, modules: Path, service: Server, door: Door, html: str) -> None:
    """Keep-alives are on the wire, and nothing of them reaches the page."""
    address = start(service, ENDLESS)
    with visit(browser, modules, door, lambda: html.format(url=address)) as page:
        wait_until(lambda: shown(page) and door.received.count(b"\n:\n") >= 3)
        httpx.delete(service.url + address).raise_for_status()
        wait_until(lambda: page.title())
        answer = httpx.get(service.url + address, headers={"Accept": "application/json"}).json()
        assert (page.title(), shown(page)) == ("message", answer["content"])


@pytest.mark.parametrize("html", [HTMX_2, HTMX_4], ids=["2", "4"])
def test_an_error(browser: Browser, modules: Path, service: Server, door: Door, html: str) -> None:
    """An answer that breaks off is told, and the page does not connect again."""
    address = start(service, {"prompt": TEXT, "model": "error-in-stream?after=3&rate=50&first=0"})
    with visit(browser, modules, door, lambda: html.format(url=address)) as page:
        wait_until(lambda: page.title())
        assert page.title() == "upstream_error"
        assert shown(page)
        page.wait_for_timeout(1500)  # the time in which it must not happen: three times what either waits at first
    assert door.requests("GET /v1/streams/") == 1


def test_post(
    browser: Browser, modules: Path, service: Server, door: Door, counted: Callable[[], dict[str, int]]
) -> None:
    """Version 4 reads the answer to its POST, which it repeats when that is cut: it resumes, and is paid for once."""
    with visit(browser, modules, door, lambda: HTMX_4_POST) as page:
        page.evaluate("(body) => { document.querySelector('button').dataset.body = JSON.stringify(body) }", QUICK)
        page.click("button")
        wait_until(partial(longer, page, 30))
        door.cut(reset=True)
        wait_until(lambda: page.title())
        assert (page.title(), shown(page)) == ("message", TEXT)
    assert door.requests("POST /v1/chat") == 2
    assert counted()["requests"] == 1
