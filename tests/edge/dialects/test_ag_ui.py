"""AG-UI's endpoint over a real hub and journal, with an upstream that plays what a test wrote down."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import orjson
import pytest
from structlog.typing import FilteringBoundLogger

from app.edge.bodies import Defaults
from app.edge.dialects.ag_ui import parse_run
from app.errors import BadRequest, Disconnected, Unreachable
from app.events import Delta, Done
from app.wire import ag_ui
from app.wire.opaque import seal
from tests.edge.service import serving
from tests.waiting import until
from tests.wire.test_ag_ui import read

pytestmark = pytest.mark.anyio

DEFAULTS = Defaults(model="m", chunk="auto", grace=10, max_grace=60)
DONE = (Done("stop"),)
RUN = "/v1/ag-ui"
# As HttpAgent of @ag-ui/client 1.0 sends it; TanStack's client sends `data` besides.
BODY: dict[str, Any] = {
    "threadId": "t",
    "runId": "r",
    "protocolVersion": "1.0",
    "messages": [{"id": "u", "role": "user", "content": "hi"}],
    "tools": [],
    "context": [],
    "state": {},
    "forwardedProps": {},
}


def said(answer: httpx.Response) -> list[Any]:
    assert answer.status_code == 200
    return read(answer.content)


async def test_open(log: FilteringBoundLogger) -> None:
    """A run is answered with its events, the first and last of which have the client's names."""
    async with serving(log, (Delta("a"),), DONE) as (house, client):
        answer = await client.post(RUN, json=BODY)
        events = said(answer)
        assert [event["type"] for event in events] == [
            "RUN_STARTED",
            "TEXT_MESSAGE_START",
            "TEXT_MESSAGE_CONTENT",
            "TEXT_MESSAGE_END",
            "RUN_FINISHED",
        ]
        for event in (events[0], events[-1]):
            assert (event["threadId"], event["runId"]) == ("t", "r")
        assert events[1]["messageId"] == answer.headers["x-stream-id"]
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert house.asked[0].messages == ({"role": "user", "content": "hi"},)
        again = await client.get(answer.headers["content-location"], params={"dialect": "ag-ui"})
        assert again.content == answer.content


async def test_a_named_run_is_paid_for_once(log: FilteringBoundLogger) -> None:
    """TanStack's header stands for an idempotency key: the same request is the same run, another is refused."""
    async with serving(log, (Delta("a"),), DONE) as (house, client):
        named = {"X-Run-Id": "run-1"}
        answers = [await client.post(RUN, json=BODY, headers=named) for _ in range(2)]
        assert answers[0].content == answers[1].content
        assert house.source.started == 1
        other = await client.post(RUN, json={**BODY, "runId": "s"}, headers=named)
        assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
        keyed = await client.post(RUN, json={**BODY, "runId": "s"}, headers={**named, "Idempotency-Key": "k"})
        assert keyed.headers["x-stream-id"] != answers[0].headers["x-stream-id"]
        for key in ({}, {"Idempotency-Key": "k"}):
            wrong = await client.post(RUN, json=BODY, headers={"X-Run-Id": "x" * 256, **key})
            assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "X-Run-Id")
        await client.post(RUN, json=BODY)
        assert house.source.started == 3


async def test_a_run_is_found_by_its_name(log: FilteringBoundLogger) -> None:
    """A page that was reloaded is told which run is live, and reads that from its start or after an event."""
    names = {"threadId": "thread-of-the-page-1", "runId": "run-of-the-page-1"}
    body = {**BODY, **names, "forwardedProps": {"chunk": "none"}}
    go_on = asyncio.Event()
    async with serving(log, (Delta("a"),), go_on.wait, (Delta("b"),), DONE, grace=10) as (house, client):
        asked = asyncio.create_task(client.post(RUN, json=body, headers={"X-Run-Id": "run-of-the-page-1"}))
        await until(lambda: house.hub.reading == 1)
        thread = await client.get(RUN, params={"threadId": "thread-of-the-page-1"})
        assert thread.json() == {"messages": [], "activeRun": {"runId": "run-of-the-page-1"}, "interrupts": None}
        joined = asyncio.create_task(client.get(RUN, params={"runId": "run-of-the-page-1", "offset": "-1"}))
        await until(lambda: house.hub.reading == 2)
        go_on.set()
        answer = await asked
        assert (await joined).content == answer.content
        ended = await client.get(RUN, params={"threadId": "thread-of-the-page-1"})
        assert ended.json()["activeRun"] is None
        again = await client.get(RUN, params={"runId": "run-of-the-page-1"})
        assert again.content == answer.content
        third = again.text.split("\n\n")[2].split("\n")[0].removeprefix("id: ")
        rest = await client.get(RUN, params={"runId": "run-of-the-page-1"}, headers={"Last-Event-ID": third})
        assert rest.content and answer.content.endswith(rest.content)
        assert house.source.started == 1


async def test_a_name_leads_to_a_run_of_the_caller_only(log: FilteringBoundLogger) -> None:
    """Not to another caller's, to a stream with that idempotency key, or by a name that a stranger could guess."""
    async with serving(log, (Delta("a"),), DONE) as (_, client):
        run = {**BODY, "threadId": "t", "runId": "run-1"}
        for who in ("", "ann"):
            await client.post(RUN, json=run, headers={"X-Run-Id": "run-1", "X-Who": who})
        await client.post("/v1/chat", json={"prompt": "hi"}, headers={"Idempotency-Key": "key-of-a-stream-1"})
        other = await client.post(RUN, json=run)
        position = {"Last-Event-ID": f"{other.headers['x-stream-id']}-1"}
        asked: list[tuple[dict[str, str], dict[str, str], int]] = [
            ({"runId": "run-1"}, {"X-Who": "ann"}, 200),
            ({"runId": "run-1"}, {"X-Who": "bob"}, 404),
            ({"runId": "run-1"}, {}, 404),
            ({"runId": "key-of-a-stream-1"}, {}, 404),
            ({"runId": "run-1"}, {"X-Who": "ann", **position}, 400),
            ({"runId": "run-1", "offset": "3"}, {"X-Who": "ann"}, 400),
            ({}, {}, 400),
        ]
        for query, headers, status in asked:
            assert (await client.get(RUN, params=query, headers=headers)).status_code == status, (query, headers)
        # Nothing is live any more, and a short name finds nothing.
        for headers in ({}, {"X-Who": "ann"}):
            thread = await client.get(RUN, params={"threadId": "t"}, headers=headers)
            assert thread.json()["activeRun"] is None


async def test_failures(log: FilteringBoundLogger) -> None:
    """Before the first event a failure is a status with a JSON body, which HttpAgent shows; after it, an event."""
    async with serving(log, Unreachable()) as (_, client):
        refused = await client.post(RUN, json=BODY)
        assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_unreachable")
    async with serving(log, (Delta("a"),), Disconnected()) as (_, client):
        assert said(await client.post(RUN, json=BODY))[-1]["code"] == "upstream_disconnected"


async def test_what_is_asked_for() -> None:
    """Tools, the context and the parameters of the forwarded properties go upstream; the page's own fields do not."""
    asked = await parse_run(
        {
            **BODY,
            "parentRunId": "p",
            "tools": [{"name": "f", "description": "d", "parameters": {}, "metadata": {}}],
            "context": [{"description": "who", "value": "ann"}],
            "state": {"secret": 1},
            "forwardedProps": {
                "model": "n",
                "chunk": "word,smooth:50",
                "on_disconnect": "grace:5",
                "temperature": 0.5,
                "tool_choice": "auto",
                "tools": "mine",
                "metadata": [1],
                "mine": {"a": 1},
            },
            "data": {"a": 1},
        },
        DEFAULTS,
    )
    stream = asked.stream
    assert (stream.model, stream.chunk, asked.smooth, stream.grace) == ("n", "word", 0.05, 5)
    assert stream.messages == ({"role": "system", "content": "who:\nann"}, {"role": "user", "content": "hi"})
    function = {"name": "f", "description": "d", "parameters": {}}
    assert stream.parameters == {
        "temperature": 0.5,
        "tool_choice": "auto",
        "tools": [{"type": "function", "function": function}],
    }


async def test_encrypted_values_are_bounded() -> None:
    """What a client says is an answer's encrypted value counts as if it stood in the body."""
    calls = [{**CALL, "encryptedValue": seal({"a": [0] * 20_000})}] * 2
    deep = seal({"a": orjson.loads("[" * 64 + "]" * 64)})
    for messages in (
        [{"role": "assistant", "toolCalls": calls}],
        [{"role": "assistant", "encryptedValue": deep}],
    ):
        with pytest.raises(BadRequest):
            await parse_run({**BODY, "messages": messages}, DEFAULTS)


async def test_who_comes_back() -> None:
    """A client with a key gets the grace, and TanStack's is expected back at a dismissal."""
    plain = await parse_run({**BODY, "tools": None, "context": None, "forwardedProps": None}, DEFAULTS)
    assert (plain.stream.grace, plain.create) == (0, ag_ui.RunEncoder)
    keyed = await parse_run(BODY, DEFAULTS, keyed=True)
    assert (keyed.stream.grace, keyed.create) == (10, ag_ui.RunEncoder)
    assert (await parse_run(BODY, DEFAULTS, keyed=True, returns=True)).create == ag_ui.ReturningRunEncoder


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threadId", None),
        ("runId", "x" * 513),
        ("messages", []),
        ("messages", [BODY["messages"][0]] * 4097),
        ("messages[0].role", [{"role": "pope", "content": ""}]),
        (
            "messages[0].toolCalls[0].function.arguments",
            [{"role": "assistant", "toolCalls": [{**CALL, "function": {"name": "f", "arguments": {}}}]}],
        ),
        ("messages[0].content", [{"role": "user"}]),
        ("tools[0].name", [{"description": "d"}]),
        ("context[0].value", [{"description": "d", "value": {}}]),
        ("forwardedProps.model", {"model": 1}),
        ("forwardedProps.chunk", {"chunk": "words"}),
        ("forwardedProps.on_disconnect", {"on_disconnect": "grace:99"}),
        ("resume", [{"interruptId": "i", "status": "resolved"}]),
    ],
)
async def test_what_is_refused(field: str, value: Any) -> None:
    """The refusal names the field, as the client wrote it."""
    with pytest.raises(BadRequest) as refused:
        await parse_run({**BODY, field.partition("[")[0].partition(".")[0]: value}, DEFAULTS)
    assert refused.value.param == field
