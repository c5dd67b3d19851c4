"""What assistant-ui's default transport sends besides the AI SDK's own fields, in OpenAI's words.

Its `AssistantChatTransport` puts the page's model context into each request: a system message, tools by name, settings
of the call, and which model the page has chosen. A page can also name a key and a base URL there; they are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from app.edge.bodies import ModelName, Penalty, Probability, Short, Temperature, TokensOrNoLimit, Tools

_PARAMETERS = {
    "maxTokens": "max_tokens",
    "temperature": "temperature",
    "topP": "top_p",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
    "seed": "seed",
}


class NamedTool(BaseModel):
    """A tool of the page's, whose name is its key among the tools."""

    model_config = ConfigDict(extra="ignore", strict=True)

    description: str | None = None
    parameters: dict[str, Any] | None = None


NamedTools = Annotated[dict[Short, NamedTool], Field(max_length=1024, fail_fast=True)]
# Told apart first, so that an error is about the form that the client meant.
AnyTools = Annotated[
    Annotated[Tools, Tag("[listed]")] | Annotated[NamedTools, Tag("[named]")],
    Discriminator(lambda tools: "[named]" if isinstance(tools, dict) else "[listed]"),
]


class CallSettings(BaseModel):
    """OpenAI's parameters in the AI SDK's spelling. Headers, which may be there too, are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    maxTokens: TokensOrNoLimit | None = None
    temperature: Temperature | None = None
    topP: Probability | None = None
    presencePenalty: Penalty | None = None
    frequencyPenalty: Penalty | None = None
    seed: int | None = None


class ModelConfig(BaseModel):
    """Which model the page has chosen. A key and a base URL, which may be there too, are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    modelName: ModelName | None = None
    reasoningEffort: Short | None = None


def openai_tools(tools: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return tools by name as OpenAI's list."""
    found = []
    for name, tool in tools.items():
        given = {field: tool[field] for field in ("description", "parameters") if tool.get(field) is not None}
        found.append({"type": "function", "function": {"name": name, **given}})
    return found


def openai_parameters(settings: CallSettings | None, config: ModelConfig | None) -> dict[str, Any]:
    """Return what the page has set, as OpenAI's parameters."""
    given = settings.model_dump(exclude_none=True) if settings else {}
    found = {name: given[theirs] for theirs, name in _PARAMETERS.items() if theirs in given}
    if config and config.reasoningEffort is not None:
        found["reasoning_effort"] = config.reasoningEffort
    return found
