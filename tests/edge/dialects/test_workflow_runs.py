"""What the AI SDK's `WorkflowChatTransport` asks for: streams by their ids, chunks by their numbers, JSON as text."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from structlog.typing import FilteringBoundLogger

import app.edge.positions
from app.errors import Disconnected
from app.events import Delta, Done
from tests.edge.dialects.test_ai_sdk import BODY, CHAT, DONE, MESSAGES, TOOL_MESSAGES, Pause, readers, said
from tests.edge.service import PAGE, serving
from tests.script import forever
from tests.wire.answers import EVERYTHING

pytestmark = pytest.mark.anyio

RUN = {"messages": MESSAGES}  # all that the transport sends
STEPS = [EVERYTHING[at : at + 3] for at in range(1, len(EVERYTHING), 3)]


def url_of(opened: httpx.Response) -> str:
    return f"{CHAT}/{opened.headers['x-workflow-run-id']}/stream"


def chunks(answer: httpx.Response) -> list[Any]:
    """Return the chunks as the SDK counts them, of an answer that is whole."""
    *found, end = said(answer)
    assert end == "[DONE]"
    return found


@pytest.mark.parametrize("end", [(Done("tool_calls"),), (Done("cancelled"),), Disconnected()], ids=repr)
async def test_every_number_is_a_cursor(log: FilteringBoundLogger, end: Any) -> None:
    """After any number of chunks come exactly the rest, whose last is `finish`, however the answer ended."""
    async with serving(log, *STEPS, end) as (house, client):
        opened = await client.post(CHAT, json=RUN)
        assert opened.headers["x-workflow-run-id"] == opened.headers["x-stream-id"]
        assert opened.headers["x-resumable-stream-id"] == opened.headers["x-stream-id"]  # for assistant-ui's
        whole = chunks(opened)
        assert whole[-1]["type"] == "finish"
        for number in range(len(whole)):
            assert chunks(await client.get(url_of(opened), params={"startIndex": str(number)})) == whole[number:]
        over = await client.get(url_of(opened), params={"startIndex": str(len(whole))})
        assert (over.status_code, over.content) == (204, b"")
        beyond = await client.get(url_of(opened), params={"startIndex": str(len(whole) + 1)})
        assert (beyond.status_code, beyond.json()["error"]["param"]) == (400, "startIndex")
        assert house.source.started == 1


async def test_a_negative_number(log: FilteringBoundLogger) -> None:
    """It is how many of the last chunks are wanted; a header says which of all is the last."""
    async with serving(log, *STEPS, (Done("tool_calls"),)) as (_, client):
        opened = await client.post(CHAT, json=RUN)
        whole = chunks(opened)
        for number in range(1, len(whole) + 3):
            tail = await client.get(url_of(opened), params={"startIndex": str(-number)})
            assert chunks(tail) == whole[-number:]
            assert int(tail.headers["x-workflow-stream-tail-index"]) == len(whole) - 1


async def test_a_live_stream(log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client gets the rest as it comes. A number that the stream has not reached is refused."""
    monkeypatch.setattr(app.edge.positions, "_LATE", 0.05)
    pause = Pause()
    async with serving(log, (Delta("a"),), pause, (Delta("b"),), DONE) as (house, client):
        opener = asyncio.create_task(client.post(CHAT, json=BODY))
        await pause.reached.wait()
        url = f"{CHAT}/{BODY['id']}/stream"
        # There are start, start-step, text-start and text-delta.
        assert (await client.get(url, params={"startIndex": "5"})).status_code == 400
        rests = [asyncio.create_task(client.get(url, params={"startIndex": index})) for index in ("4", "-1")]
        await readers(house, 3)
        pause.go.set()
        whole = chunks(await opener)
        after, tail = [await rest for rest in rests]
        assert chunks(after) == whole[4:]
        assert chunks(tail) == whole[3:]
        assert tail.headers["x-workflow-stream-tail-index"] == "3"


async def test_a_stream_that_has_not_begun(log: FilteringBoundLogger) -> None:
    """It has no last chunk, and is read from its start."""
    pause = Pause()
    async with serving(log, pause, (Delta("a"),), DONE) as (house, client):
        opener = asyncio.create_task(client.post(CHAT, json=BODY))
        await pause.reached.wait()
        tail = asyncio.create_task(client.get(f"{CHAT}/{BODY['id']}/stream", params={"startIndex": "-9"}))
        await readers(house, 2)
        pause.go.set()
        assert chunks(await tail) == chunks(await opener)
        assert (await tail).headers["x-workflow-stream-tail-index"] == "-1"


@pytest.mark.parametrize("index", ["", "x", "1.5", "+1", "- 1", "1" * 13, "٣"])
async def test_a_number_that_is_none(log: FilteringBoundLogger, index: str) -> None:
    """It is refused by name, and never ignored."""
    async with serving(log, (Delta("a"),), DONE) as (_, client):
        opened = await client.post(CHAT, json=RUN)
        refused = await client.get(url_of(opened), params={"startIndex": index})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "startIndex")


async def test_two_cursors(log: FilteringBoundLogger) -> None:
    """A number beside a position, in another dialect, or on a POST is refused, and starts nothing."""
    async with serving(log, (Delta("a"),), DONE) as (house, client):
        opened = await client.post(CHAT, json=RUN)
        query = {"startIndex": "1"}
        for refused in (
            await client.get(url_of(opened), params=query | {"dialect": "events"}),
            await client.get(url_of(opened), params=query | {"last_event_id": f"{opened.headers['x-stream-id']}-1"}),
            await client.post(CHAT, json=RUN, params=query),
        ):
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "startIndex")
        assert house.source.started == 1


async def test_which_stream_is_meant(log: FilteringBoundLogger) -> None:
    """A path names a stream by its own id, or the newest one of a chat, by the chat's; and only the caller's own."""
    async with serving(log, (Delta("a"),), DONE) as (_, client):
        first, query = {"startIndex": "0"}, {"X-Who": "ann"}
        opened = await client.post(CHAT, json=RUN, headers=query)
        chat_id = opened.headers["x-stream-id"]  # a chat that is named as if it were that stream
        other = await client.post(CHAT, json=BODY | {"id": chat_id}, headers={"X-Who": "them"})
        for who, stream in (("ann", opened), ("them", other)):
            read = await client.get(url_of(opened), params=first, headers={"X-Who": who})
            assert read.headers["x-stream-id"] == stream.headers["x-stream-id"]
        for path in (url_of(opened), f"{CHAT}/{'A' * 22}/stream", f"{CHAT}/another-chat-of-a-page/stream"):
            unknown = await client.get(path, params=first, headers={"X-Who": "eve"})
            assert unknown.status_code == 404
        position = {"Last-Event-ID": f"{chat_id}-1", "X-Who": "ann"}
        assert (await client.get(url_of(opened), headers=position)).headers["x-stream-id"] == chat_id


@pytest.mark.parametrize(("method", "path"), [("DELETE", "stream"), ("POST", "cancel")])
async def test_stop(log: FilteringBoundLogger, method: str, path: str) -> None:
    """A stream is stopped by its own id."""
    async with serving(log, (Delta("a"),), forever) as (house, client):
        opener = asyncio.create_task(client.post(CHAT, json=RUN))
        await readers(house, 1)
        (stream_id,) = house.hub._streams
        assert (await client.request(method, f"{CHAT}/{stream_id}/{path}")).status_code == 204
        assert chunks(await opener)[-2:] == [{"type": "abort"}, {"type": "finish"}]


@pytest.mark.parametrize("chat", [{}, {"id": BODY["id"]}], ids=["run", "chat"])
async def test_every_reader_has_the_same_chunks(log: FilteringBoundLogger, chat: dict[str, str]) -> None:
    """Nothing is joined in an answer to a POST, even if it comes late; a page that reads all again has fewer chunks."""
    pause = Pause()
    texts = [(Delta(text),) for text in "abcdefgh"]
    async with serving(log, *texts, pause, DONE) as (house, client):
        key = {"Idempotency-Key": "k"}
        opener = asyncio.create_task(client.post(CHAT, json=RUN | chat, headers=key))
        await pause.reached.wait()
        late = asyncio.create_task(client.post(CHAT, json=RUN | chat, headers=key))
        await readers(house, 2)
        (stream_id,) = house.hub._streams
        again = asyncio.create_task(client.get(f"{CHAT}/{stream_id}/stream"))
        await readers(house, 3)
        pause.go.set()
        whole = chunks(await opener)
        assert [chunk["delta"] for chunk in whole if chunk["type"] == "text-delta"] == list("abcdefgh")
        assert chunks(await late) == whole
        assert [chunk["delta"] for chunk in chunks(await again) if chunk["type"] == "text-delta"] == ["abcdefgh"]


async def test_an_answer_to_the_outputs_of_tools(log: FilteringBoundLogger) -> None:
    """It continues the page's last message for a client that lost all of it, too: no chunk is another one then."""
    async with serving(log, (Delta("a"),), DONE) as (_, client):
        opened = await client.post(CHAT, json={"messages": TOOL_MESSAGES})
        assert chunks(opened)[0] == {"type": "start"}
        assert chunks(await client.get(url_of(opened), params={"startIndex": "0"})) == chunks(opened)


@pytest.mark.parametrize(
    ("origins", "origin", "media_type", "status"),
    [
        ((PAGE,), PAGE, "text/plain;charset=UTF-8", 200),
        (("*", PAGE), PAGE, "text/plain", 200),
        ((), "http://localhost", "text/plain", 200),
        (("*",), PAGE, "text/plain", 415),
        (("*",), "null", "text/plain", 415),
        (("*",), PAGE, "application/json", 200),
        ((PAGE,), PAGE, "application/x-www-form-urlencoded", 415),
        ((PAGE,), PAGE, "multipart/form-data", 415),
        ((), None, "text/plain", 200),
    ],
)
async def test_json_that_is_called_text(
    log: FilteringBoundLogger, origins: list[str], origin: str | None, media_type: str, status: int
) -> None:
    """A page may send it, if its origin is the service's own or listed by name; a form of any other site may not."""
    async with serving(log, (Delta("a"),), DONE, origins=origins) as (house, client):
        headers = {"Content-Type": media_type, **({"Origin": origin} if origin else {})}
        answer = await client.post(CHAT, content=json.dumps(RUN), headers=headers)
        assert answer.status_code == status
        assert house.source.started == (status == 200)


async def test_text_elsewhere(log: FilteringBoundLogger) -> None:
    """On other paths a page says that its JSON is JSON, since their clients do."""
    async with serving(log, (Delta("a"),), DONE) as (_, client):
        headers = {"Content-Type": "text/plain", "Origin": PAGE}
        assert (await client.post("/v1/chat", content=b'{"prompt": "hi"}', headers=headers)).status_code == 415
