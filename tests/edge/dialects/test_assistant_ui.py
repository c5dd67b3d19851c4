"""What assistant-ui's default transport sends, at the AI SDK's endpoint."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.typing import FilteringBoundLogger

from app.edge.bodies import Defaults
from app.edge.dialects.ai_sdk import parse_ui_chat
from app.errors import BadRequest
from app.events import Delta, Done
from app.request import ANYONE, StreamRequest
from tests.edge.service import serving

DEFAULTS = Defaults(model="m", chunk="auto", grace=10, max_grace=60)
HI = {"role": "user", "content": "hi"}
# The body of `AssistantChatTransport` of @assistant-ui/ai-sdk, on a page that sets nothing.
BODY: dict[str, Any] = {
    "tools": {},
    "id": "__LOCALID_abcdefghijkl",
    "messages": [{"id": "u", "role": "user", "parts": [{"type": "text", "text": "hi"}], "metadata": {"custom": {}}}],
    "trigger": "submit-message",
    "metadata": {"custom": {"nested": [1]}},
}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def parse(**fields: Any) -> StreamRequest:
    return asyncio.run(parse_ui_chat(BODY | fields, DEFAULTS, ANYONE)).stream


@pytest.mark.anyio
async def test_a_page_that_sets_nothing(log: FilteringBoundLogger) -> None:
    """Its request is answered, and nothing of the page's own goes to the upstream."""
    async with serving(log, (Delta("a"),), (Done("stop"),)) as (house, client):
        answer = await client.post("/v1/ai-sdk/chat", json=BODY)
    assert (answer.status_code, "text-delta" in answer.text) == (200, True)
    assert (house.asked[0].parameters, house.asked[0].messages) == ({}, (HI,))


def test_a_page_that_sets_everything() -> None:
    """The model context becomes OpenAI's request. A key, a base URL and headers in it count for nothing."""
    asked = parse(
        system="Be brief.",
        tools={
            "weather": {"description": "The weather.", "parameters": SCHEMA, "providerOptions": {"x": {}}},
            "time": {"parameters": {}},
        },
        callSettings={
            "maxTokens": 5,
            "temperature": 0.1,
            "topP": 0.2,
            "presencePenalty": 0.3,
            "frequencyPenalty": 0.4,
            "seed": 6,
            "headers": {"X-Other": "y"},
        },
        config={"modelName": "q", "reasoningEffort": "low", "apiKey": "sk-page", "baseUrl": "http://169.254.169.254"},
    )
    assert (asked.model, asked.messages) == ("q", ({"role": "system", "content": "Be brief."}, HI))
    assert asked.parameters == {
        "max_tokens": 5,
        "temperature": 0.1,
        "top_p": 0.2,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.4,
        "seed": 6,
        "reasoning_effort": "low",
        "tools": [
            {
                "type": "function",
                "function": {"name": "weather", "description": "The weather.", "parameters": SCHEMA},
            },
            {"type": "function", "function": {"name": "time", "parameters": {}}},
        ],
    }


def test_openais_spelling_wins() -> None:
    """What the transport's `body` says in OpenAI's words is meant."""
    asked = parse(
        model="n",
        temperature=1,
        config={"modelName": "q"},
        callSettings={"temperature": 0, "maxTokens": -1},
        tools=[{"type": "function", "function": {"name": "f"}}],
    )
    assert (asked.model, asked.parameters["temperature"]) == ("n", 1)
    assert asked.parameters.keys() == {"temperature", "tools"}


def test_nothing_set() -> None:
    """Null is nothing, and so is an empty list of tools, which OpenAI refuses."""
    assert parse(system=None, callSettings=None, config=None, tools=None) == parse(tools=[], system="")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tools": {"f": {"description": 1}}}, "tools.f.description"),
        ({"tools": {"f": 1}}, "tools.f"),
        ({"tools": [1]}, "tools[0]"),
        ({"tools": "f"}, "tools"),
        ({"system": 1}, "system"),
        ({"callSettings": {"topP": 2}}, "callSettings.topP"),
        ({"callSettings": []}, "callSettings"),
        ({"config": {"modelName": "a\n"}}, "config.modelName"),
        ({"metadata": "x"}, "metadata"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], field: str) -> None:
    """What is wrong is named as the page wrote it."""
    with pytest.raises(BadRequest) as raised:
        parse(**fields)
    assert raised.value.param == field
