"""Pages of other origins in Chromium: what an allowed one can do, and that a stranger's can do nothing at all.

The pages come from one small server, which has two names. A browser takes these for two sites: one is on the service's
list, the other is not.
"""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import pytest
from playwright.sync_api import Browser, Page

from tests.real.browser import Door, nothing_done
from tests.real.processes import Server, launch, stats
from tests.waiting import wait_until

pytestmark = pytest.mark.real

KEY = "csk_for-these-tests-alone"
API_KEYS = f"tests:{hashlib.sha256(KEY.encode()).hexdigest()}"
ECHO = "sim-echo?rate=0&first=0"
TEXT = "你好，世界。 Ünïcödé 👩‍👩‍👧‍👦 e\u0301\n" * 4


class Sites(NamedTuple):
    """Two origins, of which the service knows one."""

    friend: str
    stranger: str


class _EmptyPage(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><title>another site</title><link rel=icon href=data:,>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _EmptyPage) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield Sites(f"http://localhost:{server.server_port}", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, simulator: Server, sites: Sites) -> Iterator[Callable[..., Server]]:
    """Starts a service that pages of the friend's origin may use."""
    started: list[Server] = []

    def start(**settings: Any) -> Server:
        settings = {"allowed_origins": sites.friend, "reconnect_ms": 100, "retry_wait": 0.01, **settings}
        started.append(launch(tmp_path_factory.mktemp("service"), simulator, **settings))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def closed(start: Callable[..., Server]) -> Server:
    """A service that asks for credentials."""
    return start(api_keys=API_KEYS)


@pytest.fixture(scope="module")
def open_to_all(start: Callable[..., Server]) -> Server:
    """A service on loopback that asks for none: what a developer runs, with any page open beside it."""
    return start()


@contextmanager
def visit(browser: Browser, url: str) -> Iterator[Page]:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        yield page


ASK = """async ({ url, body, headers = {}, method = "POST" }) => {
  try {
    const answer = await fetch(url, {
      method,
      headers: body ? { "Content-Type": "application/json", ...headers } : headers,
      body: body && JSON.stringify(body),
    });
    return { status: answer.status, headers: Object.fromEntries(answer.headers), text: await answer.text() };
  } catch ({ name, message }) {
    return { name, message };
  }
}"""


def ask(page: Page, url: str, key: str | None = KEY, **how: Any) -> dict[str, Any]:
    """Ask with the page's own fetch, and return all that the browser lets it see."""
    headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **how.pop("headers", {})}
    found: dict[str, Any] = page.evaluate(ASK, {"url": url, "headers": headers, **how})
    return found


def code_of(answer: dict[str, Any]) -> str:
    return str(httpx.Response(200, text=answer["text"]).json()["error"]["code"])


def text_of(stream: str) -> str:
    """Return the answer's text in an event stream."""
    blocks = [block for block in stream.split("\n\n") if "event: delta\n" in block]
    data = [line.removeprefix("data: ") for block in blocks for line in block.split("\n") if line.startswith("data: ")]
    return "".join(httpx.Response(200, text=line).json()["content"] for line in data)


# An allowed page.


def test_an_allowed_page_reads_a_stream(browser: Browser, closed: Server, sites: Sites) -> None:
    """With a key and an idempotency key it starts a stream, reads it, sees our headers, resumes and stops it."""
    with visit(browser, sites.friend) as page:
        body = {"prompt": TEXT, "model": ECHO, "chunk": "none"}
        given = {"Idempotency-Key": "one", "X-Request-Id": "a-page-of-ours"}
        answer = ask(page, f"{closed.url}/v1/chat", body=body, headers=given)
        assert (answer["status"], text_of(answer["text"])) == (200, TEXT)
        seen = answer["headers"]
        where = f"{closed.url}{seen['content-location']}"
        assert seen["x-request-id"] == "a-page-of-ours"
        assert where.endswith(seen["x-stream-id"])
        assert seen["content-type"] == "text/event-stream; charset=utf-8"

        again = ask(page, f"{closed.url}/v1/chat", body=body, headers={"Idempotency-Key": "one"})
        assert again["headers"]["x-stream-id"] == seen["x-stream-id"]
        rest = ask(page, where, method="GET", headers={"Last-Event-ID": f"{seen['x-stream-id']}-3"})
        assert rest["status"] == 200
        assert TEXT.endswith(text_of(rest["text"]))
        assert 0 < len(text_of(rest["text"])) < len(TEXT)
        assert ask(page, where, method="DELETE")["status"] == 200


def test_an_allowed_page_reads_errors(browser: Browser, closed: Server, sites: Sites) -> None:
    """Refusals carry the headers that let the page read them, whichever layer refuses."""
    with visit(browser, sites.friend) as page:
        url = f"{closed.url}/v1/chat"
        for status, code, answer in (
            (400, "bad_request", ask(page, url, body={"prompt": "hi", "nonsense": 1})),
            (401, "unauthenticated", ask(page, url, key=None, body={"prompt": "hi"})),
            (401, "unauthenticated", ask(page, url, key="csk_another", body={"prompt": "hi"})),
            (404, "unknown_stream", ask(page, f"{closed.url}/v1/streams/AAAAAAAAAAAAAAAAAAAAAA", method="GET")),
            (404, "not_found", ask(page, f"{closed.url}/nothing", method="GET")),
            (405, "method_not_allowed", ask(page, url, method="DELETE")),
            (502, "upstream_auth", ask(page, url, body={"prompt": "hi", "model": "error-401"})),
        ):
            assert (answer.get("status"), code_of(answer)) == (status, code)
            assert answer["headers"]["x-request-id"]
        answer = ask(page, url, body={"prompt": "hi", "model": "error-429?retry_after=60"})
        assert (answer["status"], code_of(answer)) == (429, "upstream_rate_limited")
        assert answer["headers"]["retry-after"] == "60"


LISTEN = """async ({ url, body, key }) => {
  const headers = { "Content-Type": "application/json", Accept: "application/json", Authorization: `Bearer ${key}` };
  const answer = await fetch(new URL("/v1/chat", url), { method: "POST", headers, body: JSON.stringify(body) });
  const made = await answer.json();
  Object.assign(window, { text: "", losses: 0, ids: [], location_: answer.headers.get("Location") });
  window.source = new EventSource(new URL(made.url, url));
  for (const kind of ["start", "delta", "done", "error"]) {
    source.addEventListener(kind, (event) => {
      if (!(event instanceof MessageEvent)) return (window.losses += 1);
      window.ids.push(event.lastEventId);
      if (kind === "delta") window.text += JSON.parse(event.data).content;
    });
  }
  return made;
}"""


def test_an_allowed_page_has_an_event_source(browser: Browser, closed: Server, sites: Sites) -> None:
    """A native EventSource, which sends no key, opens the url with the ticket; cut, it resumes; it closes."""
    with Door(closed.url) as door, visit(browser, sites.friend) as page:
        body = {"prompt": TEXT, "model": "sim-echo?rate=60&first=0", "chunk": "none"}
        made = page.evaluate(LISTEN, {"url": door.url, "body": body, "key": KEY})
        assert made["url"].startswith(f"/v1/streams/{made['stream_id']}?ticket=")
        assert page.evaluate("window.location_") == made["url"]
        wait_until(lambda: page.evaluate("window.ids.length") > 10)
        door.cut(reset=True)
        wait_until(lambda: page.evaluate("window.source.readyState") == 2)
        assert page.evaluate("window.text") == TEXT
        numbers = [int(name.rpartition("-")[2]) for name in page.evaluate("window.ids")]
        assert numbers == list(range(1, len(numbers) + 1))
        gets = [head for head in door.heads if head.startswith("GET /v1/streams/")]
        assert len(gets) == 3  # the first, the resumed, and the one that is told 204
        assert not any("uthorization" in head for head in gets)


READ = """async ({ url, body, options = {}, ...plan }) => {
  const { chat, attach } = await import(new URL("/client.js", url).href);
  const news = [];
  const onConnection = ({ state, delay, error }) => news.push([state, delay, error?.message]);
  const given = { url: new URL("/v1/chat", url).href, ...options, onConnection };
  const stream = body ? chat(body, given) : attach(plan.attach, given);
  Object.assign(window, { stream, news, failure: null });
  try {
    for await (const { type, data } of stream) {
      if (type === plan.dropAt) stream.reconnect();
      if (type === plan.cancelAt) await stream.cancel(plan.how);
    }
    return { news, url: stream.url, text: stream.text, end: stream.end };
  } catch ({ name, message, status, code }) {
    return (window.failure = { news, name, message, status, code });
  }
}"""


def read(page: Page, url: str, **plan: Any) -> dict[str, Any]:
    """Read one stream with client.js, imported from the service, and return what came of it."""
    found: dict[str, Any] = page.evaluate(READ, {"url": url, **plan})
    return found


def test_an_allowed_page_imports_the_client(browser: Browser, closed: Server, sites: Sites) -> None:
    """client.js works from another origin: a key in its headers; or none, with the url that the stream's start told."""
    keyed = {"headers": {"Authorization": f"Bearer {KEY}"}}
    with Door(closed.url) as door, visit(browser, sites.friend) as page:
        body = {"prompt": TEXT, "model": "sim-echo?rate=100&first=0", "chunk": "none"}
        found = read(page, door.url, body=body, options=keyed, dropAt="start")
        assert (found["text"], found["end"]["type"]) == (TEXT, "done")
        assert [state for state, *_ in found["news"]] == ["open", "lost", "open"]
        assert "?ticket=" in found["url"]

        def keyless() -> int:
            reads = [head for head in door.heads if head.startswith("GET /v1/streams/")]
            return len(reads) - sum("uthorization" in head for head in reads)

        assert keyless() == 0
        again = read(page, door.url, attach=found["url"])
        assert (again["text"], again["url"]) == (TEXT, found["url"])
        assert keyless() == 1
        by_id = read(page, door.url, attach=found["url"].partition("?")[0].rpartition("/")[2], options=keyed)
        assert by_id["text"] == TEXT


def test_no_credentials_for_another_origin(browser: Browser, closed: Server, sites: Sites) -> None:
    """client.js reads a stream at another origin than it was given with that stream's own ticket, and nothing else."""
    keyed = {"headers": {"Authorization": f"Bearer {KEY}", "X-Own": "theirs"}, "ticket": "t.t"}
    with Door(closed.url) as door, Door(closed.url) as elsewhere, visit(browser, sites.friend) as page:
        made = read(page, door.url, body={"prompt": TEXT, "model": ECHO}, options={"headers": keyed["headers"]})
        ticketed = made["url"].replace(door.url, elsewhere.url)
        bare = ticketed.partition("?")[0]
        for given in ({}, {"url": "/v1/chat"}):  # what was given: the service, or the page's own origin
            found = read(page, door.url, attach=bare, options={**keyed, **given})
            assert (found["status"], found["code"]) == (401, "unauthenticated")
            assert read(page, door.url, attach=ticketed, options={**keyed, **given})["text"] == TEXT
        assert elsewhere.requests("GET /v1/streams/") == 4
        said = "".join(elsewhere.heads).lower()
        assert not any(secret in said for secret in ("authorization", "x-own", "ticket=t.t"))
        meant = read(page, door.url, attach=bare, options={**keyed, "url": f"{elsewhere.url}/v1/chat"})
        assert meant["text"] == TEXT
        assert "authorization" in elsewhere.heads[-1].lower()


@pytest.mark.parametrize("how", [{}, {"beacon": True}], ids=["fetch", "beacon"])
def test_a_ticket_stops_its_stream(
    browser: Browser, closed: Server, simulator: Server, sites: Sites, how: dict[str, Any]
) -> None:
    """A ticket alone is enough to stop its stream, also in a closing page's beacon, which has no headers."""
    before = stats(simulator)["streams_aborted"]
    body = {"prompt": "hi", "model": "never-ends"}
    headers = {"Authorization": f"Bearer {KEY}", "Accept": "application/json"}
    made = httpx.post(f"{closed.url}/v1/chat", json=body, headers=headers).json()
    with visit(browser, sites.friend) as page:
        found = read(page, closed.url, attach=f"{closed.url}{made['url']}", cancelAt="delta", how=how)
        assert (found["end"]["type"], found["end"]["data"]["finish_reason"]) == ("done", "cancelled")
    wait_until(lambda: stats(simulator)["streams_aborted"] == before + 1)


def test_no_credentials_are_final(browser: Browser, closed: Server, sites: Sites) -> None:
    """client.js throws a 401 with the service's own message, and asks no more; nor with a ticket that is not good."""
    with Door(closed.url) as door, visit(browser, sites.friend) as page:
        for how in ({"body": {"prompt": "hi"}}, {"attach": f"{door.url}/v1/streams/{'A' * 22}?ticket=forged.ticket"}):
            found = read(page, door.url, **how)
            assert (found["name"], found["status"], found["code"]) == ("ChatError", 401, "unauthenticated")
            assert found["message"].endswith(".")
            assert found["news"] == []
        assert len([head for head in door.heads if "/v1/" in head and not head.startswith("OPTIONS")]) == 2


def test_a_full_house_is_come_back_to(browser: Browser, start: Callable[..., Server], sites: Sites) -> None:
    """Told to come back, client.js and EventSource do, no earlier than told, and are no failure: they get it all."""
    service = start(max_readers=1)
    json = {"Accept": "application/json"}
    made = httpx.post(f"{service.url}/v1/chat", json={"prompt": TEXT, "model": ECHO}, headers=json).json()
    held = httpx.post(f"{service.url}/v1/chat", json={"prompt": "hi", "model": "never-ends"}, headers=json).json()
    url = f"{service.url}{made['url']}"
    with visit(browser, sites.friend) as page:
        with httpx.stream("GET", f"{service.url}{held['url']}") as reader:
            reading = reader.iter_raw()  # kept: its end would be the connection's
            next(reading)
            plan = {"url": service.url, "attach": url, "options": {"retries": 3, "maxDelay": 200}}
            page.evaluate(f"(plan) => void ({READ})(plan)", plan)
            wait_until(lambda: page.evaluate("window.news?.length"))
            page.evaluate(
                """(url) => {
                  window.text = "";
                  window.source = new EventSource(url);
                  source.addEventListener("delta", ({ data }) => (window.text += JSON.parse(data).content));
                  source.onerror = () => (window.gone = source.readyState);
                }""",
                url,
            )
            wait_until(lambda: page.evaluate("window.gone") == 0)  # it will come back by itself
            told = page.evaluate("window.news")
        # Beyond `maxDelay`, which holds where nothing is lost yet; and no stream was ever open.
        assert all(state == "lost" and delay >= 1000 for state, delay, _ in told)
        wait_until(lambda: page.evaluate("window.stream.end?.type || window.failure") == "done")
        assert page.evaluate("window.stream.text") == TEXT
        wait_until(lambda: page.evaluate("window.text.length") == len(TEXT.encode("utf-16-le")) // 2)
        assert page.evaluate("window.text") == TEXT


def test_any_origin(start: Callable[..., Server], browser: Browser, sites: Sites) -> None:
    """With `*` any page may use the service, one without an origin included; with its key, not its reader's."""
    service = start(allowed_origins="*", api_keys=API_KEYS)
    with visit(browser, sites.stranger) as page:
        answer = ask(page, f"{service.url}/v1/chat", body={"prompt": "hi", "model": ECHO})
        assert (answer["status"], text_of(answer["text"])) == (200, "hi")
        assert ask(page, f"{service.url}/v1/chat", key=None, body={"prompt": "hi"})["status"] == 401


# A stranger's page.


FORM = """(url) => {
  const form = document.createElement("form");
  Object.assign(form, { method: "POST", action: url, enctype: "text/plain", target: "hidden" });
  const frame = Object.assign(document.createElement("iframe"), { name: "hidden" });
  const json = { name: '{"prompt":"hi","model":"', value: 'sim-gpt"}' }; // sent as name=value, a body of JSON
  form.append(Object.assign(document.createElement("input"), json));
  document.body.append(frame, form);
  form.submit();
}"""
BLIND = """async (url) => {
  const answer = await fetch(url, { method: "POST", mode: "no-cors", body: '{"prompt":"hi"}' });
  return [answer.type, answer.status, await answer.text()];
}"""
LISTENING = """(url) => new Promise((resolve) => {
  const source = new EventSource(url);
  source.onopen = () => resolve("open");
  source.onerror = () => resolve(source.readyState);
})"""


@pytest.mark.parametrize("asked_for", ["key", "nothing"])
def test_a_strangers_page_is_refused(
    browser: Browser, closed: Server, open_to_all: Server, simulator: Server, sites: Sites, asked_for: str
) -> None:
    """It can neither ask nor read nor listen nor import, be there credentials or not, and nothing is spent."""
    service = closed if asked_for == "key" else open_to_all
    with visit(browser, sites.stranger) as page:
        with nothing_done(service, simulator, "origin_not_allowed"):  # the preflight; the POST is not sent
            answer = ask(page, f"{service.url}/v1/chat", body={"prompt": "hi"})
            assert answer["name"] == "TypeError"
        headers = {"Authorization": f"Bearer {KEY}"}
        made = httpx.post(f"{service.url}/v1/chat", json={"prompt": "hi", "model": ECHO}, headers=headers)
        where = f"{service.url}{made.headers['content-location']}"
        with nothing_done(service, simulator, "origin_not_allowed", 4):
            assert ask(page, where, key=None, method="GET")["name"] == "TypeError"
            assert ask(page, where, key=None, method="DELETE")["name"] == "TypeError"
            assert page.evaluate(LISTENING, where) == 2
            assert page.evaluate("(url) => import(url).catch(({ name }) => name)", f"{service.url}/client.js") == (
                "TypeError"
            )


def test_forms_and_beacons_cost_nothing(browser: Browser, open_to_all: Server, simulator: Server, sites: Sites) -> None:
    """What a page can send without asking leave first (CSRF) is refused as well: blind POSTs, forms, beacons, and all
    that from a frame without an origin."""
    chat = f"{open_to_all.url}/v1/chat"
    with visit(browser, sites.stranger) as page:
        with nothing_done(open_to_all, simulator, "origin_not_allowed"):
            assert page.evaluate(BLIND, chat) == ["opaque", 0, ""]
        with nothing_done(open_to_all, simulator, "origin_not_allowed"):
            page.evaluate(FORM, chat)
        with nothing_done(open_to_all, simulator, "origin_not_allowed"):
            assert page.evaluate("""(url) => navigator.sendBeacon(url, '{"prompt":"hi"}')""", chat)
        with nothing_done(open_to_all, simulator, "origin_not_allowed"):  # its Origin is `null`
            page.evaluate(
                """([url, blind]) => {
                  const frame = Object.assign(document.createElement("iframe"), { sandbox: "allow-scripts" });
                  frame.srcdoc = `<script>(${blind})("${url}")</script>`;
                  document.body.append(frame);
                }""",
                [chat, BLIND],
            )
    with visit(browser, sites.friend) as page, nothing_done(open_to_all, simulator, "unsupported_media_type"):
        page.evaluate(FORM, chat)  # not even a friend's form may spend money


def test_a_rebound_name_is_refused(browser: Browser, open_to_all: Server, simulator: Server) -> None:
    """A page whose own name leads to us (DNS rebinding) is of our origin for the browser, and not for us."""
    rebound = open_to_all.url.replace("127.0.0.1", "evil.localhost")  # a name that browsers resolve to loopback
    with browser.new_context() as context:
        page = context.new_page()
        page.route(f"{rebound}/trap", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
        page.goto(f"{rebound}/trap")
        with nothing_done(open_to_all, simulator, "host_not_allowed", 2):
            answer = ask(page, "/v1/chat", key=None, body={"prompt": "hi"})
            assert (answer["status"], code_of(answer)) == (403, "host_not_allowed")
            shown = page.goto(rebound)
            assert shown is not None
            assert shown.status == 403
