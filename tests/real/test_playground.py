"""The playground in Chromium: what it shows is what the server has, whatever happens to its connection."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, ViewportSize, expect

from app.edge.static import playground as files
from tests.real.playground import answer, ask, ended, part, playground, snapshot
from tests.real.processes import Server, launch, left_unread, stats
from tests.waiting import wait_until

pytestmark = pytest.mark.real

TEXT = (
    "你好，世界。こんにちは。สวัสดีครับ مرحبا Ünïcödé 👩‍👩‍👧‍👦 👍🏽 \u2028 e\u0301\n\n  two\tspaces <b>&amp;</b>\nend. "
    * 3
)
TRANSPORTS = ["fetch", "native"]
KEY = "csk_for-these-tests-alone"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), simulator, reconnect_ms=200, retry_wait=0.01)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    """A service that asks for credentials."""
    keys = f"tests:{hashlib.sha256(KEY.encode()).hexdigest()}"
    server = launch(tmp_path_factory.mktemp("service"), simulator, reconnect_ms=200, retry_wait=0.01, api_keys=keys)
    yield server
    server.stop()


@pytest.fixture
def page(browser: Browser, service: Server) -> Iterator[Page]:
    with playground(browser, service) as page:
        yield page


@pytest.fixture
def locked_page(browser: Browser, locked: Server) -> Iterator[Page]:
    with playground(browser, locked) as page:
        yield page


def test_it_brings_all_it_needs(browser: Browser, service: Server) -> None:
    """The page and its parts come from the service alone, typed, under a policy that allows no more than that."""
    with browser.new_context() as context:
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        answer = page.goto(service.url)
        assert answer is not None
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        names = {url.removeprefix(service.url) for url in asked if not url.startswith("data:")}
    assert names == {"/client.js", *(path for path in files() if not path.endswith(".txt"))}
    for name in names:
        kind = {"css": "text/css", "js": "text/javascript", "/": "text/html"}[name.rpartition(".")[2]]
        whole = httpx.get(service.url + name)
        assert whole.headers["content-type"] == f"{kind}; charset=utf-8"
        assert whole.headers["x-content-type-options"] == "nosniff"
        again = httpx.get(service.url + name, headers={"If-None-Match": f'"x", W/{whole.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")


def test_every_control_has_a_name(page: Page) -> None:
    """What can be operated can be found by its name, as a screen reader does."""
    for name in ("Prompt", "system", "model", "temperature", "tools", "chunk", "smooth", "on_disconnect", "Transport"):
        expect(page.get_by_label(name, exact=True)).to_be_visible()
    for name in ("Send", "Stop", "Drop the connection"):
        expect(page.get_by_role("button", name=name)).to_be_visible()


def test_the_simulator_is_offered_where_it_answers(browser: Browser, tmp_path: Path, page: Page) -> None:
    """Samples and the menu of its models are there if the simulator answers, and the first click gets an answer."""
    expect(page.locator("#samples")).to_be_hidden()
    expect(page.get_by_label("Simulator", exact=True)).to_be_hidden()
    simulated = launch(tmp_path)
    try:
        with playground(browser, simulated) as first:
            expect(first.get_by_label("Simulator", exact=True)).to_be_visible()
            first.locator("#samples button").first.click()
            wait_until(lambda: len(answer(first)) > 20)
    finally:
        simulated.stop()


@pytest.mark.parametrize(
    ("model", "end", "whole"),
    [
        ("sim-gpt?rate=0&first=0", "Done.", True),
        ("tools?rate=0&first=0", "Done.", True),
        ("refusal?rate=0&first=0", "The model refused.", False),
        ("content-filter?after=5&first=0", "the content filter ended it", False),
        ("cut-before-finish?after=5&first=0", "The answer broke off", False),
    ],
)
def test_only_a_whole_answer_is_called_whole(page: Page, model: str, end: str, whole: bool) -> None:
    """An answer that broke off or was refused is compared with the server's, and not said to be whole."""
    ask(page, "hi", model)
    ended(page)
    expect(part(page, "ending")).to_contain_text(end)
    assert ("Whole" in part(page, "whole").inner_text()) == whole
    assert "are what the server has." in part(page, "whole").inner_text()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_answer_streams(page: Page, transport: str) -> None:
    """A prompt is answered as it comes, with its figures, and the page shows what the server has."""
    ask(page, TEXT, "sim-echo?rate=30&first=0.1", transport, chunk="word", smooth="150")
    wait_until(lambda: 0 < len(answer(page)) < len(TEXT))
    assert ended(page) == TEXT == snapshot(page)["content"]
    expect(page.locator("#state")).to_have_text("done")
    assert page.inner_text("#first").endswith(" ms")
    assert float(page.inner_text("#rate")) > 0
    assert page.inner_text("#last") == snapshot(page)["last_event_id"].rpartition("-")[2]
    assert page.locator("#events [data-type=done]").count() == 1
    expect(page.get_by_role("status")).to_have_text("Done.")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_dropped_connection_loses_nothing(page: Page, transport: str) -> None:
    """Dropped twice mid-answer, the page says so, resumes, and ends with the very text of an uncut answer."""
    ask(page, TEXT, "sim-echo?rate=20&first=0", transport)
    for times in (1, 2):
        before = len(answer(page))
        wait_until(lambda before=before: len(answer(page)) > before + 20)  # type: ignore[misc]  # mypy infers no default of a lambda
        page.click("#drop")
        expect(page.locator("#events .lost")).to_have_count(times)
        expect(page.locator("#resumed")).to_have_text(f"{times}×")
    assert ended(page) == TEXT
    assert "after 2 cuts" in part(page, "whole").inner_text()
    expect(page.locator("#events .back")).to_have_count(2)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_stop_reaches_upstream(page: Page, service: Server, simulator: Server, transport: str) -> None:
    """Stop ends the answer as cancelled, keeps what has come, and aborts the upstream's request without a grace."""
    before = stats(simulator)["streams_aborted"]
    ask(page, "hi", "never-ends", transport)
    wait_until(lambda: len(answer(page)) > 20)
    page.click("#stop")
    wait_until(lambda: stats(simulator)["streams_aborted"] == before + 1)
    assert ended(page) == snapshot(page)["content"]
    expect(part(page, "ending")).to_have_text("Stopped.")
    assert snapshot(page)["finish_reason"] == "cancelled"
    assert page.url.rpartition("=")[2] not in left_unread(service)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_stop_before_it_has_begun(page: Page, simulator: Server, transport: str) -> None:
    """Stop counts while the request is still on its way: the answer is cancelled as soon as it can be."""
    held: list[Route] = []
    page.route("**/v1/chat", lambda route: held.append(route))  # Playwright takes no method of a list
    ask(page, "hi", "never-ends", transport)
    wait_until(lambda: page.evaluate("1") == 1 and len(held) == 1)  # Playwright calls back while it waits for the page
    page.click("#stop")
    held[0].continue_()
    expect(part(page, "ending")).to_have_text("Stopped.")
    wait_until(lambda: stats(simulator)["live"] == 0)


def test_a_second_tab(page: Page, service: Server) -> None:
    """A second tab replays what there is and goes on live; a reload does the same."""
    ask(page, TEXT, "sim-echo?rate=70&first=0")
    wait_until(lambda: len(answer(page)) > 20)
    with page.context.expect_page() as opening:
        page.click("#second")
    second = opening.value
    assert ended(page) == ended(second) == TEXT
    second.reload()
    assert ended(second) == TEXT
    second.goto(f"{service.url}/?stream=unknown-stream")
    expect(second.locator("#state")).to_have_attribute("data-state", "error")


FAULTS = [
    ("cut-before-finish?after=5&first=0", "The answer broke off:", "upstream_disconnected"),
    ("error-in-stream?after=5&first=0", "The answer broke off:", "upstream_error"),
    ("error-401?first=0", "Refused with 502:", "upstream_auth"),
    ("error-429?retry_after=60&first=0", "Refused with 429:", "upstream_rate_limited"),
]


@pytest.mark.parametrize(("model", "words", "code"), FAULTS)
def test_a_fault_is_an_error(page: Page, model: str, words: str, code: str) -> None:
    """What fails at the server is shown as its error, before and after the first text, never as a lost connection."""
    ask(page, "hi", model)
    expect(page.locator("#state")).to_have_text(f"error: {code}")
    expect(part(page, "ending")).to_contain_text(words)
    assert page.locator("#events .lost").count() == 0
    if "broke off" in words:
        assert ended(page)


def test_what_is_not_the_answer(page: Page) -> None:
    """Reasoning, refusals and tool calls are shown, each in its own place."""
    ask(page, "hi", "reasoning?rate=0&first=0")
    assert ended(page)
    expect(part(page, "reasoning")).to_contain_text("The reader asks something.")
    ask(page, "hi", "refusal?rate=0&first=0")
    assert ended(page) == ""
    expect(part(page, "refusal")).to_contain_text("I’m sorry")
    ask(page, "hi", "tools?rate=0&first=0")
    ended(page)
    expect(part(page, "calls")).to_contain_text("get_weather {")


PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NOTES = [
    {"type": "url_citation", "url_citation": {"url": "https://a.example/1", "title": "<b>One</b>", "start_index": 0}},
    {"type": "url_citation", "url": "https://b.example/2", "title": "Two"},
    {"type": "url_citation", "url_citation": {"url": "javascript:alert(1)", "title": "Three"}},
    {"type": "file_citation", "filename": "four.pdf", "file_id": "file-4"},
]
RICH: list[dict[str, Any]] = [
    {"delta": {"role": "assistant", "reasoning": "Let me see."}},
    {"delta": {"content": "See [1]."}},
    {"delta": {"annotations": NOTES}},
    {"delta": {"images": [{"type": "image_url", "image_url": {"url": PIXEL}}]}},
    {"delta": {"images": [{"type": "image_url", "image_url": {"url": "https://c.example/cat.png"}}]}},
    {"delta": {}, "finish_reason": "stop"},
]


@pytest.fixture
def rich() -> Iterator[str]:
    """An upstream whose answer is more than text: its base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            beside = {"search_results": [{"title": "Five", "url": "https://e.example/5"}]}
            for choice in RICH:
                chunk = {"choices": [{"index": 0, **choice}], "citations": ["https://e.example/5"], **beside}
                self.wfile.write(b"data: %s\n\n" % json.dumps(chunk).encode())
            self.wfile.write(b"data: [DONE]\n\n")

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_answer_is_more_than_its_text(browser: Browser, tmp_path: Path, rich: str, transport: str) -> None:
    """Sources, images and reasoning are shown with the answer; only addresses of the web are links, none is loaded."""
    service = launch(tmp_path, rich)
    try:
        with playground(browser, service) as page:
            ask(page, "hi", "any", transport)
            assert ended(page) == "See [1]."
            expect(part(page, "reasoning")).to_have_text("Let me see.")
            expect(part(page, "sources li")).to_have_text(["Five", "<b>One</b>", "Two", "Three", "four.pdf"])
            links = part(page, "sources a").evaluate_all("links => links.map((link) => link.href)")
            assert links == ["https://e.example/5", "https://a.example/1", "https://b.example/2"]
            picture = page.get_by_role("img", name="An image of the answer")
            expect(picture).to_be_visible()
            wait_until(lambda: picture.evaluate("picture => picture.naturalWidth") == 1)
            expect(part(page, "media a")).to_have_attribute("href", "https://c.example/cat.png")
            for kind in ("annotation", "media"):
                expect(page.locator(f"#events [data-type={kind}]").first).to_be_attached()
            ask(page, "once more", "any", transport)
            ended(page)
            expect(part(page, "sources li")).to_have_count(5)
            expect(part(page, "media > *")).to_have_count(2)
    finally:
        service.stop()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_row_opens_to_its_frame(page: Page, transport: str) -> None:
    """A row has the time since the event before it, and opens, by the keyboard too, to the event as it was sent."""
    with page.expect_response("**/v1/chat") as response:
        ask(page, "hi", "sim-echo?rate=0&first=0", transport)
    ended(page)
    status = 200 if transport == "fetch" else 201
    assert response.value.status == status
    request = response.value.headers["x-request-id"]
    expect(page.locator("#answered summary")).to_have_text(f"Status {status}, request {request}")
    stream = page.url.partition("?stream=")[2]
    sent = httpx.get(f"{page.url.partition('/?')[0]}/v1/streams/{stream}").text
    for kind in ("delta", "done"):
        row = page.locator(f"#events [data-type={kind}]").last
        assert re.fullmatch(r"\+\d+ ms", row.locator(".since").inner_text())
        row.locator("summary").focus()
        page.keyboard.press("Enter")
        expect(row.locator("pre")).to_be_visible()
        assert f"{row.locator('pre').text_content()}\n\n" in sent


def test_a_refusal_is_a_row(page: Page) -> None:
    """A refused request is in the list, with how long to wait, and its status and id stay in view."""
    with page.expect_response("**/v1/chat") as response:
        ask(page, "hi", "error-429?retry_after=60&first=0")
    row = page.locator("#events .refused")
    expect(row).to_contain_text("429 upstream_rate_limited: ")
    expect(row).to_contain_text(re.compile(r"Retry-After: 60 s, \d+ s left\."))
    expect(page.locator("#answered summary")).to_have_text(
        f"Status 429, request {response.value.headers['x-request-id']}"
    )


@pytest.mark.parametrize(
    ("transport", "words"), [("fetch", "The server answered"), ("native", "Something between this")]
)
@pytest.mark.parametrize("body", ["<h1>Not Found</h1>", "null", '{"message": "no"}'])
def test_a_refusal_that_is_not_the_services(page: Page, transport: str, words: str, body: str) -> None:
    """What a proxy says in the service's place is shown by its status, and not by what could not be read of it."""
    page.route("**/v1/chat", lambda route: route.fulfill(status=404, content_type="text/html", body=body))
    ask(page, "hi", "sim-echo", transport)
    row = page.locator("#events .refused")
    expect(row).to_contain_text(words)
    expect(row).to_contain_text("404")


def test_the_keyboard_keeps_its_place(page: Page) -> None:
    """Drop and Stop keep the focus, and so does Escape, which stops the answer from wherever the focus is."""
    ask(page, "hi", "never-ends")
    wait_until(lambda: len(answer(page)) > 20)
    for name, state in (("#drop", "Resumed."), ("#stop", "Stopped.")):
        page.focus(name)
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_have_text(state)
        expect(page.locator(name)).to_be_focused()
    ended(page)
    ask(page, "hi", "never-ends")
    wait_until(lambda: len(answer(page)) > 20)
    page.focus("#prompt")
    page.keyboard.press("Escape")
    expect(part(page, "ending")).to_have_text("Stopped.")
    expect(page.locator("#prompt")).to_be_focused()
    assert snapshot(page)["finish_reason"] == "cancelled"


def test_the_composer_empties_and_grows(page: Page) -> None:
    """It grows with the prompt, to a bound, and empties when that is sent; what was refused comes back."""
    height = "document.getElementById('prompt').clientHeight"
    prompt = page.locator("#prompt")
    small = page.evaluate(height)
    page.fill("#prompt", "line\n" * 5)
    grown = page.evaluate(height)
    page.fill("#prompt", "line\n" * 200)
    assert small < grown < page.evaluate(height) <= page.evaluate("innerHeight * 0.3")
    ask(page, "line\n" * 9, "never-ends")
    expect(prompt).to_have_value("")
    assert page.evaluate(height) == small
    page.fill("#prompt", "a draft")
    page.keyboard.press("Escape")
    expect(part(page, "ending")).to_have_text("Stopped.")
    expect(prompt).to_have_value("a draft")
    ask(page, "refuse this", "error-400")
    expect(part(page, "ending")).to_contain_text("Refused with")
    expect(prompt).to_have_value("refuse this")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_borders_can_be_seen(page: Page, scheme: Literal["light", "dark"]) -> None:
    """The border of each control has a contrast of 3:1 to both its sides (WCAG 2.2, 1.4.11)."""
    page.emulate_media(color_scheme=scheme)
    contrasts = page.evaluate("""() => {
      const rgb = (colour) => colour.match(/[\\d.]+/g).map(Number);
      const light = (colour) => {
        const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        const [r, g, b] = rgb(colour).map((part) => linear(part / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
      };
      const ground = (element) => {
        const colour = getComputedStyle(element).backgroundColor;
        return rgb(colour)[3] === 0 ? ground(element.parentElement) : colour;
      };
      const selector = "button:not(.primary), select, input, textarea:not(#prompt), #composer";
      return [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility()).map((one) => {
        const edge = light(getComputedStyle(one).borderTopColor);
        const sides = [ground(one), ground(one.parentElement)].map(light);
        return [one.id, Math.min(...sides.map((side) => Math.max(edge / side, side / edge)))];
      });
    }""")
    assert {"stop", "drop", "model", "chunk", "composer"} <= {name for name, _ in contrasts}
    assert [name for name, contrast in contrasts if contrast < 3] == []


def test_markup_is_text(page: Page) -> None:
    """An answer that is HTML is shown as it is written, and does nothing."""
    text = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    ask(page, text, "sim-echo?rate=0&first=0")
    assert ended(page) == text
    assert page.locator(".answer img, .answer script").count() == 0
    assert page.title() == "chat-sse playground"


def test_the_policy_holds(browser: Browser, service: Server) -> None:
    """Even if markup got into the page, neither it nor a script in it would run, nor load or send anything."""
    attacks = """() => {
      window.blocked = [];
      document.addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
      const tried = [];
      const attack = (name, what) => {
        try {
          what();
          tried.push(name);
        } catch ({ name: error }) {
          tried.push(`${name}: ${error}`);
        }
      };
      attack("markup", () => (document.body.innerHTML = "<img src=x onerror=document.title='owned'>"));
      attack("script", () => {
        const script = document.createElement("script");
        script.append("document.title = 'owned'");
        document.body.append(script);
      });
      attack("image", () => (new Image().src = "/healthz?stolen"));
      attack("fetch", () => void fetch("https://evil.example/").catch(() => 0));
      const add = (name, what) => document.head.append(Object.assign(document.createElement(name), what));
      attack("base", () => add("base", { href: "//evil.example" }));
      attack("frame", () => add("iframe", { src: "/client.js" }));
      return tried;
    }"""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(service.url)
        answered: list[str] = []
        page.on("response", lambda response: answered.append(response.url))
        assert page.evaluate(attacks) == ["markup: TypeError", "script", "image", "fetch", "base", "frame"]
        # The script is stopped by the first of the two policies that forbid it.
        expected = sorted(["require-trusted-types-for"] * 2 + ["img-src", "connect-src", "base-uri", "frame-src"])
        wait_until(lambda: sorted(page.evaluate("window.blocked")) == expected)
        assert page.evaluate("document.baseURI") == f"{service.url}/"
        assert page.title() == "chat-sse playground"
        assert answered == []


# With credentials.


def unlock(page: Page, key: str = KEY) -> None:
    expect(page.get_by_label("API key", exact=True)).to_be_focused()
    page.keyboard.type(key)
    page.keyboard.press("Enter")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_key_is_asked_for(locked_page: Page, transport: str) -> None:
    """Refused for want of a key, the page asks for one, and then asks again; a wrong key is asked for again."""
    page = locked_page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    field = page.get_by_label("API key", exact=True)
    expect(field).to_be_hidden()
    ask(page, TEXT, "sim-echo?rate=200&first=0", transport)
    for code in ("unauthenticated", "unauthenticated"):
        expect(page.locator("#state")).to_have_text(f"error: {code}")
        expect(part(page, "ending")).to_contain_text("Refused with 401:")
        unlock(page, "csk_wrong")
    expect(part(page, "ending")).to_contain_text("Refused with 401:")
    unlock(page, f" {KEY} ")  # as it may come out of a clipboard
    assert ended(page) == TEXT
    expect(field).to_be_hidden()
    expect(page.get_by_role("button", name="Change the API key")).to_be_visible()

    # Nothing has it but the page's memory and the headers.
    assert (field.get_attribute("type"), field.get_attribute("autocomplete")) == ("password", "off")
    assert field.input_value() == ""
    assert not [url for url in [*asked, page.url] if "csk_" in url]
    kept = page.evaluate("[document.cookie, ...Object.values(localStorage), ...Object.values(sessionStorage)].join()")
    assert kept == ""
    assert KEY not in page.evaluate("JSON.stringify(history.state)")
    assert KEY not in page.content()


def test_a_key_is_given_before(locked_page: Page) -> None:
    """A button opens the field before anything is refused; what cannot be a key is not taken; empty forgets it."""
    page = locked_page
    page.click("#keys")
    unlock(page, "two words")
    expect(page.locator("#key:invalid")).to_be_visible()
    page.fill("#key", KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    ask(page, "hi", "sim-echo?rate=0&first=0")
    assert ended(page) == "hi"
    page.click("#keys")
    unlock(page, "")
    ask(page, "hi", "sim-echo?rate=0&first=0")
    expect(page.locator("#state")).to_have_text("error: unauthenticated")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_second_tab_needs_no_key(locked_page: Page, locked: Server, simulator: Server, transport: str) -> None:
    """The link to a second tab opens that stream to it, to read, compare and stop; its ticket is sent to no log."""
    before = stats(simulator)["streams_aborted"]
    page = locked_page
    page.click("#keys")
    unlock(page)
    ask(page, "hi", "never-ends", transport)
    wait_until(lambda: len(answer(page)) > 20)
    assert "?stream=" in page.url
    assert "#ticket=" in page.url
    loaded: list[str] = []
    page.context.on("request", lambda request: loaded.append(request.url) if request.is_navigation_request() else None)
    with page.context.expect_page() as opening:
        page.click("#second")
    second = opening.value
    wait_until(lambda: len(answer(second)) > 20)
    second.reload()
    wait_until(lambda: len(answer(second)) > 20)
    second.click("#drop")
    expect(second.locator("#resumed")).to_have_text("1×")
    second.click("#stop")
    wait_until(lambda: stats(simulator)["streams_aborted"] == before + 1)
    assert ended(second) == ended(page)
    ticket = page.url.partition("#ticket=")[2]
    assert ticket
    assert ticket not in locked.text()
    second.goto("about:blank")
    second.goto(page.url.partition("#")[0])
    expect(second.locator("#state")).to_have_text("error: unauthenticated")
    unlock(second)
    assert ended(second) == answer(page)


def stays(page: Page, top: str) -> bool:
    """Return whether *top*, where the answer is scrolled to, is the same after more of the answer has come."""
    there, length = page.evaluate(top), len(answer(page))
    wait_until(lambda: len(answer(page)) > length + 40)
    return bool(page.evaluate(top) == there)


@pytest.mark.parametrize("slowdown", [1, 6])
def test_the_reader_may_scroll(page: Page, slowdown: int) -> None:
    """The page follows the answer, unless the reader has scrolled up; one button goes back to following."""
    box = page.locator("#scroller").bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)
    session.send("Emulation.setCPUThrottlingRate", {"rate": slowdown})
    top = "document.getElementById('scroller').scrollTop"
    ask(page, "x\n" * 50, "sim-echo?tokens=0&rate=150&first=0&size=4")
    wait_until(lambda: page.evaluate(top) > 300)
    # Not `hover` and `click`, which wait until a busy page has nothing to do.
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -200)
    expect(page.locator("#latest")).to_be_visible()
    wait_until(lambda: stays(page, top))  # the browser may go on scrolling for a moment
    expect(page.locator("#latest")).to_be_visible()
    there = page.evaluate(top)
    page.dispatch_event("#latest", "click")
    wait_until(lambda: page.evaluate(top) > there + 200)
    session.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    page.click("#stop")
    ended(page)


def test_late_scroll_events(page: Page) -> None:
    """The event of the page's own scrolling changes nothing, however late; only the reader's own moves do."""
    ask(page, "x\n" * 200, "sim-echo?rate=0&first=0")
    ended(page)
    moves = """([wheel, moved]) => {
      const scroller = document.getElementById("scroller");
      if (wheel) scroller.dispatchEvent(new WheelEvent("wheel", { deltaY: wheel }));
      scroller.scrollTop += moved;
      scroller.dispatchEvent(new Event("scroll"));
      return scroller.dataset.following;
    }"""
    for wheel, moved, following in [
        (0, 0, "yes"),
        (-3, 0, "no"),  # the event of the page's scrolling comes after the wheel's
        (0, 0, "no"),
        (0, -3, "no"),  # and then the wheel's, within the tolerance of the end
        (0, 3, "yes"),
        (0, -3, "no"),  # an arrow key's first pixels, or a finger's
        (0, -300, "no"),
        (0, 100, "no"),
        (0, 190, "yes"),
        (0, 50, "yes"),
    ]:
        assert page.evaluate(moves, [wheel, moved]) == following, (wheel, moved)
    page.set_viewport_size(ViewportSize(width=500, height=700))
    end = "(({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight)"
    wait_until(lambda: page.evaluate(f"{end}(document.getElementById('scroller'))") < 1)
    assert page.locator("#scroller").get_attribute("data-following") == "yes"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(390, 844), (1280, 800)], ids=["phone", "desktop"])
def test_it_fits(page: Page, tmp_path: Path, size: tuple[int, int], scheme: Literal["light", "dark"]) -> None:
    """On a phone and a desktop, light and dark, nothing sticks out, and prompt, answer and Stop are in view."""
    page.set_viewport_size(ViewportSize(width=size[0], height=size[1]))
    page.emulate_media(color_scheme=scheme)
    page.reload()
    page.screenshot(path=tmp_path / "before.png")
    ask_for = "Say it in many scripts. " + "word" * 40
    page.fill("#prompt", ask_for)
    page.evaluate("document.getElementById('model').value = 'sim-gpt?rate=0&first=0&answer=tour'")
    page.click("#send")
    ended(page)
    page.screenshot(path=tmp_path / "after.png")
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    for name in ("#prompt", "#stop", ".verdict", "#state"):
        expect(page.locator(name)).to_be_in_viewport()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(ground) < 64) == (scheme == "dark")
