"""What is answered: the text, how much of it, and how it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.simulator import Simulator
from app.simulator.text import ANSWERS, choose
from tests.simulator.asking import chunks_of, question, text_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=simulator.url, timeout=10) as opened:
        yield opened


async def test_a_stream_has_a_role_deltas_a_finish_usage_and_done(client: httpx.AsyncClient) -> None:
    """A stream has OpenAI's shape, and its deltas are the answer."""
    chunks = await chunks_of(client, question("sim-gpt", stream_options={"include_usage": True}))
    role, *deltas, finish, usage = chunks
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert text_of(chunks) == ANSWERS[choose("Hello")]
    assert finish["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == len(deltas)
    assert {(chunk["id"], chunk["model"], chunk["object"]) for chunk in chunks} == {
        (role["id"], "sim-gpt", "chat.completion.chunk")
    }


async def test_usage_comes_only_to_those_who_ask(client: httpx.AsyncClient) -> None:
    """Without stream_options no chunk speaks of usage."""
    assert not any("usage" in chunk for chunk in await chunks_of(client, question("sim-gpt?tokens=2")))


async def test_without_stream_the_answer_is_whole(client: httpx.AsyncClient) -> None:
    """`stream: false` gives a chat.completion with the same text."""
    body = question("sim-gpt") | {"stream": False}
    answer = (await client.post("/chat/completions", json=body)).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"] == ANSWERS[choose("Hello")]


@pytest.mark.parametrize(
    "content", ["Ein Wort — 漢字 👨‍👩‍👧\n\n ok", [{"type": "text", "text": "in parts"}], "", "x" * 100_000]
)
async def test_echo_says_what_was_said(client: httpx.AsyncClient, content: Any) -> None:
    """`sim-echo` answers with the last user message."""
    said = content if isinstance(content, str) else "in parts"
    assert text_of(await chunks_of(client, question("sim-echo", content))) == said


async def test_the_prompts_script_chooses_the_answer(client: httpx.AsyncClient) -> None:
    """A prompt in Thai is answered in Thai, each time in the same words."""
    texts = {text_of(await chunks_of(client, question("sim-gpt", "สวัสดี"))) for _ in range(2)}
    assert texts == {ANSWERS["thai"]}


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("model", ["sim-gpt", "never-ends"])
async def test_a_limit_ends_with_length(client: httpx.AsyncClient, field: str, model: str) -> None:
    """max_tokens counts deltas, even those of a model that never ends."""
    chunks = await chunks_of(client, question(model, **{field: 3}))
    assert len(chunks) == 5
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


async def test_stop_ends_before_the_stop_text(client: httpx.AsyncClient) -> None:
    """The answer ends before the first stop sequence, with finish_reason stop."""
    chunks = await chunks_of(client, question("sim-echo", "one two three four", stop=["four", " three"]))
    assert text_of(chunks) == "one two"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
