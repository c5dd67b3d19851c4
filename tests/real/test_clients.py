"""Other people's clients, and many of them: what they see, what they cost, and what becomes of a stream they leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import aiohttp
import httpx
import httpx_sse
import pytest

from app.events import EventId
from tests.real.clients.sse import Event, check, parse, text
from tests.real.conftest import Start
from tests.real.node import Node
from tests.real.processes import Server, launch, launch_nginx, left_unread
from tests.real.proxy import Cut, Proxy
from tests.waiting import wait_until

pytestmark = pytest.mark.real

TEXT = "Hello, 你好, สวัสดี, مرحبا 👩‍👩‍👧‍👦!\nA stream belongs to the server, not to a connection. " * 2
FAST = "sim-echo?rate=0&first=0"


# --- the clients of others ---


@pytest.fixture(scope="module")
def node() -> Node:
    return Node()


@pytest.fixture(scope="module")
def service(simulator: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that says `:` after a twentieth of a second, and has clients back as fast."""
    server = launch(tmp_path_factory.mktemp("service"), simulator, keep_alive=0.05, reconnect_ms=50)
    yield server
    server.stop()


@pytest.fixture(scope="module", params=["direct", "nginx"])
def front(
    request: pytest.FixtureRequest, service: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The service, or the real nginx in front of it."""
    if request.param == "direct":
        yield service
        return
    server = launch_nginx(tmp_path_factory.mktemp("nginx"), service)
    yield server
    server.stop()


class Unread(NamedTuple):
    """Streams without a reader, one per policy, and one that had a reader for a moment."""

    service: Server
    addresses: list[str]


@pytest.fixture(scope="module", autouse=True)
def unread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unread]:
    """Started before the other tests, so that the ten seconds pass while those run."""
    server = launch(tmp_path_factory.mktemp("unread"), shutdown_grace=0)
    policies = ["cancel", "grace:1", "continue", "cancel"]
    model = "never-ends?rate=5&first=0"
    addresses = [start(server.url, prompt="x", model=model, on_disconnect=policy) for policy in policies]
    with httpx.stream("GET", addresses[-1]) as answer:
        next(answer.iter_raw())
    yield Unread(server, addresses)
    server.stop()


def events_of(lines: Sequence[dict[str, Any]]) -> list[Event]:
    """Return the events among what a client printed; what is no event has no data."""
    return [Event(line["id"], line["event"], line["data"]) for line in lines if "data" in line]


def whole(events: Sequence[Event], expected: str = TEXT) -> None:
    """Assert that a client saw exactly the stream: every event once, none that has no JSON in it, all of the text."""
    check(events, dense=False)
    assert {event.event for event in events} <= {"start", "delta", "done"}
    assert all(isinstance(event.json(), dict) for event in events)
    assert text(events) == expected
    assert events[-1].json()["finish_reason"] == "stop"


# Slow enough for keep-alives between the deltas; and fast enough to be done soon.
SLOW: dict[str, Any] = {"prompt": "one two three four five six", "model": "sim-echo?rate=8&first=0.2"}
# Each delta for itself, also for who comes late: so there is always something to cut off.
QUICK: dict[str, Any] = {"prompt": TEXT, "model": "sim-echo?rate=100&first=0", "chunk": "none"}


def pinged(proxy: Proxy) -> bool:
    return proxy.received.count(b"\n:\n") >= 3


def test_eventsource(node: Node, front: Server, counted: Callable[[], dict[str, int]]) -> None:
    """Node's EventSource reads a stream that was started by a 201, resumes by itself, and is stopped by the 204."""
    started = httpx.post(f"{front.url}/v1/chat", json=QUICK, headers={"Accept": "application/json"})
    assert started.status_code == 201
    path = started.json()["url"]
    assert started.headers["location"] == path
    with Proxy(front.url, [Cut(blocks=5, reset=True), Cut(octets=1500), Cut(blocks=20)]) as proxy:
        lines = node("eventsource", url=proxy.url + path)
        events = events_of(lines)
        whole(events)
        states = [(line["state"], line["code"]) for line in lines if line["event"] == "connection"]
        assert states[-1] == (2, 204), "it was not told to stop"
        assert {state for state, _ in states[:-1]} == {0}
        assert len(states) >= 4  # a cut, twice and more; the end; the 204
        positions = proxy.header("last-event-id")
        assert positions[0] is None
        assert positions[-1] == events[-1].id
        numbers = [EventId.parse(position).seq for position in positions[1:] if position]
        assert numbers == sorted(set(numbers))
    assert counted()["requests"] == 1


def test_eventsource_and_keep_alives(node: Node, front: Server) -> None:
    """Keep-alives are on the wire and nothing of them reaches an EventSource."""
    body = {**SLOW, "model": "sim-echo?rate=1.5&first=0.2"}  # live yet when Node has started
    path = httpx.post(f"{front.url}/v1/chat", json=body, headers={"Accept": "application/json"}).json()["url"]
    with Proxy(front.url) as proxy:
        whole(events_of(node("eventsource", url=proxy.url + path)), SLOW["prompt"])
        assert pinged(proxy)


def test_eventsource_parser(node: Node, front: Server, counted: Callable[[], dict[str, int]]) -> None:
    """eventsource-parser over fetch: a POST that breaks, resumed with GET, is whole, and the parser never complains."""
    with Proxy(front.url, [Cut(blocks=4), Cut(octets=2000, reset=True)]) as proxy:
        lines = node("parser", url=f"{proxy.url}/v1/chat", body=QUICK)
        whole(events_of(lines))
        assert [line["event"] for line in lines].count("connection") == 2
        assert lines[-1] == {"event": "status", "code": 204}
    with Proxy(front.url) as proxy:
        whole(events_of(node("parser", url=f"{proxy.url}/v1/chat", body=SLOW)), SLOW["prompt"])
        assert pinged(proxy)
    assert counted()["requests"] == 2


def test_fetch_event_source(node: Node, front: Server, counted: Callable[[], dict[str, int]]) -> None:
    """fetch-event-source repeats its POST when the connection breaks: that resumes, and is not a second generation."""
    # Between events: cut inside one, it asks for what comes after an event that it has not dispatched (it takes the id
    # as soon as it sees its line), and no server can know that.
    with Proxy(front.url, [Cut(blocks=5), Cut(blocks=12, reset=True)]) as proxy:
        lines = node("fetch-event-source", url=f"{proxy.url}/v1/chat", body=QUICK)
        whole(events_of(lines))
        assert [line["event"] for line in lines].count("connection") == 2
        assert lines[-1]["event"] == "resolved"
        assert [head.split()[0] for head in proxy.heads] == ["POST"] * 3
        bodies = [bytes(link.sent).rpartition(b"\r\n\r\n")[2] for link in proxy.links]
        assert set(bodies) == {json.dumps(QUICK, separators=(",", ":"), ensure_ascii=False).encode()}
    assert counted()["requests"] == 1


def test_fetch_event_source_and_keep_alives(node: Node, front: Server) -> None:
    """Keep-alives give fetch-event-source no phantom event: each of its messages has JSON in it."""
    with Proxy(front.url) as proxy:
        whole(events_of(node("fetch-event-source", url=f"{proxy.url}/v1/chat", body=SLOW)), SLOW["prompt"])
        assert pinged(proxy)


@pytest.mark.parametrize("hide", [1, 7])
def test_fetch_event_source_in_a_hidden_tab(
    node: Node, front: Server, counted: Callable[[], dict[str, int]], hide: int
) -> None:
    """It hangs up when its tab is hidden and repeats its POST when shown: the answer is whole and paid for once."""
    lines = node("fetch-event-source", url=f"{front.url}/v1/chat", body=QUICK, hide=hide)
    whole(events_of(lines))
    assert [line["event"] for line in lines].count("open") == 2
    assert counted()["requests"] == 1
    assert counted()["streams_aborted"] == 0


def test_fetch_event_source_before_its_first_event(
    node: Node, front: Server, counted: Callable[[], dict[str, int]]
) -> None:
    """With an idempotency key, a POST that was lost before its first event attaches when it is repeated."""
    headers = {"Idempotency-Key": f"lost {front.url}"}
    with Proxy(front.url, [Cut(octets=100)]) as proxy:
        whole(events_of(node("fetch-event-source", url=f"{proxy.url}/v1/chat", body=QUICK, headers=headers)))
        assert proxy.header("last-event-id") == [None] * 2
    assert counted()["requests"] == 1


def test_httpx_sse(front: Server) -> None:
    """Keep-alives give httpx-sse no phantom event."""
    with (
        Proxy(front.url) as proxy,
        httpx.Client() as client,
        httpx_sse.connect_sse(client, "POST", f"{proxy.url}/v1/chat", json=SLOW) as source,
    ):
        whole([Event(event.id, event.event, event.data) for event in source.iter_sse()], SLOW["prompt"])
        assert pinged(proxy)


def test_curl(front: Server) -> None:
    """curl -N ends with 0 if the answer is whole, with 18 if it was cut, with 56 if it was reset."""
    with Proxy(front.url, [None, Cut(blocks=3), Cut(blocks=3, reset=True)]) as proxy:
        command = ["curl", "-sN", f"{proxy.url}/v1/chat", "-d", json.dumps(QUICK)]
        runs = [subprocess.run(command, capture_output=True, timeout=60, check=False) for _ in range(3)]
    assert [run.returncode for run in runs] == [0, 18, 56]
    whole(parse(runs[0].stdout))
    assert [event.event for event in parse(runs[1].stdout)] == ["start", "delta", "delta"]


def test_curl_resumes(front: Server) -> None:
    """What curl got of a cut answer and what it gets after the last id make the answer."""
    with Proxy(front.url, [Cut(octets=1200)]) as proxy:
        command = ["curl", "-sN", f"{proxy.url}/v1/chat", "-d", json.dumps(QUICK)]
        first = parse(subprocess.run(command, capture_output=True, timeout=60, check=False).stdout)
        last = first[-1].id
        command = ["curl", "-sN", f"{proxy.url}/v1/streams/{last.rpartition('-')[0]}", "-H", f"Last-Event-ID: {last}"]
        rest = parse(subprocess.run(command, capture_output=True, timeout=60, check=True).stdout)
    whole(first + rest)


# --- starting and leaving ---


def start(url: str, headers: dict[str, str] | None = None, **body: Any) -> str:
    """Start a stream without reading it and return its address."""
    answer = httpx.post(f"{url}/v1/chat", json=body, headers={"Accept": "application/json", **(headers or {})})
    assert answer.status_code == 201, answer.text
    told = answer.json()
    assert told["cancel_url"] == f"{told['url']}/cancel"
    return f"{url}{told['url']}"


def snapshot(address: str) -> dict[str, Any]:
    answer = httpx.get(address, headers={"Accept": "application/json"})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def read(method: str, address: str, **request: Any) -> list[Event]:
    """Read one answer to its end."""
    answer = httpx.request(method, address, **request)
    assert answer.status_code == 200, answer.text
    return parse(answer.content)


def open_and_leave(url: str, deltas: int = 3, **body: Any) -> str:
    """Start a stream, read a little, hang up; return its address."""
    with httpx.stream("POST", f"{url}/v1/chat", json=body) as answer:
        received = b""
        for data in answer.iter_raw():
            received += data
            if received.count(b"event: delta") >= deltas:
                break
        return f"{url}/v1/streams/{answer.headers['x-stream-id']}"


def test_policy_cancel(service: Server, counted: Callable[[], dict[str, int]]) -> None:
    """`cancel`: the last reader's leaving aborts the upstream without a grace, the first of two readers' not."""
    address = start(service.url, prompt="x", model="never-ends", on_disconnect="cancel")
    with httpx.stream("GET", address) as first, httpx.stream("GET", address) as second:
        reading = first.iter_raw(), second.iter_raw()  # httpx hangs up if these are collected
        assert all(next(chunks) for chunks in reading)
        first.close()
        time.sleep(0.3)  # the time in which it must not happen
        assert counted()["live"] == 1
    wait_until(lambda: counted()["streams_aborted"] == 1)
    assert snapshot(address)["finish_reason"] == "cancelled"
    assert address[-22:] not in left_unread(service)


def test_policy_continue(service: Server, counted: Callable[[], dict[str, int]]) -> None:
    """`continue`: without a reader the answer is whole all the same."""
    address = open_and_leave(service.url, **QUICK, on_disconnect="continue")
    wait_until(lambda: snapshot(address)["state"] == "done")
    assert snapshot(address)["content"] == TEXT
    assert snapshot(address)["finish_reason"] == "stop"
    whole(read("GET", address))
    assert counted()["requests"] == counted()["streams_finished"] == 1


def test_policy_grace(service: Server, counted: Callable[[], dict[str, int]]) -> None:
    """`grace:S`: a reader that is back in time reads on; if none comes, the upstream is aborted."""
    address = open_and_leave(service.url, prompt="x", model="never-ends", on_disconnect="grace:60")
    for _ in range(2):
        with httpx.stream("GET", address) as answer:
            assert answer.status_code == 200
            next(answer.iter_raw())
    left_at = time.monotonic()
    left = open_and_leave(service.url, prompt="x", model="never-ends", on_disconnect="grace:1")
    wait_until(lambda: counted()["streams_aborted"] == 1)
    assert time.monotonic() - left_at > 1
    assert snapshot(left)["finish_reason"] == "cancelled"
    assert left_unread(service) & {address[-22:], left[-22:]} == {left[-22:]}
    assert snapshot(address)["state"] == "live"
    httpx.delete(address).raise_for_status()


def test_the_ceiling(start_service: Start) -> None:
    """A request may not ask for more than the setting allows."""
    service = start_service(on_disconnect="grace:2", on_disconnect_max="grace:5")
    for policy, status in [
        *(("continue", 400), ("grace:5.001", 400), ("grace:999999", 400), ("nonsense", 400), ("grace:-1", 400)),
        *(("cancel", 200), ("grace:5", 200), ("grace:0", 200)),
    ]:
        answer = httpx.post(f"{service.url}/v1/chat", json={"prompt": "x", "model": FAST, "on_disconnect": policy})
        assert answer.status_code == status, policy
        if status == 400:
            assert answer.json()["error"]["param"] == "on_disconnect"


CANCELS: list[tuple[str, str, dict[str, Any]]] = [
    ("DELETE", "", {}),
    ("POST", "/cancel", {}),
    # What navigator.sendBeacon(url, text) sends when a page is closed, except for its origin.
    ("POST", "/cancel", {"content": "bye", "headers": {"Content-Type": "text/plain;charset=UTF-8"}}),
]


@pytest.mark.parametrize(("method", "suffix", "request_"), CANCELS)
def test_cancel(
    front: Server,
    service: Server,
    counted: Callable[[], dict[str, int]],
    method: str,
    suffix: str,
    request_: dict[str, Any],
) -> None:
    """The stop button reaches upstream without a grace, ends every reader with `cancelled`, may be pressed again."""
    address = start(front.url, prompt="x", model="never-ends?rate=100&first=0")
    with ThreadPoolExecutor(3) as readers:
        reading = [readers.submit(read, "GET", address) for _ in range(3)]
        wait_until(lambda: len(snapshot(address)["content"]) > 20)
        wait_until(lambda: counted()["live"] == 1)
        answer = httpx.request(method, address + suffix, **request_)
        assert answer.status_code == 200
        assert answer.json()["finish_reason"] == "cancelled"
        wait_until(lambda: counted()["streams_aborted"] == 1)
        assert address[-22:] not in left_unread(service)
        transcripts = [future.result(30) for future in reading]
    for events in transcripts:
        check(events, dense=False)
        assert events[-1].json()["finish_reason"] == "cancelled"
        assert events[-1].json()["usage"]["estimated"] is True
        assert events[-1].id == answer.json()["last_event_id"]
        assert text(events) == snapshot(address)["content"]
    for again, ending, more in CANCELS:
        repeated = httpx.request(again, address + ending, **more)
        assert (repeated.status_code, repeated.json()) == (200, answer.json())
    assert httpx.get(address, headers={"Last-Event-ID": transcripts[0][-1].id}).status_code == 204


def test_cancel_before_upstream_answered(service: Server, counted: Callable[[], dict[str, int]]) -> None:
    """Stop is heard while the upstream is still silent; a reader that waits for the first event is told."""
    address = start(service.url, prompt="x", model="slow-headers?seconds=60", chunk="none")
    wait_until(lambda: counted()["requests"] == 1)
    with ThreadPoolExecutor(1) as readers:
        reading = readers.submit(read, "GET", address)
        httpx.delete(address).raise_for_status()
        wait_until(lambda: counted()["aborted_before_headers"] == 1)
        assert address[-22:] not in left_unread(service)
        events = reading.result(30)
    check(events)
    assert [event.event for event in events] == ["start", "done"]
    assert events[-1].json()["finish_reason"] == "cancelled"


def test_cancel_after_the_end(service: Server) -> None:
    """A stream that has ended stays as it ended; one that never was is 404."""
    events = read("POST", f"{service.url}/v1/chat", json={"prompt": "hi", "model": FAST})
    address = f"{service.url}/v1/streams/{EventId.parse(events[0].id).stream_id}"
    for method, suffix, request in CANCELS:
        answer = httpx.request(method, address + suffix, **request)
        assert (answer.status_code, answer.json()["finish_reason"]) == (200, "stop")
        unknown = httpx.request(method, f"{service.url}/v1/streams/{'A' * 22}{suffix}", **request)
        assert unknown.status_code == 404
    assert read("GET", address)[-1] == events[-1]


# --- never paying twice ---


def test_a_key_attaches(front: Server, counted: Callable[[], dict[str, int]]) -> None:
    """Identical POSTs with one key, at once and later, are one generation, and each is answered with all of it."""
    headers = {"Idempotency-Key": f"attach {front.url}"}

    def ask(_: int) -> list[Event]:
        return read("POST", f"{front.url}/v1/chat", json=QUICK, headers=headers)

    with ThreadPoolExecutor(10) as clients:
        transcripts = list(clients.map(ask, range(10)))
    transcripts.append(ask(0))
    for events in transcripts:
        whole(events)
    assert len({events[0].id for events in transcripts}) == 1
    reordered = httpx.post(
        f"{front.url}/v1/chat",
        content=json.dumps(dict(reversed(QUICK.items())), indent=2),
        headers={**headers, "Accept": "application/json"},
    )
    first_id = EventId.parse(transcripts[0][0].id)
    assert (reordered.status_code, reordered.json()["stream_id"]) == (201, first_id.stream_id)
    other = httpx.post(f"{front.url}/v1/chat", json={**QUICK, "max_tokens": 5}, headers=headers)
    assert other.status_code == 422
    assert other.json()["error"]["code"] == "idempotency_key_reused"
    assert counted()["requests"] == 1


def test_a_key_whose_stream_never_began_may_try_again(
    start_service: Start, simulator: Server, counted: Callable[[], dict[str, int]]
) -> None:
    """Nothing was answered, and nothing paid for: the same key asks the upstream again; once it has, it is taken."""
    service = start_service(simulator, retry_attempts=1, commit_after=5)
    body = {"prompt": f"again {service.url}", "model": "flaky-500?fail=2&rate=0&first=0"}
    answers = [httpx.post(f"{service.url}/v1/chat", json=body, headers={"Idempotency-Key": "again"}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [502, 502, 200, 200]
    check(parse(answers[2].content), dense=False)
    assert text(parse(answers[2].content)) == text(parse(answers[3].content))
    assert answers[2].headers["x-stream-id"] == answers[3].headers["x-stream-id"]
    assert counted()["requests"] == 3


# --- snapshots ---


def test_snapshot(front: Server) -> None:
    """A snapshot is the stream's text so far; what comes after its last event id is the rest."""
    address = start(front.url, **{**QUICK, "model": "sim-echo?rate=25&first=0"})
    seen: list[dict[str, Any]] = []
    while (now := snapshot(address))["state"] == "live":
        assert TEXT.startswith(now["content"])
        assert now["finish_reason"] is now["usage"] is None
        if now["last_event_id"] and len(seen) < 5 and now["content"] not in (before["content"] for before in seen):
            seen.append(now)
        time.sleep(0.05)
    assert seen
    assert (now["content"], now["finish_reason"], now["error"]) == (TEXT, "stop", None)
    events = read("GET", address)
    assert now["last_event_id"] == events[-1].id
    assert now["usage"] == events[-1].json()["usage"]
    for before in seen:
        rest = read("GET", address, headers={"Last-Event-ID": before["last_event_id"]})
        assert before["content"] + text(rest) == TEXT
    assert [len(before["content"]) for before in seen] == sorted(len(before["content"]) for before in seen)


# --- bounds ---


def ended(url: str, **body: Any) -> str:
    """Stream one answer to its end and return its address."""
    answer = httpx.post(f"{url}/v1/chat", json={"prompt": "hi", "model": FAST, **body})
    assert answer.status_code == 200
    return f"{url}/v1/streams/{answer.headers['x-stream-id']}"


def status(address: str) -> int:
    return httpx.get(address, headers={"Accept": "application/json"}).status_code


def test_the_oldest_goes_first(start_service: Start) -> None:
    """Of more ended streams than may be kept, the oldest is gone: 404, its key is free, and the log says so."""
    service = start_service(max_kept=2)
    addresses = [ended(service.url, prompt=str(number)) for number in range(4)]
    assert [status(address) for address in addresses] == [404, 404, 200, 200]
    assert httpx.get(addresses[0], headers={"Last-Event-ID": f"{addresses[0][-22:]}-1"}).status_code == 404
    evicted = [json.loads(line) for line in service.text().splitlines() if "journal.evicted" in line]
    assert [(line["stream_id"], line["reason"]) for line in evicted] == [
        (address[-22:], "count") for address in addresses[:2]
    ]


def test_time_is_up(start_service: Start) -> None:
    """An ended stream is kept for as long as the setting says, and with 0 not at all; its key is free then."""
    service = start_service(keep=5)
    address = ended(service.url)
    assert status(address) == 200
    time.sleep(0.2)
    assert status(address) == 200
    wait_until(lambda: status(address) == 404)
    service = start_service(keep=0)
    headers = {"Idempotency-Key": "k"}
    answers = [
        httpx.post(f"{service.url}/v1/chat", json={"prompt": "hi", "model": FAST}, headers=headers) for _ in range(2)
    ]
    assert len({answer.headers["x-stream-id"] for answer in answers}) == 2
    for answer in answers:
        whole(parse(answer.content), "hi")


def test_memory_is_bounded(start_service: Start) -> None:
    """Ended streams make room for new ones; one that is being read ends whole though it was evicted meanwhile."""
    service = start_service(max_total=400_000, max_stream=300_000)
    prompt = "0123456789" * 12_000
    addresses = [ended(service.url, prompt=prompt, model=f"{FAST}&size=4000") for _ in range(4)]
    assert [status(address) for address in addresses][-1] == 200
    assert status(addresses[0]) == 404
    assert '"reason": "memory"' in service.text()


def test_a_full_house(start_service: Start, simulator: Server, counted: Callable[[], dict[str, int]]) -> None:
    """When live streams have all the memory, a new one is 503 with Retry-After before the upstream is asked."""
    service = start_service(simulator, max_total=100_000, max_stream=100_000, shutdown_grace=0)
    full = {"prompt": "x", "model": "stall?after=20&rate=0&first=0&size=1000&tokens=0", "chunk": "none"}
    accepted: list[str] = []
    while len(accepted) < 20:
        answer = httpx.post(f"{service.url}/v1/chat", json=full, headers={"Accept": "application/json"})
        if answer.status_code != 201:
            break
        accepted.append(f"{service.url}{answer.headers['location']}")
        wait_until(lambda: snapshot(accepted[-1])["content"] or snapshot(accepted[-1])["error"])
    assert 3 < len(accepted) < 20
    assert [snapshot(address)["state"] for address in accepted] == ["live"] * len(accepted)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
    assert int(answer.headers["retry-after"]) >= 1
    refused = httpx.post(f"{service.url}/v1/chat", json={"prompt": "x", "model": FAST})
    assert (refused.status_code, int(refused.headers["retry-after"])) == (503, 1)
    assert counted()["requests"] == len(accepted)
    httpx.delete(accepted[0]).raise_for_status()
    wait_until(lambda: httpx.post(f"{service.url}/v1/chat", json={"prompt": "x", "model": FAST}).status_code == 200)


# --- many readers ---


def logged(server: Server, event: str) -> list[dict[str, Any]]:
    """Return the log's lines of one kind."""
    lines = (json.loads(line) for line in server.text().splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


def stall(address: str) -> socket.socket:
    """Ask for a stream over a connection with hardly a buffer, and read nothing."""
    url = httpx.URL(address)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(60)
    sock.connect((url.host, url.port))
    sock.sendall(f"GET {url.path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
    return sock


async def read_all(session: aiohttp.ClientSession, address: str) -> list[Event]:
    """Read a stream to its end."""
    async with session.get(address) as answer:
        return parse(await answer.read())


def body_of(received: bytes) -> bytes:
    """Take the head off, and the framing, if there is any."""
    head, _, body = received.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return body
    whole = bytearray()
    while body:
        size, _, body = body.partition(b"\r\n")
        whole += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return bytes(whole)


def test_many_readers(start_service: Start, simulator: Server, counted: Callable[[], dict[str, int]]) -> None:
    """Of 20 readers of a stream four have stalled: the others do not wait, and memory hardly grows.

    One of the four reads when the others have come to the end: the whole text, in fewer and larger events.
    """
    service = start_service(simulator, reader_timeout=600)
    prompt = "A stream of 你好 👩‍👧 and so on. " * 19_000
    ended(service.url)
    before = service.memory()
    address = start(service.url, prompt=prompt, model="sim-echo?rate=300&first=0.7&size=1000")

    async def read_by_many() -> list[list[Event]]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
            return await asyncio.gather(*(read_all(session, address) for _ in range(16)))

    with contextlib.ExitStack() as stack:
        lagging, *_ = [stack.enter_context(stall(address)) for _ in range(4)]
        transcripts = asyncio.run(read_by_many())
        grown = service.memory() - before
        for events in transcripts:
            whole(events, prompt)
        assert counted()["streams_finished"] == 1 + 1
        received = bytearray()
        while data := lagging.recv(1 << 20):
            received += data
        late = parse(body_of(bytes(received)))
        whole(late, prompt)
        assert len(late) < 0.8 * len(prompt) / 1000  # as many as the upstream has sent
        assert max(len(event.data) for event in late) > 5000
        # Once the text, once the log's own objects, and per reader no more than its buffers.
        print(f"memory grew by {grown >> 20} MiB; events: {len(transcripts[0])}, of the lagging reader {len(late)}")
        assert grown < 32 << 20


def test_a_stalled_reader(start_service: Start, simulator: Server) -> None:
    """A reader that takes nothing any more is dropped when its time is up."""
    service = start_service(simulator, reader_timeout=1)
    text = "A stream of 你好 👩‍👧 and so on. " * 19_000
    address = start(service.url, prompt=text, model="sim-echo?rate=0&first=0&size=1000")
    with contextlib.closing(stall(address)):
        wait_until(lambda: logged(service, "subscriber.detached"))
    (dropped,) = logged(service, "subscriber.detached")
    assert not dropped["whole"]
    wait_until(lambda: snapshot(address)["state"] == "done")
    assert dropped["last_record"] < int(snapshot(address)["last_event_id"].rpartition("-")[2])


def test_the_first_reader_has_ten_seconds(unread: Unread) -> None:
    """A stream started without a reader waits ten seconds for one, whatever its policy, and is cancelled then."""
    service, addresses = unread
    cancel, grace, goes_on, was_read = addresses
    assert snapshot(was_read)["finish_reason"] == "cancelled"  # it had its reader, who left
    wait_until(lambda: snapshot(cancel)["finish_reason"] == snapshot(grace)["finish_reason"] == "cancelled")
    assert left_unread(service) == {cancel[-22:], grace[-22:]}
    ends = [line for line in logged(service, "stream.finished") if line["stream_id"] != was_read[-22:]]
    assert len(ends) == 2
    assert all(line["duration_ms"] > 9_500 for line in ends)
    assert snapshot(goes_on)["state"] == "live"
