"""Positions over HTTP: in every dialect, a client that comes back gets what it lacks, and pays nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from structlog.typing import FilteringBoundLogger

from app.errors import Disconnected
from app.events import Content, Delta, Done
from tests.edge.service import Service, serving
from tests.wire.answers import EVERYTHING, FOLDS, blocks_of

pytestmark = pytest.mark.anyio

DONE = Done("tool_calls")
# Each as it came, in batches of several kinds.
STEPS: list[Sequence[Any]] = [EVERYTHING[at : at + 3] for at in range(1, len(EVERYTHING), 3)]
CHAT = "chat-1-of-a-page"
EVENTS = {"Accept": "text/event-stream"}
MESSAGES = [{"role": "user", "content": "hi"}]
UI_MESSAGES = [{"id": "u", "role": "user", "parts": [{"type": "text", "text": "hi"}]}]
OPENING: dict[str, tuple[str, dict[str, Any]]] = {
    "events": ("/v1/chat", {"messages": MESSAGES}),
    "openai": (
        "/v1/chat/completions",
        {"messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}},
    ),
    "ai-sdk": ("/v1/ai-sdk/chat", {"id": CHAT, "messages": UI_MESSAGES}),
    "responses": ("/v1/responses", {"input": "hi", "stream": True}),
    "ag-ui": (
        "/v1/ag-ui",
        {"threadId": "t", "runId": "r", "messages": [{"id": "u", "role": "user", "content": "hi"}]},
    ),
}
DIALECTS = sorted(OPENING)
WEBKIT = {
    "User-Agent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/26.0 Safari/605.1.15",
    "Accept": "text/event-stream",
    "Cache-Control": "no-cache",
}
CHROMIUM = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"


def started(house: Service) -> int:
    """Return how many generations were paid for."""
    return house.source.started


def without_retry(text: str) -> str:
    return text.split("\n", 1)[1] if text.startswith("retry:") else text


@pytest.mark.parametrize("end", [(DONE,), Disconnected()], ids=["done", "failed"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_cut_at_every_event(log: FilteringBoundLogger, dialect: str, end: Any) -> None:
    """Wherever a stream is cut, and however the client comes back, before and after are the uncut stream."""
    path, body = OPENING[dialect]
    async with serving(log, *STEPS, end) as (house, client):
        opened = await client.post(path, json=body)
        stream = opened.headers["content-location"]
        whole = without_retry((await client.get(stream, params={"dialect": dialect})).text)
        fold = FOLDS[dialect]
        assert fold(blocks_of(without_retry(opened.text).encode())) == fold(blocks_of(whole.encode()))
        blocks = whole.split("\n\n")[:-1]
        for at, block in enumerate(blocks, 1):
            position = dict(line.split(": ", 1) for line in block.split("\n"))["id"]
            rest = "".join(f"{other}\n\n" for other in blocks[at:])
            answers = [
                await client.get(stream, params={"dialect": dialect}, headers={"Last-Event-ID": position}),
                await client.get(stream, params={"dialect": dialect, "last_event_id": position}),
                await client.get(stream, params={"dialect": dialect, "lastEventId": position}),
                await client.post(path, json=body, headers={"Last-Event-ID": position}),
                await client.post(path, json=body, params={"lastEventId": position}),
                await client.post(path, content=b"no JSON", headers={"Last-Event-ID": position}),
            ]
            if dialect == "ai-sdk":
                headers = {"Last-Event-ID": position}
                answers.append(await client.get(f"/v1/ai-sdk/chat/{CHAT}/stream", headers=headers))
            for answer in answers:
                assert answer.status_code == (200 if rest else 204)
                assert answer.headers["x-stream-id"] == opened.headers["x-stream-id"]
                assert without_retry(answer.text) == rest
        assert started(house) == 1


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_position_that_is_none(log: FilteringBoundLogger, dialect: str) -> None:
    """It is refused with 400, and starts nothing; one of a stream that is not there is a 404."""
    path, body = OPENING[dialect]
    async with serving(log, (Delta("a"),), (DONE,)) as (house, client):
        opened = await client.post(path, json=body)
        stream = opened.headers["content-location"]
        unknown = "A" * 22 + "-1"
        requests: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", path, {"json": body}),
            ("GET", f"{stream}?dialect={dialect}", {}),
        ]
        if dialect == "ai-sdk":
            requests.append(("GET", f"/v1/ai-sdk/chat/{CHAT}/stream", {}))
        for method, url, more in requests:
            for position in ("x", "1", opened.headers["x-stream-id"]):
                answer = await client.request(method, url, headers={"Last-Event-ID": position}, **more)
                assert (answer.status_code, answer.json()["error"]["param"]) == (400, "last_event_id")
            status = 400 if url.startswith(stream) else 404
            answer = await client.request(method, url, headers={"Last-Event-ID": unknown}, **more)
            assert answer.status_code == status
            beyond = f"{opened.headers['x-stream-id']}-99"
            answer = await client.request(method, url, headers={"Last-Event-ID": beyond}, **more)
            assert answer.status_code == 404
        assert started(house) == 1


async def test_a_position_of_another_chat(log: FilteringBoundLogger) -> None:
    """On the path of a chat, a position in a stream of another one is refused; an older stream of the chat is read."""
    path, body = OPENING["ai-sdk"]
    async with serving(log, (Delta("a"),), (DONE,)) as (_, client):
        older = await client.post(path, json=body)
        await client.post(path, json=body)
        headers = {"Last-Event-ID": f"{older.headers['x-stream-id']}-1"}
        other = await client.get("/v1/ai-sdk/chat/chat-2-of-a-page/stream", headers=headers)
        assert (other.status_code, other.json()["error"]["param"]) == (400, "last_event_id")
        again = await client.get(f"/v1/ai-sdk/chat/{CHAT}/stream", headers=headers)
        assert again.headers["x-stream-id"] == older.headers["x-stream-id"]
        assert again.headers["x-vercel-ai-ui-message-stream"] == "v1"


async def test_the_stream_of_another_principal(log: FilteringBoundLogger) -> None:
    """A position in another's stream leads nowhere, in any dialect."""
    async with serving(log, (Delta("a"),), (DONE,)) as (house, client):
        for path, body in OPENING.values():
            theirs = await client.post(path, json=body, headers={"X-Who": "them"})
            headers = {"Last-Event-ID": f"{theirs.headers['x-stream-id']}-1"}
            assert (await client.post(path, json=body, headers=headers)).status_code == 404
        assert started(house) == len(OPENING)


async def test_the_usage_is_asked_for_once(log: FilteringBoundLogger) -> None:
    """A stream whose request asked for the usage has it for later readers of OpenAI's dialect; no other has it."""
    path, body = OPENING["openai"]
    async with serving(log, (Delta("a"),), (DONE,)) as (_, client):
        for asked, more in ((True, {}), (False, {"stream_options": None})):
            opened = await client.post(path, json=body | more)
            again = await client.get(opened.headers["content-location"], params={"dialect": "openai"})
            assert ('"usage":null' in again.text) is asked
            assert again.text == opened.text


async def test_a_long_stream(log: FilteringBoundLogger) -> None:
    """A client is brought to a place far into a stream, over many batches of the journal."""
    steps: list[list[Content]] = [[Delta(f"{number} ")] for number in range(3000)]
    async with serving(log, *steps, (DONE,)) as (_, client):
        path, body = OPENING["ai-sdk"]
        opened = await client.post(path, json=body | {"chunk": "none"})
        position = f"{opened.headers['x-stream-id']}-2901"
        rest = await client.get(
            opened.headers["content-location"], params={"dialect": "ai-sdk", "last_event_id": position}
        )
        first = blocks_of(rest.content)[0]
        assert first["data"] == '{"type":"text-delta","id":"1","delta":"2900 "}'
        smooth = await client.get(
            opened.headers["content-location"],
            params={"dialect": "ai-sdk", "last_event_id": f"{position.removesuffix('2901')}3002.1", "smooth": "1"},
        )
        assert [block["id"].rpartition("-")[2] for block in blocks_of(smooth.content)] == ["3002.2", "3002.3", "3002"]


@pytest.mark.parametrize(
    ("headers", "glued"),
    [
        (WEBKIT, True),
        (
            WEBKIT | {"User-Agent": "Mozilla/5.0 (iPhone) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/156.0 Safari"},
            True,
        ),
        (WEBKIT | {"User-Agent": CHROMIUM}, False),
        (WEBKIT | {"User-Agent": CHROMIUM.replace("Chrome/", "Chromium/")}, False),
        (WEBKIT | {"User-Agent": "Mozilla/5.0 (X11; Linux) Gecko/20100101 Firefox/150.0"}, False),
        (WEBKIT | {"Accept": "text/event-stream, */*"}, False),
        (WEBKIT | {"Cache-Control": "no-store"}, False),
        (EVENTS, False),
    ],
)
async def test_what_webkit_is_sent(log: FilteringBoundLogger, headers: dict[str, str], glued: bool) -> None:
    """WebKit's own EventSource, when it comes back to native events, gets first what ends a block that was cut."""
    async with serving(log, (Delta("a"),), (DONE,)) as (_, client):
        opened = await client.post("/v1/chat", json={"prompt": "x"})
        stream = opened.headers["content-location"]
        position = f"{opened.headers['x-stream-id']}-2"
        back = await client.get(stream, headers=headers | {"Last-Event-ID": position})
        cut = f":\nevent: cut\nid: {position}\n\n" if glued else ""
        assert back.text.startswith(f"{cut}retry: ")
        assert back.text.count("event: cut") == glued
        assert (await client.get(stream, headers=headers)).text.startswith("retry: ")
        other = await client.get(stream, params={"dialect": "openai"}, headers=headers | {"Last-Event-ID": position})
        assert other.text.startswith("data: ")
        post = await client.post("/v1/chat", headers=headers | {"Last-Event-ID": position})
        assert post.text.startswith("retry: ")
