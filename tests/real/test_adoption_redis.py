"""Over Redis, another process adopts a dead one's streams: one whole answer, which was asked and paid for once."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from redis import Redis

from tests.real.clients.sse import Event, check, parse, text
from tests.real.conftest import Start
from tests.real.processes import Server
from tests.real.redis import RedisServer
from tests.real.test_adoption import PROMPT, is_finished_once, read_until, reading, rest_of, whole
from tests.waiting import wait_until

pytestmark = pytest.mark.real

# The answer goes on for some ten seconds: longer than it takes until a process counts as gone.
SLOW = "rate=20&first=0"

Pair = Callable[..., tuple[Server, Server]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), "--appendonly", "no")
    yield server
    server.stop()


@pytest.fixture
def redis(shared: RedisServer) -> Iterator[Redis]:
    with shared.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def start(start_hasty: Start, simulator: Server, shared: RedisServer, redis: Redis) -> Callable[..., Server]:
    """Start a service on an upstream that keeps its answers; a day's tokens are counted."""

    def started(**settings: Any) -> Server:
        background = {"upstream": "openai-responses", "upstream_background": "true", "tokens_per_day": 1_000_000}
        return start_hasty(simulator, journal=shared.url, **background, **settings)

    return started


@pytest.fixture
def elsewhere() -> Iterator[Callable[[Server, str], Future[list[Event]]]]:
    """Read a stream through a service, in a thread, from its start to its end."""
    with ThreadPoolExecutor() as threads:
        yield lambda service, stream_id: threads.submit(whole, service, stream_id)


def spent(redis: Redis) -> int:
    """Return what was charged to the only account; 0 if a reservation is left."""
    [key] = redis.keys("chat-sse:budget:*")
    account: Any = redis.hgetall(key)
    open_ones = [
        value for name, value in account.items() if name not in (b"spent", b"until") and b"settled" not in value
    ]
    return 0 if open_ones else int(account.get(b"spent", 0))


def is_paid_once(redis: Redis, end: Event) -> None:
    wait_until(lambda: spent(redis) == end.json()["usage"]["completion_tokens"])


@pytest.mark.parametrize("chunk", ["none", "sentence", "time:40"])
def test_killed(
    start: Callable[..., Server],
    redis: Redis,
    counted: Callable[[], dict[str, int]],
    elsewhere: Callable[[Server, str], Future[list[Event]]],
    chunk: str,
) -> None:
    """Who reads elsewhere, and who comes back there, gets one whole answer; a key stands for the same stream."""
    a, b = start(), start()
    others: list[Future[list[Event]]] = []

    def enough(events: list[Event]) -> bool:
        if events and not others:
            others.append(elsewhere(b, events[0].id[:22]))
        return len(events) > 3

    body: dict[str, Any] = {"prompt": PROMPT, "model": f"sim-echo?{SLOW}", "chunk": chunk}
    seen = parse(read_until(a, enough, key="k", **body))
    joined = chunk != "none"
    rest = rest_of(b, seen[-1])
    check(seen + rest, dense=not joined)
    assert (text(seen + rest), rest[-1].event) == (PROMPT, "done")
    other = others[0].result()
    check(other, dense=not joined)
    assert (text(other), other[-1]) == (PROMPT, rest[-1])
    is_finished_once(counted)
    is_paid_once(redis, rest[-1])
    stream_id = seen[0].id[:22]
    keyed = {"Idempotency-Key": "k", "Accept": "application/json"}
    assert httpx.post(f"{b.url}/v1/chat", headers=keyed, json=body).json()["stream_id"] == stream_id
    line = json.loads(b.awaits(r".*stream\.finished.*")[0])
    assert (line["adopted"], line["stream_id"]) == (True, stream_id)
    assert not redis.keys("*:note")
    assert counted()["responses"] == 1


def test_without_a_reader(start: Callable[..., Server], redis: Redis, counted: Callable[[], dict[str, int]]) -> None:
    """A stream that goes on without a reader is adopted, too: it is whole, and paid for, before a reader comes."""
    a, b = start(), start()
    body = {"prompt": PROMPT, "model": f"sim-echo?{SLOW}", "chunk": "none", "on_disconnect": "continue"}
    opened = httpx.post(f"{a.url}/v1/chat", json=body, headers={"Accept": "application/json"}).json()
    wait_until(lambda: redis.keys("*:note"))
    a.kill()
    line = json.loads(b.awaits(r".*stream\.finished.*")[0])
    assert (line["adopted"], line["stream_id"]) == (True, opened["stream_id"])
    events = whole(b, opened["stream_id"])
    check(events)
    assert (text(events), events[-1].event) == (PROMPT, "done")
    is_paid_once(redis, events[-1])
    assert counted()["responses"] == 1


def test_killed_twice(start: Callable[..., Server], redis: Redis, counted: Callable[[], dict[str, int]]) -> None:
    """A process that has adopted a stream may die, too."""
    a, b = start(), start()
    prompt = f"{PROMPT} {PROMPT}"
    seen = parse(read_until(a, lambda events: len(events) > 3, prompt=prompt, model=f"sim-echo?{SLOW}", chunk="none"))
    with reading("GET", f"{b.url}/v1/streams/{seen[0].id[:22]}", headers={"Last-Event-ID": seen[-1].id}) as pieces:
        data = b""
        with pytest.raises(httpx.HTTPError):
            for piece in pieces:
                data += piece
                if b.popen.poll() is None and b"event: delta" in data:
                    b.kill()
    more = parse(data)
    assert more[-1].event == "delta", "the answer had ended before the kill"
    c = start()
    rest = rest_of(c, more[-1])
    check(seen + more + rest)
    assert (text(seen + more + rest), rest[-1].event) == (prompt, "done")
    assert counted()["responses"] == 1
    is_paid_once(redis, rest[-1])


def test_a_tool_call(start: Callable[..., Server]) -> None:
    """A call whose arguments had come half is one call."""
    a, b = start(), start()
    parameters = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
    tool = {"type": "function", "function": {"name": "one", "parameters": parameters}}
    body: dict[str, Any] = {"prompt": "What is the weather?", "model": "tools?rate=3&first=0", "tools": [tool]}
    seen = parse(read_until(a, lambda events: sum(event.event == "tool_call" for event in events) >= 2, **body))
    rest = rest_of(b, seen[-1])
    check(seen + rest, dense=False)
    assert rest[-1].json()["finish_reason"] == "tool_calls"
    pieces = [event.json() for event in seen + rest if event.event == "tool_call"]
    assert {piece["index"] for piece in pieces} == {0}
    assert "".join(piece.get("name") or "" for piece in pieces) == "one"
    assert isinstance(json.loads("".join(piece.get("arguments") or "" for piece in pieces)), dict)


def test_asleep(
    start: Callable[..., Server],
    redis: Redis,
    counted: Callable[[], dict[str, int]],
    elsewhere: Callable[[Server, str], Future[list[Event]]],
) -> None:
    """A process that wakes up after others took it for dead leaves its stream: its reader gets the rest by another."""
    a, b = start(), start()
    data = b""
    other: Future[list[Event]] | None = None
    body = {"prompt": PROMPT, "model": f"sim-echo?{SLOW}", "chunk": "none"}
    with reading("POST", f"{a.url}/v1/chat", json=body) as pieces:
        for piece in pieces:
            data += piece
            if other is None and (events := parse(data)):
                other = elsewhere(b, events[0].id[:22])
                b.awaits(r"subscriber\.attached")
                a.send(signal.SIGSTOP)
                b.awaits(r"stream\.adopted")
                a.send(signal.SIGCONT)
    seen = parse(data)
    a.awaits(r"journal\.fenced")
    assert other is not None
    events = other.result()
    check(events)
    assert (text(events), events[-1].event) == (PROMPT, "done")
    for service in (a, b):
        rest = rest_of(service, seen[-1]) if seen[-1].event != "done" else []
        check(seen + rest)
        assert text(seen + rest) == PROMPT
    is_finished_once(counted)
    is_paid_once(redis, events[-1])
    assert (adopted(a), adopted(b)) == (0, 1)


def test_drained(start: Callable[..., Server], redis: Redis, counted: Callable[[], dict[str, int]]) -> None:
    """What a drain leaves live is adopted by another process."""
    a, b = start(shutdown_grace=0), start()
    data = b""
    body = {"prompt": PROMPT, "model": f"sim-echo?{SLOW}", "chunk": "none"}
    with reading("POST", f"{a.url}/v1/chat", json=body) as pieces:
        for piece in pieces:
            data += piece
            if len(parse(data)) > 3 and a.popen.poll() is None:
                a.send(signal.SIGTERM)
    assert a.ended() == 0
    seen = parse(data)
    assert seen[-1].event == "delta"
    rest = rest_of(b, seen[-1])
    check(seen + rest)
    assert (text(seen + rest), rest[-1].event) == (PROMPT, "done")
    is_finished_once(counted)
    is_paid_once(redis, rest[-1])


def adopted(service: Server) -> int:
    """Return how many streams a service has adopted."""
    found = re.search(r"^chat_sse_streams_adopted_total (\d+)", httpx.get(f"{service.url}/metrics").text, re.MULTILINE)
    return int(found[1]) if found else 0
