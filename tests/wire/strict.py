"""OpenAI's own types, taken at their word: nothing missing, nothing coerced, and nothing that they do not have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

# What the dialect has beyond them, as it is documented.
EXTENSIONS = {
    "ChoiceDelta": {"reasoning_content"},
    "ChatCompletionMessage": {"reasoning_content"},
    "CompletionUsage": {"estimated"},
}


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
