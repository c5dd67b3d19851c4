"""The AI SDK's endpoints over a real hub and journal, with an upstream that plays what a test wrote down."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest
from structlog.typing import FilteringBoundLogger

from app.edge.bodies import Defaults
from app.edge.dialects.ai_sdk import parse_ui_chat
from app.errors import BadRequest, RateExceeded, Unreachable
from app.events import Batch, Delta, Done, Start, new_stream_id
from app.request import Principal, StreamRequest
from app.wire import Reading
from tests.edge.service import Service, serving
from tests.script import forever
from tests.wire.answers import blocks_of
from tests.wire.test_ai_sdk import parts

pytestmark = pytest.mark.anyio

DEFAULTS = Defaults(model="m", chunk="auto", grace=10, max_grace=60)
ANN = Principal("ann")
DONE = (Done("stop"),)
MESSAGES = [{"id": "u", "role": "user", "parts": [{"type": "text", "text": "hi"}]}]
ANSWERED = {"type": "tool-f", "toolCallId": "c", "state": "output-available", "input": {}, "output": 1}
TOOL_MESSAGES = [*MESSAGES, {"id": "a", "role": "assistant", "parts": [{"type": "step-start"}, ANSWERED]}]
BODY: dict[str, Any] = {"id": "chat-1-of-a-page", "messages": MESSAGES, "trigger": "submit-message"}
CHAT = "/v1/ai-sdk/chat"


class Pause:
    """A step of a `Script` that is waited in until it is told to go on."""

    def __init__(self) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.go.wait()


async def readers(service: Service, count: int) -> None:
    """Wait until so many are reading."""
    while service.hub.reading != count:
        await asyncio.sleep(0)


def said(answer: httpx.Response) -> list[Any]:
    assert answer.status_code == 200
    return parts(answer.content)


async def test_open(log: FilteringBoundLogger) -> None:
    """A chat's request is answered with the stream of its message, under the SDK's header."""
    async with serving(log, (Delta("a"),), DONE) as (_, client):
        answer = await client.post(CHAT, json=BODY)
        types = [part if part == "[DONE]" else part["type"] for part in said(answer)]
        assert types == [
            *("start", "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"),
            "[DONE]",
        ]
        assert said(answer)[0]["messageId"] == answer.headers["x-stream-id"]
        assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store, no-transform"
        assert answer.headers["x-accel-buffering"] == "no"


async def test_in_native_events(log: FilteringBoundLogger) -> None:
    """A chat can be opened and resumed in native events, or in any other dialect, and an unknown one is refused."""
    pause = Pause()
    async with serving(log, (Delta("a"),), pause, DONE) as (house, client):
        native = {"dialect": "events"}
        opener = asyncio.create_task(client.post(CHAT, json=BODY, params=native))
        await pause.reached.wait()
        resumer = asyncio.create_task(client.get(f"{CHAT}/{BODY['id']}/stream", params=native))
        await readers(house, 2)
        pause.go.set()
        opened = await opener
        blocks = blocks_of(opened.content.partition(b"\n")[2])
        assert [block["event"] for block in blocks] == ["start", "delta", "done"]
        assert opened.content.partition(b"\n")[2] == (await resumer).content.partition(b"\n")[2]
        after = {"last_event_id": blocks[0]["id"], **native}
        for rest in (
            await client.post(CHAT, json=BODY, params=after),
            await client.get(f"{CHAT}/{BODY['id']}/stream", params=after),
        ):
            assert [block["event"] for block in blocks_of(rest.content.partition(b"\n")[2])] == ["delta", "done"]
        for refused in (
            await client.post(CHAT, json=BODY, params={"dialect": "none"}),
            await client.get(f"{CHAT}/{BODY['id']}/stream", params={"dialect": "none"}),
        ):
            assert refused.status_code == 400


async def test_an_answer_to_the_outputs_of_tools(log: FilteringBoundLogger) -> None:
    """The answer continues the page's last message. Its stream can also be read as a message of its own."""
    pause = Pause()
    async with serving(log, (Delta("a"),), pause, DONE) as (house, client):
        opener = asyncio.create_task(client.post(CHAT, json=BODY | {"messages": TOOL_MESSAGES}))
        await pause.reached.wait()
        resumer = asyncio.create_task(client.get(f"{CHAT}/chat-1-of-a-page/stream"))
        await readers(house, 2)
        pause.go.set()
        answer, again = await opener, await resumer
        assert said(answer)[0] == {"type": "start"}
        assert said(again)[0] == {"type": "start", "messageId": answer.headers["x-stream-id"]}
        assert said(again)[1:] == said(answer)[1:]


async def test_resume(log: FilteringBoundLogger) -> None:
    """While a chat's stream is live, it is given whole, from its start; afterwards there is nothing to resume."""
    pause = Pause()
    async with serving(log, (Delta("a"),), (Delta("b"),), pause, (Delta("c"),), DONE) as (house, client):
        assert (await client.get(f"{CHAT}/chat-1-of-a-page/stream")).status_code == 204
        opener = asyncio.create_task(client.post(CHAT, json=BODY))
        await pause.reached.wait()
        resumer = asyncio.create_task(client.get(f"{CHAT}/chat-1-of-a-page/stream"))
        await readers(house, 2)
        pause.go.set()
        answer, again = await opener, await resumer
        for found in said(answer), said(again):
            assert found[0] == {"type": "start", "messageId": answer.headers["x-stream-id"]}
            assert "".join(part["delta"] for part in found[:-1] if part["type"] == "text-delta") == "abc"
            assert found[-1] == "[DONE]"
        assert again.headers["x-vercel-ai-ui-message-stream"] == "v1"
        assert house.source.started == 1
        over = await client.get(f"{CHAT}/chat-1-of-a-page/stream")
        assert (over.status_code, over.content, over.headers["cache-control"]) == (204, b"", "no-store")


async def test_the_newest_stream_is_meant(log: FilteringBoundLogger) -> None:
    """A chat's older stream is neither resumed nor stopped."""
    pause = Pause()
    async with serving(log, (Delta("a"),), pause, DONE) as (house, client):
        older = asyncio.create_task(client.post(CHAT, json=BODY))
        await readers(house, 1)
        newer = asyncio.create_task(client.post(CHAT, json=BODY))
        await readers(house, 2)
        assert (await client.delete(f"{CHAT}/chat-1-of-a-page/stream")).status_code == 204
        assert said(await newer)[-3]["type"] == "abort"
        assert (await client.get(f"{CHAT}/chat-1-of-a-page/stream")).status_code == 204
        pause.go.set()
        assert said(await older)[-2]["type"] == "finish"


@pytest.mark.parametrize(("method", "path"), [("DELETE", "stream"), ("POST", "cancel")])
async def test_stop(log: FilteringBoundLogger, method: str, path: str) -> None:
    """Either stop ends the chat's stream for all its readers; again, or with nothing to stop, it changes nothing."""
    async with serving(log, (Delta("a"),), forever) as (house, client):
        url = f"{CHAT}/chat-1-of-a-page/{path}"
        assert (await client.request(method, url)).status_code == 204
        opener = asyncio.create_task(client.post(CHAT, json=BODY))
        await readers(house, 1)
        for _ in range(2):
            stopped = await client.request(method, url)
            assert (stopped.status_code, stopped.content) == (204, b"")
        assert said(await opener)[-3:] == [{"type": "abort"}, {"type": "finish"}, "[DONE]"]


async def test_stops_are_counted(log: FilteringBoundLogger) -> None:
    """The first stop of a chat's live stream is free. Any other one is counted as a request, and may be refused."""
    async with serving(log, (Delta("a"),), forever) as (house, client):
        house.stop_refusal = RateExceeded(retry_after=9)
        url = f"{CHAT}/chat-1-of-a-page/cancel"
        assert (await client.post(url)).status_code == 429
        opener = asyncio.create_task(client.post(CHAT, json=BODY))
        await readers(house, 1)
        assert [(await client.post(url)).status_code for _ in range(3)] == [204, 429, 429]
        await opener


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_stream_that_is_kept_no_longer(
    log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A journal may know of a chat's stream and have it no more: there is nothing to resume or stop then."""
    async with serving(log) as (house, client):

        async def gone(label: str, principal: Principal) -> str:
            assert (label, principal) == ("ai-sdk:chat 1", Principal("us"))
            return new_stream_id()

        monkeypatch.setattr(house.hub, "labelled", gone)
        answer = await client.request(method, f"{CHAT}/chat%201/stream", headers={"X-Who": "us"})
        assert answer.status_code == 204


async def test_the_chat_of_another_principal(log: FilteringBoundLogger) -> None:
    """A chat of the same id that belongs to another principal is another chat."""
    async with serving(log, (Delta("a"),), forever) as (house, client):
        theirs = asyncio.create_task(client.post(CHAT, json=BODY, headers={"X-Who": "them"}))
        await readers(house, 1)
        assert (await client.get(f"{CHAT}/chat-1-of-a-page/stream")).status_code == 204
        assert (await client.delete(f"{CHAT}/chat-1-of-a-page/stream")).status_code == 204
        assert not theirs.done()
        assert (await client.delete(f"{CHAT}/chat-1-of-a-page/stream", headers={"X-Who": "them"})).status_code == 204
        assert said(await theirs)[-3] == {"type": "abort"}


async def test_a_repeated_request(log: FilteringBoundLogger) -> None:
    """The same idempotency key leads to the same stream, which is paid once; with another body it is refused."""
    async with serving(log, (Delta("a"),), DONE) as (house, client):
        key = {"Idempotency-Key": "k"}
        first, second = [await client.post(CHAT, json=BODY, headers=key) for _ in range(2)]
        assert first.content == second.content
        assert house.source.started == 1
        assert (await client.post(CHAT, json=BODY | {"model": "n"}, headers=key)).status_code == 422


async def test_an_error_before_the_stream(log: FilteringBoundLogger) -> None:
    """An early error is an HTTP status with the error as its body, which the page shows."""
    async with serving(log, Unreachable()) as (_, client):
        answer = await client.post(CHAT, json=BODY)
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "upstream_unreachable"
        assert (await client.get(f"{CHAT}/chat-1-of-a-page/stream")).status_code == 204


async def test_an_error_in_the_stream(log: FilteringBoundLogger) -> None:
    """A late error is a part, after which the message is finished."""
    async with serving(log, (Delta("a"),), Unreachable()) as (_, client):
        found = said(await client.post(CHAT, json=BODY))
        assert [part["type"] for part in found[-4:-1]] == ["message-metadata", "error", "finish"]
        assert found[-1] == "[DONE]"


async def test_a_stream_of_another_dialect(log: FilteringBoundLogger) -> None:
    """A stream that was opened elsewhere is a message with its id; its label is no chat's."""
    async with serving(log, (Delta("a"),), DONE) as (house, client):
        stream_id = await house.hub.open(StreamRequest("m", ({"role": "user", "content": "hi"},)))
        read = await client.get(f"/v1/streams/{stream_id}?dialect=ai-sdk")
        assert said(read)[0] == {"type": "start", "messageId": stream_id}
        assert (await client.get(f"{CHAT}/{stream_id}/stream")).status_code == 204


def parse(**fields: Any) -> StreamRequest:
    return asyncio.run(parse_ui_chat(BODY | fields, DEFAULTS, ANN)).stream


def test_request() -> None:
    """The messages become OpenAI's, and OpenAI's parameters pass as they are; model and cut have defaults."""
    messages = ({"role": "user", "content": "hi"},)
    listed = '{"chat_id":"chat-1-of-a-page"}'
    assert parse() == StreamRequest("m", messages, {}, "auto", 10, 0, metadata=listed)
    tools = [{"type": "function", "function": {"name": "f"}}]
    asked = asyncio.run(
        parse_ui_chat(
            BODY
            | {"trigger": "regenerate-message", "messageId": "a", "model": "n", "temperature": 0, "tools": tools}
            | {"chunk": "word,smooth:50", "on_disconnect": "grace:3"},
            DEFAULTS,
            ANN,
        )
    )
    assert asked.stream == StreamRequest(
        "n", messages, {"temperature": 0, "tools": tools}, "word", 3, 3, metadata=listed
    )
    assert (asked.label, asked.smooth, asked.whole) == ("ai-sdk:chat-1-of-a-page", 0.05, False)


def test_who_can_come_back() -> None:
    """A page comes back by its chat's id. Where that could be guessed, it does not, and its stream ends with it."""

    def graces(
        chat_id: str | None, principal: Principal, *, is_set: bool = False, keyed: bool = False
    ) -> tuple[float, float]:
        body, defaults = BODY | {"id": chat_id}, replace(DEFAULTS, grace_is_set=is_set)
        asked = asyncio.run(parse_ui_chat(body, defaults, principal, keyed=keyed)).stream
        return asked.grace, asked.unknown_grace

    assert graces("chat-1-of-a-page", Principal()) == (10, 0)
    assert graces("demo", ANN) == (10, 0)
    assert graces("demo", Principal()) == (0, 0)
    assert graces(None, Principal()) == (10, 0)  # it comes back by the stream's id
    assert graces("demo", Principal(), is_set=True) == (10, 10)
    assert graces("demo", Principal(), keyed=True) == (10, 10)


def test_what_an_answer_continues() -> None:
    """An answer continues the last message if that is the assistant's; else it is a new message."""

    def first_part(body: dict[str, Any]) -> Any:
        asked = asyncio.run(parse_ui_chat(body, DEFAULTS, ANN))
        return parts(asked.create(Reading("S", asked=asked.stream.asked))(Batch(1, [Start("m", 1)])))[0]

    assert first_part(BODY) == {"type": "start", "messageId": "S"}
    assert first_part(BODY | {"messages": TOOL_MESSAGES}) == {"type": "start"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], None),
        ({"id": "chat-1-of-a-page"}, "messages"),
        (BODY | {"id": ""}, "id"),
        (BODY | {"id": 1}, "id"),
        (BODY | {"id": "a" * 257}, "id"),
        (BODY | {"id": "a/b"}, "id"),
        (BODY | {"id": "a\nb"}, "id"),
        (BODY | {"messages": []}, "messages"),
        (BODY | {"messages": [{"role": "user", "content": "hi"}]}, "messages[0].parts"),
        (BODY | {"messages": [{"role": "tool", "parts": []}]}, "messages[0].role"),
        (BODY | {"messages": [{"role": "user", "parts": ["hi"]}]}, "messages[0].parts[0]"),
        (BODY | {"messages": [{"role": "user", "parts": [{"text": "hi"}]}]}, "messages[0].parts[0].type"),
        (BODY | {"messages": [{"role": "user", "parts": [{"type": 1}]}]}, "messages[0].parts[0].type"),
        (BODY | {"messages": [{"role": "user", "parts": [{"type": "text"}]}]}, "messages[0].parts[0].text"),
        (BODY | {"trigger": "resume-stream"}, "trigger"),
        (BODY | {"messageId": 1}, "messageId"),
        (BODY | {"prompt": "hi"}, "prompt"),
        (BODY | {"n": 2}, "n"),
        (BODY | {"temperature": 3}, "temperature"),
        (BODY | {"chunk": "syllable"}, "chunk"),
        (BODY | {"on_disconnect": "grace:61"}, "on_disconnect"),
    ],
)
def test_what_is_refused(body: Any, field: str | None) -> None:
    """What this service does not take is refused, and the error names the field."""
    with pytest.raises(BadRequest) as caught:
        asyncio.run(parse_ui_chat(body, DEFAULTS, ANN))
    assert caught.value.param == field


async def test_a_short_chat_id_without_credentials(log: FilteringBoundLogger) -> None:
    """Where all callers are one principal, a chat whose id could be guessed is neither resumed nor stopped by it."""
    pause = Pause()
    async with serving(log, (Delta("a"),), pause, DONE) as (house, client):
        opener = asyncio.create_task(client.post(CHAT, json=BODY | {"id": "demo"}))
        await pause.reached.wait()
        assert (await client.get(f"{CHAT}/demo/stream")).status_code == 204
        assert (await client.delete(f"{CHAT}/demo/stream")).status_code == 204
        assert house.hub.live == 1
        pause.go.set()
        assert said(await opener)[-1] == "[DONE]"
    pause = Pause()
    async with serving(log, (Delta("a"),), pause, DONE) as (house, client):
        who = {"X-Who": "ann"}
        opener = asyncio.create_task(client.post(CHAT, json=BODY | {"id": "demo"}, headers=who))
        await pause.reached.wait()
        assert (await client.delete(f"{CHAT}/demo/stream", headers=who)).status_code == 204
        assert said(await opener)[-3] == {"type": "abort"}
