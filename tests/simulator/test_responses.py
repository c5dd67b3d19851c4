"""The simulator's `/v1/responses`: what OpenAI's own client and types make of it, healthy and not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent, response_create_params
from pydantic import BaseModel, TypeAdapter

from app.simulator import Simulator
from app.simulator.request import PARAMETERS
from app.simulator.text import ANSWERS, REASONING, REFUSAL, choose
from tests.simulator.asking import PROMPT, Seen, ask

pytestmark = pytest.mark.anyio

ANSWER = ANSWERS[choose(PROMPT)]
TOOLS = [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in ("one", "two")]
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=simulator.url, api_key="k", max_retries=0) as opened:
        yield opened


async def respond(simulator: Simulator, model: str, **fields: Any) -> Seen:
    """Ask *model* for a response over a bare connection."""
    return await ask(simulator, model, path="/v1/responses", **fields)


def frames(seen: Seen) -> list[tuple[str, dict[str, Any]]]:
    """Return each event's name and data; the name must be there, and lines end with LF."""
    *blocks, rest = seen.body.decode().split("\n\n")
    assert rest == ""
    pairs = [block.split("\n") for block in blocks]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]


def models_in(value: Any) -> Iterator[BaseModel]:
    if isinstance(value, BaseModel):
        yield value
        value = dict(value)
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from models_in(item)


def strict(value: BaseModel) -> None:
    """Fail if *value* has anything that OpenAI's types have not."""
    for part in models_in(value):
        assert not part.model_extra, f"{type(part).__name__} has no {part.model_extra}"


def events(seen: Seen) -> list[dict[str, Any]]:
    """Return the events of a stream that is OpenAI's to the letter: types, numbers from 0, names, one end."""
    found = frames(seen)
    for at, (name, data) in enumerate(found):
        assert (name, at) == (data["type"], data["sequence_number"])
        strict(EVENT.validate_python(data, strict=True))
    ends = {"response.completed", "response.incomplete", "response.failed"}
    assert [name in ends for name, _ in found] == [False] * (len(found) - 1) + [True]
    return [data for _, data in found]


def text(found: list[dict[str, Any]], kind: str = "response.output_text") -> str:
    return "".join(event["delta"] for event in found if event["type"] == f"{kind}.delta")


def collapsed(found: list[dict[str, Any]]) -> list[str]:
    """Return the types in their order, a run of the same as one."""
    kinds = [event["type"].removeprefix("response.") for event in found]
    return [kind for at, kind in enumerate(kinds) if at == 0 or kinds[at - 1] != kind]


MESSAGE = [
    *("output_item.added", "content_part.added", "output_text.delta"),
    *("output_text.done", "content_part.done", "output_item.done"),
]
CALL = [
    *("output_item.added", "function_call_arguments.delta"),
    *("function_call_arguments.done", "output_item.done"),
]


async def test_a_stream_has_openais_events_in_openais_order(simulator: Simulator) -> None:
    """created, in progress, item, part, deltas, and the whole text four times; no [DONE]."""
    found = events(await respond(simulator, "sim-gpt"))
    assert collapsed(found) == ["created", "in_progress", *MESSAGE, "completed"]
    response = found[-1]["response"]
    (item,) = response["output"]
    (part,) = item["content"]
    deltas = [event for event in found if event["type"] == "response.output_text.delta"]
    assert ANSWER == text(found) == part["text"]
    assert [event["text"] for event in found if event["type"] == "response.output_text.done"] == [ANSWER]
    assert (item["status"], response["status"], response["model"]) == ("completed", "completed", "sim-gpt")
    assert response["usage"]["output_tokens"] == len(deltas)
    assert {event["response"]["id"] for event in found if "response" in event} == {response["id"]}
    assert {event["item_id"] for event in deltas} == {item["id"]}


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        (
            "reasoning",
            [
                *("output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta"),
                *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done", *MESSAGE),
            ],
        ),
        (
            "reasoning-text",
            [
                *("output_item.added", "content_part.added", "reasoning_text.delta"),
                *("reasoning_text.done", "content_part.done", "output_item.done", *MESSAGE),
            ],
        ),
        ("refusal", [kind.replace("output_text", "refusal") for kind in MESSAGE]),
        ("tools", CALL * 2),
        ("text-and-tools", MESSAGE + CALL * 2),
        ("sim-echo", MESSAGE),
        ("clock", MESSAGE),
    ],
)
async def test_other_kinds_have_their_own_events(simulator: Simulator, model: str, kinds: list[str]) -> None:
    """Each kind of content has its own item, events and deltas."""
    found = events(await respond(simulator, model, tools=TOOLS))
    assert collapsed(found) == ["created", "in_progress", *kinds, "completed"]


async def test_kinds_say_what_they_should(simulator: Simulator) -> None:
    """Reasoning, refusal and arguments, put together, are what they are in chat."""
    assert text(events(await respond(simulator, "reasoning")), "response.reasoning_summary_text") == REASONING
    assert text(events(await respond(simulator, "reasoning-text")), "response.reasoning_text") == REASONING
    assert text(events(await respond(simulator, "refusal")), "response.refusal") == REFUSAL
    calls = events(await respond(simulator, "tools", tools=TOOLS))[-1]["response"]["output"]
    assert [call["name"] for call in calls] == ["one", "two"]
    assert {json.loads(call["arguments"])["query"] for call in calls} == {PROMPT}
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": PROMPT}]},
        {k: calls[0][k] for k in ("type", "call_id", "name", "arguments")},
        {"type": "function_call_output", "call_id": calls[0]["call_id"], "output": "18 °C"},
    ]
    assert text(events(await respond(simulator, "tools", tools=TOOLS, input=items))) == ANSWER


async def test_an_answer_without_a_word_is_a_message(simulator: Simulator) -> None:
    """An empty answer has its item, part and empty text."""
    found = events(await respond(simulator, "sim-echo", input=""))
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == ""


@pytest.mark.parametrize(
    ("model", "fields", "reason", "deltas"),
    [
        ("sim-gpt", {"max_output_tokens": 3}, "max_output_tokens", 3),
        ("content-filter?after=4", {}, "content_filter", 4),
        ("content-filter?after=0", {}, "content_filter", 0),
        ("never-ends", {"max_output_tokens": 40}, "max_output_tokens", 40),
    ],
)
async def test_a_cut_answer_is_incomplete(
    simulator: Simulator, model: str, fields: dict[str, Any], reason: str, deltas: int
) -> None:
    """A limit or a filter ends with response.incomplete and its reason (R5)."""
    found = events(await respond(simulator, model, **fields))
    assert found[-1]["type"] == "response.incomplete"
    assert found[-1]["response"]["incomplete_details"] == {"reason": reason}
    assert sum(event["type"].endswith("text.delta") for event in found) == deltas


async def test_logprobs_come_to_those_who_ask(simulator: Simulator) -> None:
    """Each delta has its token's log probabilities, and the whole has them all."""
    seen = await respond(simulator, "sim-gpt", include=["message.output_text.logprobs"], top_logprobs=2)
    found = events(seen)
    deltas = [event for event in found if event["type"] == "response.output_text.delta"]
    assert all([event["delta"]] == [each["token"] for each in event["logprobs"]] for event in deltas)
    assert {len(each["top_logprobs"]) for event in deltas for each in event["logprobs"]} == {2}
    whole = found[-1]["response"]["output"][0]["content"][0]["logprobs"]
    assert [each["token"] for each in whole] == [event["delta"] for event in deltas]
    assert bytes(byte for each in whole for byte in each["bytes"]).decode() == ANSWER


async def test_the_official_client_reads_a_stream(client: openai.AsyncOpenAI) -> None:
    """openai-python accumulates the stream to the response that ends it."""
    async with client.responses.stream(model="sim-gpt", input=PROMPT) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert kinds[-1] == "response.completed"
    assert final.output_text == ANSWER


async def test_the_official_client_reads_structured_output(client: openai.AsyncOpenAI) -> None:
    """A JSON schema is answered with JSON of that schema."""

    class City(BaseModel):
        name: str
        people: int
        sights: list[str]
        twin: City | None

    parsed = await client.responses.parse(model="sim-gpt", input=PROMPT, text_format=City)
    assert parsed.output_parsed is not None
    assert parsed.output_parsed.name == ANSWER


@pytest.mark.parametrize("model", ["sim-gpt", "reasoning", "tools", "refusal", "error-flat"])
async def test_without_stream_the_response_is_whole(simulator: Simulator, model: str) -> None:
    """`stream: false` gives the response that would have ended the stream, OpenAI's to the letter."""
    seen = await respond(simulator, model, stream=False, tools=TOOLS)
    response = Response.model_validate(json.loads(seen.body), strict=True)
    strict(response)
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.output_tokens > 0
    assert response.output


async def test_what_was_asked_is_repeated(client: openai.AsyncOpenAI) -> None:
    """A response says by which settings it was made."""
    response = await client.responses.create(
        model="sim-gpt?tokens=1", input="x", instructions="Be brief.", temperature=0.5, metadata={"a": "b"}, store=False
    )
    assert (response.instructions, response.temperature, response.metadata) == ("Be brief.", 0.5, {"a": "b"})


def test_parameters_are_openais() -> None:
    """The parameters that are not refused are those that openai-python takes."""
    base = response_create_params.ResponseCreateParamsBase.__annotations__
    assert base.keys() | {"stream"} == PARAMETERS


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, "messages"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"n": 1}, "n"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": ["user"], "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": {}}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": None}]}, "input[0].content[0]"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "tools[0].name"),
        ({"tools": "x"}, "tools"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
        ({"background": True, "store": False}, "store"),
        ({"background": True, "model": "gzip"}, "background"),
        ({"model": "sim-gpt?nope=1"}, "model"),
        ({"model": "no-done"}, "model"),
        ({"model": None}, "model"),
    ],
)
async def test_what_openai_would_refuse_is_refused(simulator: Simulator, fields: dict[str, Any], param: str) -> None:
    """A body that is not one of this API is a 400 or 404 that names the field."""
    async with httpx.AsyncClient(base_url=simulator.url) as client:
        answer = await client.post("/responses", json={"model": "sim-gpt", "input": "x"} | fields)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param


async def test_a_model_of_responses_is_refused_to_chat(simulator: Simulator) -> None:
    """What only `/v1/responses` has is not played on the other endpoint."""
    assert (await ask(simulator, "error-flat")).status == 404


async def test_ordinary_responses_are_not_kept(client: openai.AsyncOpenAI) -> None:
    """A later GET is 404, whether the stream ended or not (R9)."""
    response = await client.responses.create(model="sim-gpt?tokens=1", input="x")
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.cancel(response.id)


async def test_responses_are_counted(simulator: Simulator) -> None:
    """The counters count responses as they count chat, and apart."""
    await respond(simulator, "sim-gpt?tokens=7")
    await respond(simulator, "cut-reset")
    await ask(simulator, "sim-gpt?tokens=1")
    stats = simulator.stats
    assert (stats.requests, stats.responses, stats.streams_started) == (3, 2, 3)
    assert (stats.streams_finished, stats.streams_cut, stats.live) == (2, 1, 0)
    assert stats.deltas == 8 + 5 + 2
