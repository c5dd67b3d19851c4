"""Streams in a real browser: its own EventSource on a bare page, and client.js, with connections that break."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page

from tests.real.browser import Door
from tests.real.processes import Server, launch, launch_nginx, stats
from tests.real.proxy import Cut
from tests.waiting import wait_until

pytestmark = pytest.mark.real

TEXT = (
    '你好，世界。こんにちは。สวัสดีครับ مرحبا Ünïcödé 👩‍👩‍👧‍👦 👍🏽 \u2028\u0085 e\u0301\r\n\r\n\n two\tspaces \\ "q".\r'
    * 3
)
KINDS = ["message", "start", "delta", "reasoning", "refusal", "tool_call", "done", "error"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), simulator, reconnect_ms=100, keep_alive=0.2, commit_after=0.3)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory, service: Server) -> Iterator[Server]:
    server = launch_nginx(tmp_path_factory.mktemp("nginx"), service)
    yield server
    server.stop()


@pytest.fixture(params=["direct", "nginx"])
def front(request: pytest.FixtureRequest) -> Server:
    """What the browser talks to: the service itself, or nginx before it."""
    server: Server = request.getfixturevalue("service" if request.param == "direct" else "nginx")
    return server


@pytest.fixture
def door(service: Server) -> Iterator[Door]:
    with Door(service.url) as door:
        yield door


@contextmanager
def bare(browser: Browser, door: Door) -> Iterator[Page]:
    """A page of the service's origin that is nothing but that, with client.js loaded."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{door.url}/healthz")
        page.evaluate("import('/client.js')")
        door.cut()  # so that what the test does next makes a connection of its own
        yield page


# EventSource as the browser has it.

OPEN = """async ({ body, kinds }) => {
  const answer = await fetch("/v1/chat", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: JSON.stringify(body),
  });
  const { url } = await answer.json();
  const seen = (window.seen = []);
  window.losses = 0;
  const source = (window.source = new EventSource(url));
  for (const kind of kinds) {
    source.addEventListener(kind, (event) => {
      if (event instanceof MessageEvent) seen.push([event.lastEventId, event.type, event.data]);
      else window.losses += 1;
    });
  }
  return [answer.status, url];
}"""


def open_source(page: Page, **body: Any) -> str:
    """Start a stream without reading it, open an EventSource on it, and return its url."""
    status, url = page.evaluate(OPEN, {"body": body, "kinds": KINDS})
    assert status == 201
    return str(url)


def seen(page: Page) -> list[list[str]]:
    found: list[list[str]] = page.evaluate("window.seen")
    return found


def closed(page: Page) -> bool:
    return bool(page.evaluate("window.source.readyState === EventSource.CLOSED"))


def check(events: list[list[str]], snapshot: dict[str, Any]) -> None:
    """Every id once and in order, one terminal event, last; the text is *snapshot*'s."""
    numbers = [int(name.rpartition("-")[2]) for name, _, _ in events]
    assert numbers == list(range(1, len(events) + 1))
    assert [kind for _, kind, _ in events] == ["start", *["delta"] * (len(events) - 2), "done"]
    assert text_of(events) == snapshot["content"]
    assert events[-1][0] == snapshot["last_event_id"]


def text_of(events: list[list[str]]) -> str:
    return "".join(httpx.Response(200, text=data).json()["content"] for _, kind, data in events if kind == "delta")


def snapshot(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(url, headers={"Accept": "application/json"}).json()
    return found


def test_an_event_source_comes_back(browser: Browser, front: Server) -> None:
    """Cut three times and refused for a while, EventSource resumes by itself: every id once, the text that of an uncut
    one; and after the end it comes back once more, is told 204, and asks no more."""
    with Door(front.url) as door, bare(browser, door) as page:
        url = open_source(page, prompt=TEXT, model="sim-echo?rate=30&first=0", chunk="none")
        for many in (20, 50):
            wait_until(lambda many=many: len(seen(page)) > many)  # type: ignore[misc]  # mypy infers no default of a lambda
            door.cut(reset=many == 20)
        wait_until(lambda: len(seen(page)) > 80)
        with door.refusing():
            losses = page.evaluate("window.losses")
            wait_until(lambda: page.evaluate("window.losses") > losses + 1)
        wait_until(lambda: closed(page))
        asked = door.requests("GET /v1/streams/")
        check(seen(page), snapshot(door.url + url))
        assert text_of(seen(page)) == TEXT
        ids = [
            value for head, value in zip(door.heads, door.header("last-event-id"), strict=True) if "GET /v1/s" in head
        ]
        assert ids[0] is None
        assert None not in ids[1:-1]  # the last one is the snapshot
        page.wait_for_timeout(400)  # four times what it was told to wait
        assert door.requests("GET /v1/streams/") == asked + 1
        assert door.requests("POST") == 1


def test_a_new_event_source_after_the_end(browser: Browser, door: Door) -> None:
    """One that is opened after the last event gets 204: it closes, and has seen nothing."""
    with bare(browser, door) as page:
        url = open_source(page, prompt="hi", model="sim-echo?rate=0&first=0")
        wait_until(lambda: closed(page))
        last = seen(page)[-1][0]
        again = """(url) => new Promise((resolve) => {
          const [source, seen] = [new EventSource(url), []];
          for (const kind of ["start", "delta", "done"]) source.addEventListener(kind, () => seen.push(kind));
          source.onerror = () => resolve([source.readyState, seen]);
        })"""
        assert page.evaluate(again, f"{url}?last_event_id={last}") == [2, []]
        assert page.evaluate(again, "/v1/streams/AAAAAAAAAAAAAAAAAAAAAA") == [2, []]  # 404, likewise


def test_keep_alives_are_no_events(browser: Browser, door: Door) -> None:
    """Comments reach the browser while the upstream is silent, and make no event."""
    with bare(browser, door) as page:
        url = open_source(page, prompt="hi", model="slow-content?seconds=1&rate=0&first=0", chunk="none")
        wait_until(lambda: closed(page))
        assert b"\n:\n" in door.received
        check(seen(page), snapshot(door.url + url))


def test_an_error_event_is_not_a_connection_error(browser: Browser, door: Door) -> None:
    """The stream's own `error` has data, and is the last event; the connection's have none."""
    with bare(browser, door) as page:
        open_source(page, prompt="hi", model="cut-before-finish?after=5&first=0")
        wait_until(lambda: closed(page))
        assert [kind for _, kind, _ in seen(page)][-1] == "error"
        assert "upstream_disconnected" in seen(page)[-1][2]


# client.js.

READ = """async ({ body, options = {}, ...plan }) => {
  const { chat, attach } = await import("/client.js");
  const [seen, news, leaving] = [[], [], new AbortController()];
  const onConnection = ({ state, delay, error }) => news.push([state, delay, error?.message]);
  const given = { ...options, onConnection, signal: leaving.signal };
  const stream = plan.attach ? attach(plan.attach, given) : chat(body, given);
  Object.assign(window, { stream, seen, news });
  try {
    if (plan.cancelAtOnce) setTimeout(() => stream.cancel(), 50);
    for await (const { id, type, data } of stream) {
      seen.push([id, type, JSON.stringify(data)]);
      if (seen.length === plan.abortAt) leaving.abort();
      if (seen.length === plan.beaconAt) stream.cancel({ beacon: true });
      if (seen.length === plan.leaveAt) break;
      if (seen.length === plan.hideAt) document.dispatchEvent(new Event("visibilitychange"));
    }
    return { seen, news, id: stream.id, url: stream.url, text: stream.text, end: stream.end?.type };
  } catch ({ name, message, status, code }) {
    return { seen, news, name, message, status, code, text: stream.text };
  }
}"""


def read(page: Page, model: str = "sim-echo?rate=0&first=0", **plan: Any) -> dict[str, Any]:
    """Read one stream with client.js to its end, and return what came of it."""
    body = {"prompt": TEXT, "model": model, **plan.pop("body", {})}
    found: dict[str, Any] = page.evaluate(READ, {"body": body, **plan})
    return found


def begin(page: Page, **plan: Any) -> None:
    """Set out to read one, and do not wait for it."""
    page.evaluate(f"(plan) => void ({READ})(plan)", plan)


def wait_for(page: Page, condition: str) -> None:
    """Wait until *condition*, an expression, holds in *page*."""
    wait_until(lambda: page.evaluate(condition))


def losses(found: dict[str, Any]) -> list[float]:
    return [delay for state, delay, _ in found["news"] if state == "lost"]


def test_the_parser(browser: Browser, service: Server) -> None:
    """Cut anywhere, or into single characters, a stream full of the standard's oddities gives the same events."""
    stream = (
        ": hello\r\n:\n\ndata: one\nid: 1\n\n:\ndata:two\r\ndata\r\ndata:  three\r\nevent: x\r\n\r\n"
        "id\ndata: reset\n\nid: nul\0\nretry: 07\nretry: 8x\ndata: a:b\rdata: \u2028\r\revent: nothing\n\nid: 9\n\n"
        "foo: bar\nData: no\n data: no\ndata\n\nevent: \ndata: {}\n\ndata: cut off\n"
    )
    events = [
        {"id": "1", "type": "message", "data": "one"},
        {"id": "1", "type": "x", "data": "two\n\n three"},
        {"id": "", "type": "message", "data": "reset"},
        {"id": "", "type": "message", "data": "a:b\n\u2028"},
        {"id": "9", "type": "message", "data": ""},
        {"id": "9", "type": "message", "data": "{}"},
    ]
    results = """async (stream) => {
      const { EventParser } = await import("/client.js");
      const ways = [[...stream]];
      for (let i = 0; i <= stream.length; i++) ways.push([stream.slice(0, i), stream.slice(i)]);
      return ways.map((pieces) => {
        const parser = new EventParser();
        return [pieces.flatMap((piece) => parser.feed(piece)), parser.retry];
      });
    }"""
    with browser.new_page() as page:
        page.goto(f"{service.url}/healthz")
        for found, retry in page.evaluate(results, stream):
            assert found == events
            assert retry == 7


def test_a_cut_at_random_bytes(browser: Browser, front: Server) -> None:
    """Cut again and again at any byte, a stream is read on where it was: every id once, the text whole, one POST."""
    chance = random.Random(7)
    with Door(front.url) as door, bare(browser, door) as page:
        door.plan(Cut(octets=chance.randrange(450, 3000), reset=chance.random() < 0.5) for _ in range(12))
        # A busy browser throws away what came right before a cut, so that all of them may pass without an event.
        options = {"retries": 12, "maxDelay": 200}
        found = read(page, "sim-echo?rate=150&first=0", body={"chunk": "none"}, options=options)
        check(found["seen"], snapshot(found["url"]))
        assert found["text"] == TEXT
        assert len(losses(found)) >= 8
        assert door.requests("POST") == 1


@pytest.mark.parametrize("octets", [0, 100])
def test_a_lost_answer_is_not_paid_twice(browser: Browser, door: Door, simulator: Server, octets: int) -> None:
    """When the answer to the POST is lost, before its first byte or in its head, the POST is repeated with its key, and
    finds the stream that it had started."""
    before = stats(simulator)["requests"]
    with bare(browser, door) as page:
        door.plan([Cut(octets=octets, reset=True)])
        found = read(page, "sim-echo?rate=200&first=0", body={"chunk": "none"})
        assert found["text"] == TEXT
        check(found["seen"], snapshot(found["url"]))
        assert door.requests("POST") == 2
        keys = {key for key in door.header("idempotency-key") if key}
        assert len(keys) == 1
    assert stats(simulator)["requests"] == before + 1


def test_a_full_house_is_waited_for(browser: Browser, tmp_path: Path, simulator: Server) -> None:
    """A 503 is tried again after its Retry-After, with the same key; one that asks for too long is final."""
    service = launch(tmp_path, simulator, max_streams=1, reconnect_ms=10)
    try:
        with Door(service.url) as door, bare(browser, door) as page:
            json = {"Accept": "application/json"}
            held = httpx.post(
                f"{service.url}/v1/chat", json={"prompt": "x", "model": "never-ends"}, headers=json
            ).json()
            refused = read(page, options={"maxDelay": 500})
            assert (refused["name"], refused["status"], refused["code"]) == ("ChatError", 503, "overloaded")
            begin(page, body={"prompt": "hi", "model": "sim-echo?rate=0&first=0"})
            wait_for(page, "window.news?.some(([state]) => state === 'lost')")
            httpx.delete(service.url + held["url"])
            wait_for(page, "window.stream.end?.type === 'done'")
            (state, delay, _), *_ = page.evaluate("window.news")
            assert state == "lost"
            assert delay >= 1000
            assert page.evaluate("window.stream.text") == "hi"
    finally:
        service.stop()


def test_a_refusal_is_final(browser: Browser, door: Door) -> None:
    """What the service refuses is thrown, with status and code, and asked once."""
    with bare(browser, door) as page:
        found = read(page, body={"nonsense": 1})
        assert (found["name"], found["status"], found["code"]) == ("ChatError", 400, "bad_request")
        found = read(page, "error-401?first=0")
        assert (found["status"], found["code"], losses(found)) == (502, "upstream_auth", [])
        found = read(page, attach="AAAAAAAAAAAAAAAAAAAAAA")
        assert (found["status"], losses(found)) == (404, [])
        assert len([head for head in door.heads if "/v1/" in head]) == 3


def test_out_of_reach(browser: Browser, door: Door) -> None:
    """A service that stays away is given up, after so many tries, further and further apart."""
    with bare(browser, door) as page:
        # On a machine without a network the browser says that it is offline, and goes on trying.
        page.evaluate("Object.defineProperty(navigator, 'onLine', { value: true })")
        with door.refusing():
            found = read(page, options={"retries": 3, "maxDelay": 150})
        assert (found["name"], found["status"], found["code"]) == ("ChatError", 0, "connection_lost")
        assert len(losses(found)) == 3
        assert all(delay <= 150 for delay in losses(found))


def test_an_error_event_is_the_end(browser: Browser, door: Door) -> None:
    """A stream that fails ends with its `error` event; nothing is thrown, and nothing tried again."""
    with bare(browser, door) as page:
        found = read(page, "cut-before-finish?after=5&first=0")
        assert (found["end"], losses(found)) == ("error", [])
        assert found["text"]


def test_leaving(browser: Browser, door: Door, simulator: Server) -> None:
    """An abort throws its reason, and leaving the loop nothing; either closes the connection and asks no more. With
    `on_disconnect: cancel`, that reaches upstream."""
    with bare(browser, door) as page:
        for plan in ({"abortAt": 5}, {"leaveAt": 5}):
            before = stats(simulator)["streams_aborted"]
            found = read(page, "never-ends", body={"on_disconnect": "cancel"}, **plan)
            assert found.get("name") == ("AbortError" if "abortAt" in plan else None)
            # What came in one read with the fifth event is seen before the abort is.
            assert len(found["seen"]) >= 5 if "abortAt" in plan else len(found["seen"]) == 5
            wait_until(lambda before=before: stats(simulator)["streams_aborted"] == before + 1)  # type: ignore[misc]  # mypy infers no default of a lambda
        assert len([head for head in door.heads if "/v1/" in head]) == 2


@pytest.mark.parametrize("plan", [{"cancelAtOnce": True}, {"beaconAt": 5}], ids=["at once", "beacon"])
def test_cancel(browser: Browser, door: Door, simulator: Server, plan: dict[str, Any]) -> None:
    """A cancel before the stream has an id is carried out once it has; a closing page's goes by sendBeacon."""
    with bare(browser, door) as page:
        found = read(page, "never-ends?head=0.2", **plan)
        assert found["end"] == "done"
        assert snapshot(found["url"])["finish_reason"] == "cancelled"
        assert door.requests("DELETE" if "cancelAtOnce" in plan else "POST /v1/streams/") == 1
    # Not how many were aborted: what an earlier test left behind may have its grace yet.
    wait_until(lambda: stats(simulator)["live"] == 0)


def test_silence_is_a_cut(browser: Browser, door: Door) -> None:
    """Keep-alives keep a silent stream open; when not even they come, the connection is taken for dead, and resumed."""
    with bare(browser, door) as page:
        found = read(page, "slow-content?seconds=3&rate=0&first=0", options={"silence": 1500})
        assert (found["end"], losses(found)) == ("done", [])
        begin(page, body={"prompt": TEXT, "model": "sim-echo?rate=60&first=0"}, options={"silence": 1500})
        wait_for(page, "window.seen?.length > 10")
        door.pause()
        wait_for(page, "window.news.some(([state]) => state === 'lost')")
        door.resume()
        wait_for(page, "window.stream.end?.type === 'done'")
        assert page.evaluate("window.stream.text") == TEXT
        news = page.evaluate("window.news")
        assert any("Nothing came for 1500 ms." in str(one) for one in news), news


WAKES = {
    "visible": "document.dispatchEvent(new Event('visibilitychange'))",
    "online": "window.dispatchEvent(new Event('online'))",
}


@pytest.mark.parametrize("wake", WAKES.values(), ids=WAKES)
def test_a_page_that_wakes_up(browser: Browser, door: Door, simulator: Server, wake: str) -> None:
    """A connection that died unnoticed is replaced when the page is shown again or the network is back, long before
    its silence would be noticed; nothing comes twice, and nothing is asked for again."""
    before = stats(simulator)["requests"]
    with bare(browser, door) as page:
        begin(page, body={"prompt": TEXT, "model": "sim-echo?rate=30&first=0", "chunk": "none"})
        wait_for(page, "window.seen?.length > 10")
        door.lose()
        had = len(seen(page))
        page.evaluate(wake)
        wait_for(page, f"window.seen.length > {had + 5}")
        wait_for(page, "window.stream.end?.type === 'done'")
        check(seen(page), snapshot(page.evaluate("window.stream.url")))
        assert page.evaluate("window.stream.text") == TEXT
        assert [state for state, *_ in page.evaluate("window.news")] == ["open", "lost", "open"]
        assert door.requests("POST") == 1
    assert stats(simulator)["requests"] == before + 1


def test_a_page_that_wakes_up_before_the_answer(browser: Browser, door: Door, simulator: Server) -> None:
    """If the connection dies before the service has answered, the POST is repeated with its key."""
    before = stats(simulator)["requests"]
    with bare(browser, door) as page:
        begin(page, body={"prompt": "hi", "model": "sim-echo?rate=0&first=0&head=1"})
        wait_until(lambda: door.requests("POST") == 1)
        door.lose()
        page.evaluate(WAKES["online"])
        wait_for(page, "window.stream.end?.type === 'done'")
        assert page.evaluate("window.stream.text") == "hi"
        assert door.requests("POST") == 2
    assert stats(simulator)["requests"] == before + 1


def test_a_silent_connection_that_lives(browser: Browser, door: Door) -> None:
    """A page that wakes up keeps a connection that is only silent: with `on_disconnect: cancel`, to drop it would end
    the answer."""
    with bare(browser, door) as page:
        body = {"prompt": TEXT, "model": "sim-echo?rate=30&first=0", "on_disconnect": "cancel", "chunk": "none"}
        begin(page, body=body)
        wait_for(page, "window.seen?.length > 10")
        page.evaluate(WAKES["visible"])
        wait_for(page, "window.stream.end")
        assert page.evaluate("window.stream.end.data.finish_reason") == "stop"
        assert page.evaluate("window.stream.text") == TEXT
        assert [state for state, *_ in page.evaluate("window.news")] == ["open"]


def test_waking_ends_a_pause(browser: Browser, door: Door) -> None:
    """A page that waits before its next try tries at once when it is shown again or the network is back."""
    with bare(browser, door) as page:
        begin(page, body={"prompt": TEXT, "model": "sim-echo?rate=30&first=0"})
        wait_for(page, "window.seen?.length > 10")
        page.evaluate("window.setTimeout = () => 0")  # no pause ends by itself
        for times, wake in enumerate(WAKES.values(), 1):
            door.cut(reset=True)
            wait_for(page, f"window.news.filter(([state]) => state === 'lost').length === {times}")
            had = len(seen(page))
            page.evaluate(wake)
            wait_for(page, f"window.seen.length > {had}")
        wait_for(page, "window.stream.end?.type === 'done'")
        assert page.evaluate("window.stream.text") == TEXT


def test_offline_is_not_final(browser: Browser, door: Door) -> None:
    """While the browser says that it is offline, no try counts, and the stream goes on when the network is back."""
    with bare(browser, door) as page:
        options = {"retries": 1, "maxDelay": 50}
        begin(page, body={"prompt": TEXT, "model": "sim-echo?rate=30&first=0", "chunk": "none"}, options=options)
        wait_for(page, "window.seen?.length > 10")
        page.context.set_offline(True)
        door.cut(reset=True)
        wait_for(page, "window.news.filter(([state]) => state === 'lost').length > 4")
        page.context.set_offline(False)
        wait_for(page, "window.stream.end?.type === 'done'")
        check(seen(page), snapshot(page.evaluate("window.stream.url")))
        assert page.evaluate("window.stream.text") == TEXT


def test_attach(browser: Browser, door: Door) -> None:
    """A stream is attached to by id or url, from the start or after an event; after the last one there is nothing."""
    with bare(browser, door) as page:
        whole = read(page)
        for where in (whole["id"], whole["url"], f"/v1/streams/{whole['id']}"):
            again = read(page, attach=where)
            assert again["text"] == TEXT
            assert again["seen"][-1] == whole["seen"][-1]
        middle = whole["seen"][0][0]
        assert read(page, attach=whole["id"], options={"after": middle})["text"] == TEXT
        rest = read(page, attach=whole["id"], options={"after": whole["seen"][-1][0]})
        assert (rest["seen"], rest.get("name")) == ([], None)


def test_a_hidden_tab_reads_on(browser: Browser, door: Door) -> None:
    """Hiding the tab drops nothing: the connection that the POST made reads the answer to its end."""
    with bare(browser, door) as page, page.context.new_page() as other:
        other.bring_to_front()
        found = read(page, "sim-echo?rate=200&first=0", hideAt=5)
        assert (found["text"], losses(found)) == (TEXT, [])
        assert len([head for head in door.heads if "/v1/" in head]) == 1
