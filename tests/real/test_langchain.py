"""LangChain's ChatOpenAI against `POST /v1/chat/completions`: nothing is set but its URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.real.processes import Server
from tests.waiting import wait_until

pytestmark = pytest.mark.real

TEXT = "Hello, 你好, สวัสดี, مرحبا 👩‍👩‍👧‍👦!\nA stream belongs to the server, not to a connection. "
QUICK = "rate=0&first=0"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather somewhere.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture
def chat(impatient: Server) -> Callable[..., ChatOpenAI]:
    def make(model: str, **options: Any) -> ChatOpenAI:
        given: dict[str, Any] = {"max_retries": 0, "stream_usage": True, **options}
        return ChatOpenAI(model=model, base_url=f"{impatient.url}/v1", api_key=SecretStr("none-asked-for"), **given)

    return make


def whole(chunks: Iterator[AIMessageChunk]) -> AIMessageChunk:
    """Return the sum of the chunks, as LangChain adds them up."""
    first, *rest = chunks
    return sum(rest, start=first)


@pytest.mark.parametrize("rate", ["0", "30"], ids=["quick", "with keep-alives"])
def test_stream(chat: Callable[..., ChatOpenAI], rate: str) -> None:
    """The chunks add up to the text, with its usage and finish reason."""
    answer = whole(chat(f"sim-echo?rate={rate}&first=0").stream(TEXT))
    assert answer.text == TEXT
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata is not None
    usage = answer.usage_metadata
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["output_tokens"] > 10


def test_invoke(chat: Callable[..., ChatOpenAI]) -> None:
    """Without streaming the answer is the same, to the token."""
    answer = chat(f"sim-echo?{QUICK}").invoke(TEXT)
    assert isinstance(answer, AIMessage)
    assert answer.text == TEXT
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata == whole(chat(f"sim-echo?{QUICK}").stream(TEXT)).usage_metadata


@pytest.mark.parametrize("streaming", [True, False])
def test_tools(chat: Callable[..., ChatOpenAI], streaming: bool) -> None:
    """A call that comes in pieces is one call, whose arguments are parsed."""
    model = chat(f"tools?{QUICK}").bind_tools([WEATHER])
    # LangChain declares the chunks as messages of any kind.
    answer = whole(cast(Iterator[AIMessageChunk], model.stream(TEXT))) if streaming else model.invoke(TEXT)
    assert [call["name"] for call in answer.tool_calls] == ["get_weather"]
    assert isinstance(answer.tool_calls[0]["args"]["city"], str)
    assert answer.tool_calls[0]["id"]
    assert answer.invalid_tool_calls == []
    assert answer.response_metadata["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(
    ("model", "error", "code"),
    [
        ("error-400", openai.BadRequestError, "invalid_value"),
        ("error-429?retry_after=60", openai.RateLimitError, "rate_limit_exceeded"),
        ("error-401", openai.InternalServerError, "upstream_auth"),
        ("error-500", openai.InternalServerError, "upstream_error"),
    ],
)
def test_errors_before_the_stream(
    chat: Callable[..., ChatOpenAI], model: str, error: type[openai.APIStatusError], code: str, streaming: bool
) -> None:
    """A refusal is the exception that OpenAI's SDK has for its status, with the upstream's code."""
    with pytest.raises(error) as raised:
        whole(chat(model).stream(TEXT)) if streaming else chat(model).invoke(TEXT)
    assert raised.value.code == code


def test_a_parameter_out_of_range(chat: Callable[..., ChatOpenAI], counted: Callable[[], dict[str, int]]) -> None:
    """Our own refusal names the parameter, and nothing is sent to the upstream."""
    with pytest.raises(openai.BadRequestError) as raised:
        chat("sim-echo", temperature=7).invoke(TEXT)
    assert raised.value.param == "temperature"
    assert counted()["requests"] == 0


@pytest.mark.parametrize("model", ["error-in-stream", "cut-before-finish"])
def test_an_error_in_the_stream(chat: Callable[..., ChatOpenAI], model: str) -> None:
    """An answer that breaks off raises, after what came of it; it never looks whole."""
    pieces: list[str] = []
    with pytest.raises(openai.APIError):
        pieces.extend(chunk.text for chunk in chat(f"{model}?after=3&rate=50&first=0").stream(TEXT))
    assert "".join(pieces)


def test_leaving(chat: Callable[..., ChatOpenAI], counted: Callable[[], dict[str, int]]) -> None:
    """Who stops reading hangs up, and the generation ends."""
    reading = chat("never-ends?rate=50&first=0").stream(TEXT)
    for _ in range(5):
        next(reading)
    assert counted()["live"] == 1
    cast(Any, reading).close()  # it is a generator, declared as an iterator
    wait_until(lambda: counted()["streams_aborted"] == 1)
