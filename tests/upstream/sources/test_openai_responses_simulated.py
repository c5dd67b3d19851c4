"""The simulator's models over both of its APIs: the same answer, or the same error, comes of either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from app.errors import StreamError
from app.events import TEXT, Content, Logprobs, Reasoning, ToolCall
from app.request import StreamRequest
from app.simulator import Simulator
from app.upstream import Attempt, Source
from app.upstream.endpoint import Endpoint
from app.upstream.http.client import Client, create_client
from app.upstream.responses.background import Timing
from app.upstream.sources.openai_chat import OpenAIChat
from app.upstream.sources.openai_responses import OpenAIResponses
from tests.simulator.faults import MODELS
from tests.upstream.raw import answer
from tests.upstream.reading.quirks_bytes import merged

pytestmark = pytest.mark.anyio

# Those that end, soon, and alike twice.
BOTH = sorted(
    name
    for name, model in MODELS.items()
    if not model.only and not name.startswith(("flaky-", "slow-", "stall")) and name not in ("clock", "never-ends")
)
CUT = ("cut-before-finish", "cut-reset", "cut-clean-before-finish")


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[Client]:
    async with create_client(simulator.url, 5) as client:
        yield client


def request(model: str) -> StreamRequest:
    return StreamRequest(model, ({"role": "user", "content": "Tell me of the rain."},), {"logprobs": True})


def put_together(content: list[Content]) -> tuple[object, ...]:
    texts: dict[str, str] = {}
    tokens: list[object] = []
    for event in content:
        if isinstance(event, Logprobs):
            tokens += event.content
        elif isinstance(event, TEXT):
            name = "Reasoning" if isinstance(event, Reasoning) else type(event).__name__
            texts[name] = texts.get(name, "") + event.text
    calls = merged([event for event in content if isinstance(event, ToolCall)])
    return texts, len(tokens), [call[1:] for call in calls]  # ids are random


async def outcome(source: Source, model: str) -> tuple[object, ...]:
    """Return what comes of a request: content and finish reason, or the error."""
    try:
        async with asyncio.timeout(30):
            content, done = await answer(source, request(model))
    except StreamError as error:
        return type(error), error.text
    return *put_together(content), done.finish_reason, done.model


@pytest.mark.parametrize("model", BOTH)
async def test_either_api(simulator: Simulator, client: Client, model: str) -> None:
    """Text, reasoning, refusals, calls, how it ends and how it fails do not depend on the upstream's dialect."""
    endpoint = Endpoint(client, simulator.url, "key-of-ours")
    chat = OpenAIChat(endpoint, 1 << 20)
    responses = OpenAIResponses(endpoint, 1 << 20)
    asked = f"{model}?tokens=12&first=0"
    expected = await outcome(chat, asked)
    assert await outcome(responses, asked) == expected
    if MODELS[model].background and model not in CUT:
        background = OpenAIResponses(endpoint, 1 << 20, background=True)
        assert await outcome(background, asked) == expected


@pytest.mark.parametrize("model", CUT)
async def test_cuts_in_the_background(simulator: Simulator, client: Client, model: str) -> None:
    """Cut four times over, an answer in the background is the one that is not cut."""
    timing = Timing(resume_waits=(0.0, 0.001, 0.001))
    source = OpenAIResponses(Endpoint(client, simulator.url), 1 << 20, background=True, timing=timing)
    whole = await outcome(source, "sim-gpt?tokens=40")
    assert (await outcome(source, f"{model}?tokens=40&after=5&fail=4"))[:-1] == whole[:-1]


async def test_cancel(simulator: Simulator, client: Client) -> None:
    """An answer in the background that is left in the middle is cancelled before the source has ended."""
    source = OpenAIResponses(Endpoint(client, simulator.url), 1 << 20, background=True)
    async with aclosing(source.stream(request("never-ends?rate=500"), Attempt())) as batches:
        async for batch in batches:
            if batch:
                break
        assert (simulator.stats.background_live, simulator.stats.background_cancelled) == (1, 0)
    assert (simulator.stats.background_live, simulator.stats.background_cancelled) == (0, 1)
