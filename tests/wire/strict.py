"""OpenAI's own types, taken at their word: nothing missing, nothing coerced, and nothing that they do not have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, Field, TypeAdapter

# What the dialect has beyond them, as it is documented.
EXTENSIONS = {
    "ChoiceDelta": {"reasoning_content"},
    "ChatCompletionMessage": {"reasoning_content"},
    "CompletionUsage": {"estimated"},
    "ResponseUsage": {"estimated"},
    "ResponseError": {"service_code"},
    "ResponseCustomToolCall": {"status"},  # the AI SDK requires it
    "Model": {"description"},  # for people who choose one; upstreams such as OpenRouter send it
    "Logprob": {"bytes"},  # of a delta, as in the part that has the whole text
    "Response": {"frequency_penalty", "presence_penalty", "store"},  # OpenAI's specification has them
}
_EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(Annotated[ResponseStreamEvent, Field(discriminator="type")])


def chunk(data: Any) -> ChatCompletionChunk:
    """Return a chunk that is one to the letter."""
    checked = ChatCompletionChunk.model_validate(data, strict=True)
    _check(checked)
    return checked


def completion(data: Any) -> ChatCompletion:
    """Return a completion that is one to the letter."""
    checked = ChatCompletion.model_validate(data, strict=True)
    _check(checked)
    return checked


def response(data: Any) -> Response:
    """Return a response that is one to the letter."""
    checked = Response.model_validate(data, strict=True)
    _check(checked)
    return checked


def response_event(data: Any) -> Any:
    """Return an event of a response that is one to the letter."""
    checked = _EVENT.validate_python(data, strict=True)
    _check(checked)
    return checked


def model(data: Any) -> Model:
    """Return a model that is one to the letter."""
    checked = Model.model_validate(data, strict=True)
    _check(checked)
    return checked


def _check(whole: BaseModel) -> None:
    for part in _models(whole):
        name = type(part).__name__
        extra = set(part.model_extra or {}) - EXTENSIONS.get(name, set())
        assert not extra, f"{name} has no {extra}"


def _models(value: Any) -> Iterator[BaseModel]:
    if isinstance(value, BaseModel):
        yield value
        value = dict(value)
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _models(item)
