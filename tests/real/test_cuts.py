"""Connections that break: wherever that is, a resume gives what an unbroken read would have given."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from app.events import EventId
from app.rechunk import merge_after
from tests.real.clients.sse import Event, check, parse, text
from tests.real.processes import Server, launch, stats
from tests.real.proxy import Cut, Proxy

pytestmark = pytest.mark.real

SCRIPTS = (
    "Hello, world! 你好，世界。今天天气很好！ こんにちは。元気ですか？ สวัสดีชาวโลก ยินดีต้อนรับ مرحبا بالعالم! שלום עולם. "
    'नमस्ते। 👩‍👩‍👧‍👦 🇩🇪 e\u0301 Ünïcödé \u2028 line\r\nnext\ttab \\ "quote" \x0b \x85 end. data: no\n\nid: 7\n: no\n'
)
CHUNKS = ["auto", "none", "word", "sentence", "line", "size:3", "time:20", "word,20ms", "none,smooth:60"]


@pytest.fixture(scope="module")
def service(simulator: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), simulator, keep_alive=0.05)
    yield server
    server.stop()


def joins(chunk: str) -> bool:
    """Whether a reader that lags may be given several records of this cut as one event."""
    return merge_after(chunk.partition(",smooth")[0]) is not None


def body_of(chunk: str, rate: int, repeat: int = 1) -> dict[str, Any]:
    return {"prompt": SCRIPTS * repeat, "model": f"sim-echo?rate={rate}&first=0", "chunk": chunk}


def read(client: httpx.Client, method: str, url: str, **request: Any) -> tuple[int, list[Event]]:
    """Read one answer to its end, or to where it is cut; return its status, 0 if not even that came, and its events."""
    received = bytearray()
    status = 0
    try:
        with client.stream(method, url, **request) as answer:
            status = answer.status_code
            for data in answer.iter_raw():
                received += data
    except httpx.TransportError:
        pass
    return status, parse(bytes(received)) if status == 200 else []


def smooth_of(chunk: str) -> dict[str, str]:
    return {"smooth": "60"} if "smooth" in chunk else {}


WAYS: list[Callable[[str, str, dict[str, str]], tuple[str, str, dict[str, Any]]]] = [
    lambda url, last, query: (
        *("GET", f"{url}/v1/streams/{EventId.parse(last).stream_id}"),
        {"headers": {"Last-Event-ID": last}, "params": query},
    ),
    lambda url, last, query: (
        *("GET", f"{url}/v1/streams/{EventId.parse(last).stream_id}"),
        {"params": {"last_event_id": last, **query}},
    ),
    lambda url, last, query: (
        *("POST", f"{url}/v1/chat"),
        {"headers": {"Last-Event-ID": last}, "json": {"prompt": "not read"}, "params": query},
    ),
]


def resume(client: httpx.Client, url: str, last: str, chunk: str, way: int) -> tuple[int, list[Event]]:
    """Go on after *last*, in one of the three ways there are."""
    method, address, request = WAYS[way % len(WAYS)](url, last, smooth_of(chunk))
    return read(client, method, address, **request)


def ended(events: list[Event]) -> bool:
    return bool(events) and events[-1].event in ("done", "error")


@pytest.mark.parametrize("chunk", CHUNKS[:-1])
def test_a_replay_from_every_position(service: Server, chunk: str) -> None:
    """Resumed after each record in turn, in all three ways, the rest is what an unbroken read had there."""
    with httpx.Client() as client:
        _, whole = read(client, "POST", f"{service.url}/v1/chat", json=body_of(chunk, 1000))
        check(whole, dense=not joins(chunk))
        assert text(whole) == SCRIPTS
        last_id = EventId.parse(whole[-1].id)
        stream_id = last_id.stream_id
        last = last_id.seq
        assert last > 3
        rests = []
        for after in range(last):
            if after:
                _, events = resume(client, service.url, str(EventId(stream_id, after)), "", after)
            else:
                _, events = read(client, "GET", f"{service.url}/v1/streams/{stream_id}")
            check(events, after=after, dense=not joins(chunk))
            if not joins(chunk):
                assert events == whole[after:]
            assert events[-1] == whole[-1]
            rests.append(text(events))
        assert rests[0] == SCRIPTS
        assert rests[-1] == ""
        for longer, shorter in itertools.pairwise(rests):
            assert longer.endswith(shorter)
        for count, event in enumerate(whole[:-1], 1):
            assert text(whole[:count]) + rests[event.seq] == SCRIPTS
        for way in range(len(WAYS)):
            assert resume(client, service.url, whole[-1].id, "", way) == (204, [])


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_cut_after_every_event(service: Server, simulator: Server, chunk: str) -> None:
    """A reader whose connection breaks after each event of a live stream misses nothing and repeats nothing."""
    requests = stats(simulator)["requests"]
    with Proxy(service.url, (Cut(blocks=1, reset=bool(number % 2)) for number in range(10_000))) as proxy:
        with httpx.Client() as client:
            _, events = read(client, "POST", f"{proxy.url}/v1/chat", json=body_of(chunk, 600, 2))
            for way in range(10_000):
                if ended(events):
                    break
                status, more = resume(client, proxy.url, events[-1].id, chunk, way)
                assert status == 200
                assert len(more) == 1
                events += more
            compare(client, service.url, events, chunk, SCRIPTS * 2)
        # The terminal event's connection may not be cut: it ends by itself just then.
        assert len(proxy.links) == len(events)
    assert stats(simulator)["requests"] == requests + 1


@pytest.mark.parametrize("chunk", CHUNKS)
def test_cuts_at_random_bytes(service: Server, simulator: Server, chunk: str) -> None:
    """The same with cuts anywhere, in a head or a character too. A POST that lost its head is repeated by its key."""
    requests = stats(simulator)["requests"]
    chance = random.Random(chunk)
    # The larger ones, because what was joined for a reader that lags may be one large event.
    most = (chance.choice((1200, 1200, 6000)) for _ in range(10_000))
    cuts = (Cut(octets=chance.randint(1, octets), reset=chance.random() < 0.5) for octets in most)
    with Proxy(service.url, cuts) as proxy, httpx.Client() as client:
        events: list[Event] = []
        for way in range(10_000):
            if ended(events):
                break
            if events:
                events += resume(client, proxy.url, events[-1].id, chunk, way)[1]
            else:
                headers = {"Idempotency-Key": f"cuts {chunk}"}
                _, events = read(client, "POST", f"{proxy.url}/v1/chat", json=body_of(chunk, 600, 2), headers=headers)
        compare(client, service.url, events, chunk, SCRIPTS * 2)
        assert len(proxy.links) > 1
    assert stats(simulator)["requests"] == requests + 1


def compare(client: httpx.Client, url: str, events: list[Event], chunk: str, expected: str) -> None:
    """Assert that *events*, put together from pieces, are what an unbroken read gives."""
    check(events, dense=not joins(chunk))
    assert text(events) == expected
    assert events[-1].json()["finish_reason"] == "stop"
    _, whole = read(client, "GET", f"{url}/v1/streams/{EventId.parse(events[0].id).stream_id}")
    if joins(chunk):
        assert (whole[0], whole[-1]) == (events[0], events[-1])
    else:
        assert whole == events


def test_a_cut_at_every_byte(service: Server) -> None:
    """A replay cut at each of its bytes in turn, and resumed, is the replay: no byte is special."""
    with httpx.Client() as client:
        body = {"prompt": "你 👩‍👧\n", "model": "sim-echo?rate=0&first=0", "chunk": "none"}
        _, whole = read(client, "POST", f"{service.url}/v1/chat", json=body)
        url = f"/v1/streams/{EventId.parse(whole[0].id).stream_id}"
        with Proxy(service.url) as proxy:
            read(client, "GET", proxy.url + url, headers={"Connection": "close"})
            received = bytes(proxy.links[0].received)
            head = received.index(b"\r\n\r\n")
            places = [*range(1, head, 50), *range(head, len(received))]
            proxy.plan(cut for octets in places for cut in (Cut(octets=octets), None))
            for _ in places:
                _, events = read(client, "GET", proxy.url + url, headers={"Connection": "close"})
                last = {"Last-Event-ID": events[-1].id} if events else {}
                _, rest = read(client, "GET", proxy.url + url, headers={"Connection": "close", **last})
                assert events + rest == whole


def test_positions_that_are_none(service: Server) -> None:
    """Unknown streams and positions are 404, malformed and mixed-up ones 400 that name the parameter, in every way."""
    with httpx.Client() as client:
        one, two = (read(client, "POST", f"{service.url}/v1/chat", json=body_of("none", 0))[1] for _ in range(2))
        mine = EventId.parse(one[-1].id).stream_id
        count = len(one)
        url = f"{service.url}/v1/streams/{mine}"

        def refusal(answer: httpx.Response) -> tuple[int, str | None]:
            error = answer.json()["error"]
            assert set(error) == {"message", "type", "code", "param", "retryable", "request_id"}
            return answer.status_code, error["param"]

        unknown = "A" * 22
        assert refusal(client.get(f"{service.url}/v1/streams/{unknown}")) == (404, None)
        assert refusal(client.get(f"{service.url}/v1/streams/nonsense")) == (404, None)
        for position, expected in [
            (f"{unknown}-1", None),
            (f"{mine}-{count + 1}", 404),
            (f"{mine}-999999999999", 404),
            (two[0].id, 400),
            *((bad, 400) for bad in ("x", "-1", "0", mine, f"{mine}-", f"{mine}-0", f"{mine}-01", f"{mine}-1x")),
            *((bad, 400) for bad in (f"{mine}-1 2", f"{mine}--1", f"{mine}-9999999999999", f"{mine}-١", "x" * 5000)),
        ]:
            header = {b"Last-Event-ID": position.encode()}
            answers = [client.get(url, headers=header), client.get(url, params={"last_event_id": position})]
            for answer in answers:
                status, param = refusal(answer)
                assert (status, param) == ((expected or 400), None if expected == 404 else "last_event_id"), position
            if position != two[0].id:  # a POST's url says nothing of the stream
                status, _ = refusal(client.post(f"{service.url}/v1/chat", json={"prompt": "x"}, headers=header))
                assert status == (expected or 404), position
        assert client.get(url, params={"last_event_id": ""}).status_code == 200
        # The header wins: it is newer than the address that an EventSource was made with.
        newer = client.get(url, params={"last_event_id": one[0].id}, headers={"Last-Event-ID": one[-1].id})
        assert newer.status_code == 204
