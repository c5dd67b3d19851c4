"""A process's live streams are adopted by the next one: it goes on with the answer that the upstream has kept."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import free_port
from tests.real.clients.sse import Event, check, parse, text
from tests.real.conftest import Start
from tests.real.processes import Server, stats
from tests.waiting import wait_until

pytestmark = pytest.mark.real

PROMPT = " ".join(f"This is sentence number {number} of a text that goes on for a while." for number in range(12))
# PROMPT takes more than three seconds, and a kill comes at its beginning: a machine that pauses for a second is not too
# late for it. It is no slower, because the next process is read to that end.
SLOW = "rate=50&first=0"


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    """Return the settings of a process, and of the one that takes its place."""
    background = {"upstream": "openai-responses", "upstream_background": "true"}
    return {"journal": f"file://{folder}/j", "port": free_port(), **background, **more}


@contextmanager
def reading(method: str, url: str, **request: Any) -> Iterator[Iterator[bytes]]:
    with httpx.stream(method, url, timeout=30, **request) as answer:
        assert answer.status_code == 200, answer.read()
        yield answer.iter_raw()


def read_until(
    service: Server, enough: Callable[[list[Event]], bool], path: str = "chat", key: str = "", **body: Any
) -> bytes:
    """Start a stream, read it until there is *enough*, kill the service, and return all that came."""
    data = b""
    headers = {"Idempotency-Key": key} if key else {}
    with reading("POST", f"{service.url}/v1/{path}", json=body, headers=headers) as pieces:
        try:
            for piece in pieces:
                data += piece
                if service.popen.poll() is None and enough(parse(data)):
                    service.kill()
        except httpx.HTTPError:
            pass  # it broke off, as it was meant to
    assert parse(data)[-1].event not in ("done", "error"), "the answer had ended before the kill"
    return data


def rest_of(service: Server, last: Event) -> list[Event]:
    """Return what a client gets that comes back with the last event's id."""
    url = f"{service.url}/v1/streams/{last.id[:22]}"
    with reading("GET", url, headers={"Last-Event-ID": last.id}) as pieces:
        return parse(b"".join(pieces))


def whole(service: Server, stream_id: str) -> list[Event]:
    with reading("GET", f"{service.url}/v1/streams/{stream_id}") as pieces:
        return parse(b"".join(pieces))


def is_finished_once(counted: Callable[[], dict[str, int]]) -> None:
    """Expect that the upstream was asked once, and comes to the end of that response, which it may do after its last
    event."""
    wait_until(lambda: counted()["background_live"] == 0)
    counts = counted()
    assert counts["responses"] == 1
    assert [counts[f"background_{name}"] for name in ("started", "finished", "cancelled")] == [1, 1, 0]


@pytest.mark.parametrize("chunk", ["none", "sentence", "time:40"])
def test_kill_it_and_start_it(
    start_service: Start, simulator: Server, counted: Callable[[], dict[str, int]], tmp_path: Path, chunk: str
) -> None:
    """A page that comes back gets exactly the rest of one whole answer, and the upstream was asked for it once."""
    same = settings(tmp_path)
    service = start_service(simulator, **same)
    body = {"prompt": PROMPT, "model": f"sim-echo?{SLOW}", "chunk": chunk}
    seen = parse(read_until(service, lambda events: len(events) > 3, **body))
    service = start_service(simulator, **same)
    rest = rest_of(service, seen[-1])
    joined = chunk != "none"  # with the others, records that wait are joined: from 2 on, or from 32 on for `sentence`
    check(seen + rest, dense=not joined)
    assert text(seen + rest) == PROMPT
    assert (rest[-1].event, rest[-1].json()["finish_reason"]) == ("done", "stop")
    assert rest[-1].json()["usage"]["completion_tokens"] > 50
    again = whole(service, seen[0].id[:22])
    assert again == seen + rest or (joined and text(again) == PROMPT)
    is_finished_once(counted)
    line = json.loads(service.awaits(r".*stream\.finished.*")[0])
    assert (line["adopted"], line["stream_id"]) == (True, seen[0].id[:22])
    assert "chat_sse_streams_adopted_total 1" in httpx.get(f"{service.url}/metrics").text
    # Ended, it is a stream as any other, also for the process after this one.
    service.kill()
    service = start_service(simulator, **same)
    assert whole(service, seen[0].id[:22]) == again


def test_drain_it_and_start_it(
    start_service: Start, simulator: Server, counted: Callable[[], dict[str, int]], tmp_path: Path
) -> None:
    """A deploy in the middle of an answer: the reader is told to come back, and gets exactly the rest from the next."""
    same = settings(tmp_path, shutdown_grace=0)
    service = start_service(simulator, **same)
    body = {"prompt": PROMPT, "model": f"sim-echo?{SLOW}", "chunk": "none"}
    data = b""
    with reading("POST", f"{service.url}/v1/chat", json=body) as pieces:
        for piece in pieces:  # which end as those of a whole response do
            data += piece
            if len(parse(data)) > 3 and service.popen.poll() is None:
                service.send(signal.SIGTERM)
    assert service.ended() == 0
    assert re.search(rb"\nretry: [0-9]+\n$", data)
    seen = parse(data)
    assert seen[-1].event == "delta"
    service = start_service(simulator, **same)
    rest = rest_of(service, seen[-1])
    check(seen + rest)
    assert (text(seen + rest), rest[-1].event) == (PROMPT, "done")
    is_finished_once(counted)


def test_a_drain_ends_what_no_client_comes_back_to(start_service: Start, simulator: Server, tmp_path: Path) -> None:
    """A client that could not come back is told that the service is shutting down, and the upstream to stop."""
    service = start_service(simulator, **settings(tmp_path, shutdown_grace=0))
    cancelled = stats(simulator)["background_cancelled"]
    body = {"messages": [{"role": "user", "content": "x"}], "model": "never-ends?rate=100&first=0", "stream": True}
    data = b""
    with reading("POST", f"{service.url}/v1/chat/completions", json=body) as pieces:
        for piece in pieces:
            data += piece
            if data.count(b'"content"') > 3 and service.popen.poll() is None:
                service.send(signal.SIGTERM)
    assert b'"shutting_down"' in data
    wait_until(lambda: stats(simulator)["background_cancelled"] == cancelled + 1)


def test_held_text(start_service: Start, simulator: Server, tmp_path: Path) -> None:
    """Text that a cut held back when the process was killed is not lost, and comes as it would have come."""
    same = settings(tmp_path)
    service = start_service(simulator, **same)
    body = {"prompt": PROMPT, "model": "sim-echo?rate=40&first=0", "chunk": "sentence"}
    before = stats(simulator)["deltas"]

    def held(events: list[Event]) -> bool:
        if len(events) > 3:  # more has come since: a sentence has some 15 deltas
            wait_until(lambda: stats(simulator)["deltas"] >= before + 55)
        return len(events) > 3

    data = read_until(service, held, **body)
    seen = parse(data)
    service = start_service(simulator, **same)
    rest = rest_of(service, seen[-1])
    check(seen + rest)
    assert text(seen + rest) == PROMPT
    deltas = [event.json()["content"] for event in seen + rest if event.event == "delta"]
    # The first text of a stream is never held back, wherever it ends.
    assert all(delta.rstrip().endswith(".") for delta in deltas[1:]), deltas


def test_a_second_kill(start_service: Start, simulator: Server, tmp_path: Path) -> None:
    """A process that has adopted a stream may die, too."""
    same = settings(tmp_path)
    service = start_service(simulator, **same)
    prompt = f"{PROMPT} {PROMPT}"
    body = {"prompt": prompt, "model": "sim-echo?rate=40&first=0", "chunk": "none"}
    seen = parse(read_until(service, lambda events: len(events) > 10, **body))
    for _ in range(2):
        service = start_service(simulator, **same)
        service.kill()
    service = start_service(simulator, **same)
    rest = rest_of(service, seen[-1])
    check(seen + rest)
    assert (text(seen + rest), rest[-1].event) == (prompt, "done")


def test_a_tool_call(start_service: Start, simulator: Server, tmp_path: Path) -> None:
    """A call whose arguments had come half is one call."""
    same = settings(tmp_path)
    service = start_service(simulator, **same)
    parameters = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
    tools = [{"type": "function", "function": {"name": name, "parameters": parameters}} for name in ("one", "two")]
    # Of some 20 pieces three come before the kill, and the others within three seconds after it.
    body: dict[str, Any] = {"prompt": "What is the weather?", "model": "tools?rate=6&first=0", "tools": tools}

    def calling(events: list[Event]) -> bool:
        return sum(event.event == "tool_call" for event in events) >= 3

    seen = parse(read_until(service, calling, **body))
    service = start_service(simulator, **same)
    rest = rest_of(service, seen[-1])
    check(seen + rest, dense=False)
    assert rest[-1].json()["finish_reason"] == "tool_calls"
    calls: dict[int, list[str]] = {}
    for event in seen + rest:
        if event.event == "tool_call":
            piece = event.json()
            call = calls.setdefault(piece["index"], ["", "", ""])
            for at, name in enumerate(("id", "name", "arguments")):
                call[at] += piece.get(name) or ""
    assert {call[1] for call in calls.values()} == {"one", "two"}
    assert all(call[0].startswith("call_") and isinstance(json.loads(call[2]), dict) for call in calls.values())


def test_before_the_first_delta(start_service: Start, simulator: Server, tmp_path: Path) -> None:
    """A stream of which nothing had come is adopted as soon as the upstream has named its answer; a key finds it."""
    same = settings(tmp_path)
    service = start_service(simulator, **same)
    before = stats(simulator)["responses"]
    keyed: dict[str, Any] = {
        "headers": {"Idempotency-Key": "k", "Accept": "application/json"},
        "json": {"prompt": PROMPT, "model": "sim-echo?rate=0&first=0&head=4", "chunk": "none"},
    }
    stream_id = httpx.post(f"{service.url}/v1/chat", **keyed).json()["stream_id"]
    wait_until(lambda: any(b"resp_" in file.read_bytes() for file in (tmp_path / "j").iterdir()))
    service.kill()
    service = start_service(simulator, **same)
    assert httpx.post(f"{service.url}/v1/chat", **keyed).json()["stream_id"] == stream_id
    events = whole(service, stream_id)
    check(events)
    assert (text(events), events[-1].event) == (PROMPT, "done")
    assert stats(simulator)["responses"] == before + 1


def test_the_upstream_had_finished(start_service: Start, simulator: Server, tmp_path: Path) -> None:
    """An answer whose end the process did not live to read has that end."""
    same = settings(tmp_path)
    service = start_service(simulator, **same)
    finished = stats(simulator)["background_finished"]
    body = {"prompt": PROMPT, "model": f"sim-echo?{SLOW}", "chunk": "none"}
    data = b""
    with reading("POST", f"{service.url}/v1/chat", json=body) as pieces:
        for piece in pieces:
            data += piece
            if len(parse(data)) > 5:
                break
        service.send(signal.SIGSTOP)
        wait_until(lambda: stats(simulator)["background_finished"] > finished)
        service.kill()
        with pytest.raises(httpx.HTTPError):
            for piece in pieces:
                data += piece
    seen = parse(data)
    assert seen[-1].event == "delta", "the answer had ended before the kill"
    service = start_service(simulator, **same)
    rest = rest_of(service, seen[-1])
    check(seen + rest)
    assert (text(seen + rest), rest[-1].event) == (PROMPT, "done")


def test_the_upstream_has_forgotten(
    start_service: Start, simulator: Server, start_simulator: Start, tmp_path: Path
) -> None:
    """If the upstream does not know the answer any more, the stream ends honestly, with the text that there was."""
    same = settings(tmp_path)
    service = start_service(simulator, **same)
    body = {"prompt": PROMPT, "model": f"sim-echo?{SLOW}", "chunk": "none"}
    seen = parse(read_until(service, lambda events: len(events) > 10, **body))
    service = start_service(start_simulator(), **same)
    rest = rest_of(service, seen[-1])
    check(seen + rest)
    assert (rest[-1].event, rest[-1].json()["error"]["code"]) == ("error", "producer_lost")
    assert PROMPT.startswith(text(seen + rest))
    line = json.loads(service.awaits(r".*stream\.failed.*")[0])
    assert (line["reason"], line["adopted"]) == ("producer_lost", True)


def test_stop_and_leave(start_service: Start, simulator: Server, tmp_path: Path) -> None:
    """The stop button and a grace without a reader reach the upstream's answer, whichever process began it."""
    same = settings(tmp_path, on_disconnect="cancel")
    service = start_service(simulator, **same)
    cancelled = stats(simulator)["background_cancelled"]
    body = {"prompt": "x", "model": "never-ends?rate=100&first=0"}
    first = parse(read_until(service, lambda events: len(events) > 3, **body))
    service = start_service(simulator, **same)
    url = f"{service.url}/v1/streams/{first[0].id[:22]}"
    listed = httpx.get(url, headers={"Accept": "application/json"}).json()
    assert listed["state"] == "live"
    stopped = httpx.delete(url).json()
    assert (stopped["state"], stopped["finish_reason"]) == ("done", "cancelled")
    wait_until(lambda: stats(simulator)["background_cancelled"] == cancelled + 1)
    # A reader that comes back and leaves again is the last one: the policy of the request holds.
    second = parse(read_until(service, lambda events: len(events) > 3, **body))
    service = start_service(simulator, **same)
    url = f"{service.url}/v1/streams/{second[0].id[:22]}"
    with reading("GET", url, headers={"Last-Event-ID": second[-1].id}) as pieces:
        assert next(pieces)
    wait_until(lambda: stats(simulator)["background_cancelled"] == cancelled + 2)
    assert whole(service, second[0].id[:22])[-1].json()["finish_reason"] == "cancelled"


def test_responses_cursor(start_service: Start, simulator: Server, tmp_path: Path) -> None:
    """A client of OpenAI's Responses goes on with its own cursor, and gets what a client of one process gets."""
    same = settings(tmp_path)
    service = start_service(simulator, **same)
    body = {"input": PROMPT, "model": f"sim-echo?{SLOW}", "stream": True, "background": True}
    data = b""
    with reading("POST", f"{service.url}/v1/responses", json=body) as pieces:
        try:
            for piece in pieces:
                data += piece
                if service.popen.poll() is None and data.count(b"response.output_text.delta") > 20:
                    service.kill()
        except httpx.HTTPError:
            pass
    seen = numbered(data)
    assert seen[-1]["type"] == "response.output_text.delta", "the answer had ended before the kill"
    response_id = seen[0]["response"]["id"]
    service = start_service(simulator, **same)
    after = seen[-1]["sequence_number"]
    url = f"{service.url}/v1/responses/{response_id}?stream=true"
    with reading("GET", f"{url}&starting_after={after}") as pieces:
        rest = numbered(b"".join(pieces))
    events = seen + rest
    numbers = [event["sequence_number"] for event in events]
    assert numbers == sorted(set(numbers))  # a delta that was joined of several has the last one's
    assert "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta") == PROMPT
    assert events[-1]["type"] == "response.completed"
    with reading("GET", url) as pieces:
        again = numbered(b"".join(pieces))  # what lies in the log is joined
    assert (again[:4], again[-1]) == (events[:4], events[-1])


def numbered(data: bytes) -> list[Any]:
    blocks = data.decode().split("\n\n")[:-1]
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines if line != "data: [DONE]"]
