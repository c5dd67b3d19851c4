"""SIGTERM to one of several processes: readers of other processes' streams go on elsewhere, and lose nothing."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import httpx_sse
import pytest

from tests.real import node
from tests.real.clients.sse import Event, check, parse, text
from tests.real.conftest import Start
from tests.real.processes import Server
from tests.real.redis import RedisServer
from tests.waiting import wait_until

pytestmark = [pytest.mark.real, pytest.mark.anyio]

PROMPT = "A reader that is sent away comes back: 你好，世界。 " * 4
# Six seconds of answer: longer than it takes to be sent away and to come back.
MODEL = f"sim-echo?first=0&size=2&rate={len(PROMPT) / 2 / 6:.2f}"
EVENT_STREAM = {"Accept": "text/event-stream"}


class Pair(NamedTuple):
    """Two processes with one journal; the streams are begun in the first, and read from the second."""

    producer: Server
    reader: Server

    def begin(self, model: str = MODEL, **fields: Any) -> str:
        """Start a stream that goes on without a reader, do not read it, and return its path."""
        body = {"prompt": PROMPT, "model": model, "chunk": "none", "on_disconnect": "continue", **fields}
        answer = httpx.post(f"{self.producer.url}/v1/chat", json=body, headers={"Accept": "application/json"})
        return str(answer.json()["url"])

    def leave(self) -> None:
        """Tell the second one to leave, and wait until it has."""
        self.reader.send(signal.SIGTERM)
        assert self.reader.ended() == 0


@pytest.fixture
def start_pair(start_redis: Callable[..., RedisServer], start_service: Start) -> Callable[..., Pair]:
    def start(**settings: Any) -> Pair:
        journal = start_redis().url
        return Pair(*(start_service(journal=journal, log_format="json", **settings) for _ in range(2)))

    return start


def test_the_last_words(start_pair: Callable[..., Pair]) -> None:
    """A reader that is sent away gets whole events, then a bare `retry:` line, then the end of a whole body."""
    pair = start_pair(shutdown_grace=600)
    path = pair.begin()
    with httpx.stream("GET", f"{pair.reader.url}{path}", headers=EVENT_STREAM) as answer:
        pieces = answer.iter_raw()
        head = next(pieces)
        pair.reader.send(signal.SIGTERM)
        body = head + b"".join(pieces)  # raises if the body were cut
    blocks, _, last = body.rpartition(b"\n\n")
    seen = parse(blocks + b"\n\n")
    assert last.startswith(b"retry: ")
    assert 250 <= int(last.removeprefix(b"retry: ").removesuffix(b"\n")) <= 1500
    assert last.count(b"\n") == 1
    rest = parse(httpx.get(f"{pair.producer.url}{path}", headers={"Last-Event-ID": seen[-1].id}).content)
    check([*seen, *rest])
    assert text([*seen, *rest]) == PROMPT
    assert pair.reader.ended() == 0


async def test_event_source(start_pair: Callable[..., Pair], start_nginx: Start) -> None:
    """A real EventSource behind nginx is served by the other process by itself: every event once, in order."""
    pair = start_pair(shutdown_grace=600)
    front = start_nginx(pair.reader, pair.producer)  # in turns, beginning with the one that is to leave
    path = await asyncio.to_thread(pair.begin)
    events: list[Event] = []
    connections: list[dict[str, Any]] = []
    left: asyncio.Future[None] | None = None
    async for line in node.lines("eventsource", url=f"{front.url}{path}"):
        if line["event"] == "connection":
            connections.append(line)
        else:
            events.append(Event(line["id"], line["event"], line["data"]))
        if len(events) > 3 and left is None:
            assert "subscriber.attached" in pair.reader.text()
            left = asyncio.ensure_future(asyncio.to_thread(pair.leave))
    assert left is not None
    await left
    assert "dismissed" in pair.reader.text()
    check(events)  # every number once
    assert text(events) == PROMPT
    assert connections[-1]["code"] == 204


def test_httpx_sse(start_pair: Callable[..., Pair]) -> None:
    """A client of httpx-sse that resumes at the other process has every event once."""
    pair = start_pair(shutdown_grace=600)
    path = pair.begin()
    seen: list[httpx_sse.ServerSentEvent] = []

    def read(service: Server, leave_after: int = 0) -> None:
        headers = {"Last-Event-ID": seen[-1].id} if seen else {}
        with (
            httpx.Client() as client,
            httpx_sse.connect_sse(client, "GET", f"{service.url}{path}", headers=headers) as source,
        ):
            for event in source.iter_sse():
                seen.append(event)
                if len(seen) == leave_after:
                    service.send(signal.SIGTERM)

    read(pair.reader, leave_after=5)
    sent_away_at = len(seen)
    assert sent_away_at >= 5
    assert seen[-1].event == "delta"
    assert pair.reader.ended() == 0
    read(pair.producer)
    events = [Event(event.id, event.event, event.data) for event in seen]
    check(events)
    assert text(events) == PROMPT
    assert len(events) > sent_away_at


def test_a_reader_that_is_sent_away_has_not_left(start_pair: Callable[..., Pair]) -> None:
    """A stream that is cancelled when its last reader leaves is not, because that was sent away and comes back."""
    pair = start_pair(shutdown_grace=600)
    path = pair.begin(on_disconnect="cancel")
    with httpx.stream("GET", f"{pair.reader.url}{path}", headers=EVENT_STREAM) as answer:
        pieces = answer.iter_raw()
        head = next(pieces)
        pair.reader.send(signal.SIGTERM)
        seen = parse(head + b"".join(pieces))
    assert pair.reader.ended() == 0
    rest = parse(httpx.get(f"{pair.producer.url}{path}", headers={"Last-Event-ID": seen[-1].id}).content)
    check([*seen, *rest])
    assert rest[-1].json()["finish_reason"] == "stop"


def test_what_a_leaving_process_still_does(start_pair: Callable[..., Pair]) -> None:
    """While its own streams finish: no new ones, no readers of other's, its own read on; then `shutting_down`."""
    pair = start_pair(shutdown_grace=12)
    url, other = pair.reader.url, pair.begin("never-ends")
    with httpx.stream("POST", f"{url}/v1/chat", json={"prompt": "hi", "model": "never-ends"}) as answer:
        pieces = answer.iter_raw()
        body = next(pieces)
        own = answer.headers["content-location"]
        pair.reader.send(signal.SIGTERM)
        pair.reader.awaits("hub.draining")
        assert httpx.get(f"{url}/readyz").text == "draining\n"
        for refused in (
            httpx.post(f"{url}/v1/chat", json={"prompt": "hi"}),
            httpx.get(f"{url}{other}"),
        ):
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
            assert refused.headers["connection"] == "close"
        sent_away = httpx.get(f"{url}{other}", headers=EVENT_STREAM)
        assert (sent_away.status_code, sent_away.text) == (200, "retry: 1000\n")
        elsewhere = httpx.stream("GET", f"{pair.producer.url}{own}")
        with httpx.stream("GET", f"{url}{own}") as here, elsewhere as there:
            body += b"".join(pieces)
            for transcript in (body, here.read(), there.read()):
                error = parse(transcript)[-1]
                assert error.event == "error"
                assert json.loads(error.data)["error"]["code"] == "shutting_down"
                assert json.loads(error.data)["error"]["retryable"] is True
    assert pair.reader.ended() == 0
    assert httpx.get(f"{pair.producer.url}{other}", headers={"Accept": "application/json"}).json()["state"] == "live"


def test_a_held_answer_becomes_503(start_pair: Callable[..., Pair]) -> None:
    """Who waits for the status of an answer that is produced elsewhere gets 503, and may ask the next with its key."""
    pair = start_pair(shutdown_grace=600, commit_after=60)
    body = {"prompt": "hi", "model": "sim-echo?first=8&rate=0"}
    key = {"Idempotency-Key": "one"}
    begun = httpx.post(f"{pair.producer.url}/v1/chat", json=body, headers={**key, "Accept": "application/json"}).json()

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(timeout=30) as client:
            asking = asyncio.create_task(client.post(f"{pair.reader.url}/v1/chat", json=body, headers=key))
            await asyncio.to_thread(wait_until, lambda: "subscriber.attached" in pair.reader.text())
            pair.reader.send(signal.SIGTERM)
            return await asking

    refused = asyncio.run(ask())
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
    assert pair.reader.ended() == 0
    answer = httpx.post(f"{pair.producer.url}/v1/chat", json=body, headers=key, timeout=30)
    assert answer.headers["x-stream-id"] == begun["stream_id"]
    check(parse(answer.content))
