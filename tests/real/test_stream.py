"""The service as a user meets it: a real process, real sockets, curl and httpx-sse, the simulator over real HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import httpx_sse
import pytest

from app.events import EventId
from tests.real.conftest import Start
from tests.real.processes import Server, launch, left_unread, stats
from tests.real.wire import CHAT, connect, request
from tests.waiting import wait_until

pytestmark = pytest.mark.real


def ask(url: str, **body: Any) -> list[httpx_sse.ServerSentEvent]:
    """Stream one answer to its end, read by an independent client, and check what holds for every stream."""
    with httpx.Client() as client, httpx_sse.connect_sse(client, "POST", f"{url}/v1/chat", json=body) as source:
        events = list(source.iter_sse())
    check(events)
    return events


def check(events: list[httpx_sse.ServerSentEvent]) -> None:
    ids = [EventId.parse(event.id) for event in events]
    assert len({position.stream_id for position in ids}) == 1
    numbers = [position.seq for position in ids]
    assert numbers == sorted(set(numbers))  # dense except for records that were joined for a reader that lagged
    assert numbers[0] == 1
    assert events[0].event == "start"
    assert [event.event in ("done", "error") for event in events] == [False] * (len(events) - 1) + [True]


def knobs(model: str, more: str) -> str:
    return f"{model}{'&' if '?' in model else '?'}{more}"


def text(events: list[httpx_sse.ServerSentEvent], name: str = "delta") -> str:
    return "".join(event.json()["content"] for event in events if event.event == name)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One service with the built-in simulator, for the tests that change nothing about it."""
    server = launch(tmp_path_factory.mktemp("service"), retry_wait=0.01)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def odd(simulator: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One whose upstream has all the oddities that tests ask for."""
    server = launch(tmp_path_factory.mktemp("service"), simulator, retry_wait=0.01)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def undecided(simulator: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that waits long before it says 200."""
    server = launch(tmp_path_factory.mktemp("service"), simulator, commit_after=30, retry_wait=0.01)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def committed(simulator: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that has said 200 before the first text."""
    server = launch(tmp_path_factory.mktemp("service"), simulator, commit_after=0.1, retry_wait=0.01)
    yield server
    server.stop()


def test_curl(service: Server) -> None:
    """README's curl, word for word: a true event stream with start, deltas, done."""
    command = ["curl", "-sN", "-D", "-", f"{service.url}/v1/chat", "-d", '{"prompt":"hi"}']
    out = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    head, _, body = out.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"\r" not in body
    blocks = body.decode().split("\n\n")
    assert blocks.pop() == ""
    assert re.fullmatch(r"retry: \d+\nevent: start\ndata: \{.*\}\nid: [\w-]{22}-1", blocks[0])
    for block in blocks[1:-1]:
        assert re.fullmatch(r"event: delta\ndata: \{.*\}\nid: [\w-]+-\d+", block)
    assert re.fullmatch(r"event: done\ndata: \{.*\}\nid: [\w-]+-\d+", blocks[-1])


def test_headers(service: Server) -> None:
    """The answer has the contract's headers, and the caller's request id."""
    with httpx.stream(
        "POST", f"{service.url}/v1/chat", json={"prompt": "hi"}, headers={"X-Request-Id": "mine-1"}
    ) as answer:
        headers = answer.headers
    stream_id = headers["x-stream-id"]
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-store, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-location"] == f"/v1/streams/{stream_id}"
    assert headers["x-request-id"] == "mine-1"


@pytest.mark.parametrize("given", ["a b", "x" * 129, "é"])
def test_request_id_that_cannot_be_echoed(service: Server, given: str) -> None:
    """A request id that could break a header or a log is replaced."""
    answer = httpx.get(f"{service.url}/healthz", headers={b"X-Request-Id": given.encode()})
    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])


ECHO = 'Hello, 你好, สวัสดี, مرحبا 👩‍👩‍👧‍👦! \u2028 line\r\nnext\ttab \\ "quote" \x0b end.'


@pytest.mark.parametrize("chunk", ["auto", "none", "word", "sentence", "line", "size:3", "time:20", "word,20ms"])
def test_every_cut_gives_the_text_that_upstream_sent(service: Server, chunk: str) -> None:
    """Whatever the cut, the deltas put together are the answer, character by character."""
    events = ask(service.url, prompt=ECHO * 5, model="sim-echo?rate=0&first=0", chunk=chunk)
    assert text(events) == ECHO * 5
    assert events[-1].json()["finish_reason"] == "stop"


def test_done(service: Server) -> None:
    """The done event carries the finish reason, the upstream's usage, the model and the times."""
    done = ask(service.url, prompt="hi", model="sim-gpt?rate=0&first=0", max_tokens=9)[-1].json()
    assert done["finish_reason"] == "length"
    assert done["usage"]["completion_tokens"] == 9
    assert "estimated" not in done["usage"]
    assert done["model"].startswith("sim-gpt")
    assert 0 <= done["first_token_ms"] <= done["duration_ms"]


def test_reasoning_and_tools(service: Server) -> None:
    """Reasoning, refusals and tool calls are events of their own and never mix into the answer."""
    events = ask(service.url, prompt="hi", model="reasoning?rate=0&first=0")
    assert text(events, "reasoning")
    assert text(events)
    assert text(ask(service.url, prompt="hi", model="refusal?rate=0&first=0"), "refusal")
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    events = ask(service.url, prompt="hi", model="tools?rate=0&first=0", tools=[tool])
    calls = [event.json() for event in events if event.event == "tool_call"]
    assert calls[0]["name"] == "weather"
    json.loads("".join(call["arguments"] for call in calls if call["index"] == 0))
    assert events[-1].json()["finish_reason"] == "tool_calls"


EARLY = [
    ("error-400", 400, "upstream_rejected"),
    ("error-401", 502, "upstream_auth"),
    ("error-403", 502, "upstream_auth"),
    ("error-422", 400, "upstream_rejected"),
    ("error-429?retry_after=60", 429, "upstream_rate_limited"),
    ("error-500", 502, "upstream_error"),
    ("error-503?retry_after=60", 503, "upstream_overloaded"),
    ("error-first", 502, "upstream_error"),
    ("json-error-200", 429, "upstream_rate_limited"),
    ("html-200", 502, "upstream_malformed"),
    ("empty-200", 502, "upstream_empty"),
    ("close-before-headers", 502, "upstream_disconnected"),
    ("gzip-bomb", 502, "upstream_malformed"),
]


@pytest.mark.parametrize(("model", "status", "code"), EARLY)
def test_what_fails_early_is_a_status(undecided: Server, model: str, status: int, code: str) -> None:
    """Before the first content, a failure is a real HTTP status with the contract's body."""
    check_status(undecided, model, status, code)


def test_no_first_token_is_a_status(simulator: Server, start_service: Start) -> None:
    """Before the first content, that there is none in time is a status too."""
    service = start_service(simulator, first_token_timeout=0.3, commit_after=30, retry_wait=0.01)
    check_status(service, "stall?after=0", 504, "first_token_timeout")


def check_status(service: Server, model: str, status: int, code: str) -> None:
    answer = httpx.post(f"{service.url}/v1/chat", json={"prompt": "hi", "model": knobs(model, "first=0")})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "code", "param", "retryable", "request_id"}
    assert error["request_id"] == answer.headers["x-request-id"]
    if "retry_after" in model:
        assert answer.headers["retry-after"] == "60"


LATE = [
    ("error-in-stream?after=3", "upstream_error"),
    ("cut-before-finish?after=3", "upstream_disconnected"),
    ("cut-reset?after=3", "upstream_disconnected"),
    ("cut-clean-before-finish?after=3", "upstream_truncated"),
    ("garbage?after=3", "upstream_malformed"),
    ("deep-json?after=3", "upstream_malformed"),
    ("endless-line", "upstream_malformed"),
]


@pytest.mark.parametrize(("model", "code"), LATE)
def test_what_fails_late_is_an_error_event(committed: Server, model: str, code: str) -> None:
    """After content, or after the commit deadline, a failure is the terminal error event, with usage."""
    check_error(committed, model, code)


STALLS = [("stall?after=3", "idle_timeout"), ("stall-heartbeat?after=3&seconds=0.1", "progress_timeout")]


@pytest.mark.parametrize(("model", "code"), STALLS)
def test_a_stall_is_an_error_event(simulator: Server, start_service: Start, model: str, code: str) -> None:
    """An answer that stalls ends with an error that says which time was up."""
    check_error(start_service(simulator, **{code: 1}, commit_after=0.1, retry_wait=0.01), model, code)


def check_error(service: Server, model: str, code: str) -> None:
    pace = "rate=0&first=0" if "after" in model else "head=2&rate=0&first=0"
    events = ask(service.url, prompt="hi", model=knobs(model, pace))
    assert events[-1].event == "error"
    data = events[-1].json()
    assert data["error"]["code"] == code
    assert set(data["error"]) == {"message", "type", "code", "retryable"}
    assert data["usage"]["estimated"] is True
    if "after" in model:
        assert data["usage"]["completion_tokens"] > 0


WHOLE = [
    "cut-after-finish",
    "no-done",
    "no-usage",
    "json-instead-of-sse",
    "split-utf8",
    "giant-line?mib=2",
    "gzip",
    "bad-utf8",
    "nan",
    "crlf",
    "lone-surrogates",
    "two-per-frame",
    "refuses-stream-options",
    "slow-close",
    "flaky-500",
    "flaky-429",
    "flaky-409",
]


@pytest.mark.parametrize("model", WHOLE)
def test_what_is_only_odd_is_done(odd: Server, model: str) -> None:
    """Upstream's oddities that harm nothing end in done, with text."""
    events = ask(odd.url, prompt=f"hi {model}", model=knobs(model, "rate=0&first=0&retry_after=0.01"))
    assert events[-1].event == "done", events[-1].data
    assert text(events)


def test_slow_upstream_is_kept_alive(simulator: Server, start_service: Start) -> None:
    """When upstream's headers are slow, the stream begins at the commit deadline and comments follow, before them."""
    service = start_service(simulator, commit_after=0.05, keep_alive=0.1)
    body = json.dumps({"prompt": "hi", "model": "slow-headers?seconds=3&rate=0"})
    command = ["curl", "-sN", f"{service.url}/v1/chat", "-d", body]
    out = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode()
    start, _, rest = out.partition("\n\n")
    assert "event: start" in start
    comments = re.match(r"(:\n)+", rest)
    assert comments is not None, rest[:200]
    assert len(comments[0]) >= 3 * len(":\n")


def test_client_gone_before_headers(start_simulator: Start, start_service: Start) -> None:
    """A client that leaves while the upstream is silent aborts the request to the upstream, before its headers."""
    simulator = start_simulator()
    service = start_service(simulator, commit_after=30, on_disconnect="cancel")
    with connect(service) as client:
        client.sendall(request(CHAT, body=b'{"prompt":"x","model":"slow-headers?seconds=60"}'))
        wait_until(lambda: stats(simulator)["requests"] == 1)
    wait_until(lambda: stats(simulator)["aborted_before_headers"] == 1)
    assert not left_unread(service)
    service.awaits(r"stream.finished.*cancelled|cancelled.*stream.finished")


def test_client_gone_in_mid_stream(start_simulator: Start, start_service: Start) -> None:
    """A client that leaves mid-stream aborts the request to the upstream at once."""
    simulator = start_simulator()
    service = start_service(simulator, on_disconnect="cancel")
    with httpx.stream("POST", f"{service.url}/v1/chat", json={"prompt": "x", "model": "never-ends"}) as answer:
        chunks = answer.iter_bytes()
        while b"event: delta" not in next(chunks):
            pass
    wait_until(lambda: stats(simulator)["streams_aborted"] == 1)
    wait_until(lambda: stats(simulator)["live"] == 0)
    assert not left_unread(service)


def test_full_house(start_service: Start) -> None:
    """Above the bound on live streams, a new one is refused with 503 and Retry-After; when one ends, it is taken."""
    service = start_service(max_streams=1, on_disconnect="cancel")
    with httpx.stream("POST", f"{service.url}/v1/chat", json={"prompt": "x", "model": "never-ends"}) as answer:
        chunks = answer.iter_bytes()
        next(chunks)
        refused = httpx.post(f"{service.url}/v1/chat", json={"prompt": "x"})
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "overloaded"
        assert int(refused.headers["retry-after"]) >= 1
    wait_until(
        lambda: (
            httpx.post(f"{service.url}/v1/chat", json={"prompt": "x", "model": "sim-echo?rate=0&first=0"}).is_success
        )
    )


def test_health(service: Server) -> None:
    """A running service is alive and ready; a wrong path or method is answered in the contract's form."""
    assert httpx.get(f"{service.url}/healthz").text == "ok\n"
    assert httpx.get(f"{service.url}/readyz").text == "ready\n"
    missing = httpx.get(f"{service.url}/nothing")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    wrong = httpx.get(f"{service.url}/v1/chat")
    assert (wrong.status_code, wrong.json()["error"]["code"], wrong.headers["allow"]) == (
        405,
        "method_not_allowed",
        "POST",
    )


def test_many_at_once(service: Server) -> None:
    """Hundreds of streams at once are each whole, and none mixes with another."""

    async def one(client: httpx.AsyncClient, number: int) -> None:
        prompt = f"{number}: {ECHO}"
        body = {"prompt": prompt, "model": "sim-echo?rate=100&first=0"}
        async with httpx_sse.aconnect_sse(client, "POST", f"{service.url}/v1/chat", json=body) as source:
            events = [event async for event in source.aiter_sse()]
        check(events)
        assert text(events) == prompt

    async def all_of_them() -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(limits=limits, timeout=60) as client:
            await asyncio.gather(*(one(client, number) for number in range(200)))

    asyncio.run(all_of_them())
