"""The simulator's chat, by OpenAI's own types: every chunk to the letter, logprobs, JSON answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from app.simulator import Simulator
from app.simulator.text import ANSWERS, REFUSAL, choose
from tests.simulator.asking import PROMPT, Seen, ask
from tests.wire import strict

pytestmark = pytest.mark.anyio

ANSWER = ANSWERS[choose(PROMPT)]
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("one", "two")]
MODELS = ("sim-gpt", "sim-echo", "clock", "reasoning", "tools", "text-and-tools", "refusal", "content-filter", "bursts")


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=simulator.url, api_key="k", max_retries=0) as opened:
        yield opened


def weights(seen: Seen, field: str) -> list[dict[str, Any]]:
    """Return the log probabilities of *field*, each delta's checked against its text."""
    found: list[dict[str, Any]] = []
    for event in seen.events[:-1]:
        for choice in event["choices"]:
            if said := choice["delta"].get(field):
                assert [each["token"] for each in choice["logprobs"][field]] == [said]
                found += choice["logprobs"][field]
            else:
                assert choice["logprobs"] is None
    return found


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("usage", [True, False])
async def test_chunks_are_openais(simulator: Simulator, model: str, usage: bool) -> None:
    """Each chunk of a healthy stream is one of openai-python's, validated strictly."""
    fields: dict[str, Any] = {
        "stream_options": {"include_usage": usage},
        "tools": TOOLS,
        "logprobs": True,
        "top_logprobs": 3,
    }
    seen = await ask(simulator, f"{model}?tokens=30&seconds=0.01", **fields)
    *chunks, done = seen.events
    assert done == b"[DONE]"
    assert bool(strict.chunk(chunks[-1]).usage) is usage
    assert len([strict.chunk(chunk) for chunk in chunks]) > 5


@pytest.mark.parametrize("model", MODELS)
async def test_completions_are_openais(simulator: Simulator, model: str) -> None:
    """So is the answer that is no stream."""
    seen = await ask(simulator, f"{model}?tokens=30", stream=False, tools=TOOLS, logprobs=True, top_logprobs=3)
    assert strict.completion(json.loads(seen.body)).choices


async def test_logprobs_are_those_of_each_token(simulator: Simulator) -> None:
    """Each delta has its own token, its bytes and as many alternatives as were asked for."""
    found = weights(await ask(simulator, "sim-gpt", logprobs=True, top_logprobs=2), "content")
    assert bytes(byte for each in found for byte in each["bytes"]).decode() == ANSWER
    assert {len(each["top_logprobs"]) for each in found} == {2}
    assert all(each["logprob"] <= 0 for each in found)


async def test_a_refusal_has_logprobs_too(simulator: Simulator) -> None:
    """They are in `refusal`, and no alternatives are given where none were asked for."""
    found = weights(await ask(simulator, "refusal", logprobs=True), "refusal")
    assert "".join(each["token"] for each in found) == REFUSAL
    assert not any(each["top_logprobs"] for each in found)


async def test_a_whole_answer_has_the_streams_logprobs(simulator: Simulator) -> None:
    """With `stream: false` they are the same, in one list."""
    streamed = weights(await ask(simulator, "sim-gpt", logprobs=True, top_logprobs=1), "content")
    whole = json.loads((await ask(simulator, "sim-gpt", logprobs=True, top_logprobs=1, stream=False)).body)
    assert whole["choices"][0]["logprobs"] == {"content": streamed, "refusal": None}


@pytest.mark.parametrize(
    "kind", [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}]
)
@pytest.mark.parametrize("stream", [True, False])
async def test_json_is_answered_where_asked_for(simulator: Simulator, kind: dict[str, Any], stream: bool) -> None:
    """JSON mode gives an object with the answer in it, in deltas as any text."""
    seen = await ask(simulator, "sim-gpt", response_format=kind, stream=stream)
    if stream:
        said = "".join(delta.get("content", "") for delta in seen.deltas)
    else:
        said = json.loads(seen.body)["choices"][0]["message"]["content"]
    assert json.loads(said) == {"answer": ANSWER}


async def test_the_official_client_parses_what_it_asked_for(client: openai.AsyncOpenAI) -> None:
    """Objects, lists, enums, unions and a type that refers to itself are kept to."""

    class Node(BaseModel):
        kind: Literal["root", "leaf"]
        weight: float
        labels: list[str]
        children: list[Node]
        parent: Node | None

    answer = await client.chat.completions.parse(
        model="sim-gpt", messages=[{"role": "user", "content": PROMPT}], response_format=Node
    )
    parsed = answer.choices[0].message.parsed
    assert parsed is not None
    assert (parsed.kind, parsed.labels) == ("root", [ANSWER])
    assert parsed.children
    assert parsed.parent is not None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": 1}, "response_format"),
        ({"tools": [1]}, "tools"),
    ],
)
async def test_wrong_fields_are_refused(simulator: Simulator, fields: dict[str, Any], param: str) -> None:
    """What OpenAI would refuse is a 400 that names the field."""
    seen = await ask(simulator, "sim-gpt", **fields)
    assert (seen.status, json.loads(seen.body)["error"]["param"]) == (400, param)
