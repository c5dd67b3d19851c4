"""What a request asks for, in the words of neither API. What OpenAI would refuse is refused.

The Responses API knows its parameters and refuses all others, `messages` for one. So a relay that translates a chat
request into one of these, and leaves something behind, is told so here as it would be by OpenAI.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import orjson

from app.simulator.errors import Refused, require

ENDLESS = 1 << 62
# The deltas of what is held as a whole until it ends: a response, and a reply that is not streamed.
LONGEST = 50_000
# All that `responses.create` of openai-python takes.
PARAMETERS = frozenset(
    (
        *("access_programs", "background", "background_options", "context_management", "conversation", "image"),
        *("include", "input", "instructions", "max_output_tokens", "max_tool_calls", "metadata", "model"),
        *("moderation", "parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_key"),
        *("prompt_cache_options", "prompt_cache_retention", "reasoning", "safety_identifier", "service_tier", "store"),
        *("stream", "stream_options", "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p"),
        *("truncation", "user"),
    )
)
# The types of the parts that a message of each role may have.
_OF_USERS = ("input_text", "input_image", "input_file", "input_audio")
_PARTS = {
    "assistant": ("output_text", "refusal"),
    "developer": _OF_USERS,
    "system": _OF_USERS,
    "user": _OF_USERS,
}


@dataclass(slots=True)
class Request:
    """One request, understood."""

    model: str
    body: dict[str, Any]
    messages: list[dict[str, Any]]
    stream: bool
    limit: int  # tokens at most
    stops: list[str]
    tools: list[str]  # the functions' names
    answered: bool  # the last message is a tool's
    logprobs: int | None  # how many alternatives; None is no log probabilities at all
    schema: dict[str, Any] | None  # None is text, `{}` any JSON object, else a JSON schema

    @property
    def prompt(self) -> str:
        """The text of the last user message."""
        return next((text_of(each) for each in reversed(self.messages) if each.get("role") == "user"), "")


def text_of(message: dict[str, Any]) -> str:
    """Return the text of one message, whether a string or parts."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part["text"]) for part in content if isinstance(part, dict) and "text" in part)
    return content if isinstance(content, str) else ""


def chat_request(data: bytes) -> Request:
    """Understand a body of `/v1/chat/completions`. Raises Refused."""
    body = _object(data)
    messages: list[dict[str, Any]] = body.get("messages") or []
    require(_objects(messages) and messages, "messages", "'messages' must be a list of messages, not empty.")
    require(body.get("n") in (None, 1), "n", "The simulator gives one choice: 'n' must be 1.")
    stop = body.get("stop") or []
    stops = [stop] if isinstance(stop, str) else stop
    texts = isinstance(stops, list) and all(isinstance(each, str) for each in stops)
    require(texts, "stop", "'stop' must be a string or a list of strings.")
    alternatives = _integer(body, "top_logprobs", 0, 20) or 0
    wanted = body.get("logprobs")
    require(wanted or not alternatives, "top_logprobs", "'top_logprobs' needs 'logprobs' to be true.")
    functions = [tool.get("function") for tool in _tools(body)]
    limit = _integer(body, "max_completion_tokens", 1) or _integer(body, "max_tokens", 1)
    return Request(
        model=body["model"],
        body=body,
        messages=messages,
        stream=bool(body.get("stream")),
        limit=limit or ENDLESS,
        stops=stops,
        tools=[str(each["name"]) for each in functions if isinstance(each, dict) and "name" in each],
        answered=messages[-1].get("role") == "tool",
        logprobs=alternatives if wanted else None,
        schema=_schema(body.get("response_format"), "response_format"),
    )


def responses_request(data: bytes) -> Request:
    """Understand a body of `/v1/responses`. Raises Refused."""
    body = _object(data)
    unknown = sorted(body.keys() - PARAMETERS)
    if unknown:
        name = unknown[0][:100]
        raise Refused(400, f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)
    items = _items(body.get("input"))
    stored = body.get("store") is not False
    require(stored or not body.get("background"), "store", "Background mode requires store=true.")
    functions = [(at, tool) for at, tool in enumerate(_tools(body)) if tool.get("type") == "function"]
    for at, tool in functions:
        require(isinstance(tool.get("name"), str), f"tools[{at}].name", "A function needs a name.")
    alternatives = _integer(body, "top_logprobs", 0, 20) or 0
    include = body.get("include") or []
    text = body.get("text")
    return Request(
        model=body["model"],
        body=body,
        messages=items,
        stream=bool(body.get("stream")),
        limit=min(_integer(body, "max_output_tokens", 1) or LONGEST, LONGEST),
        stops=[],
        tools=[tool["name"] for _, tool in functions],
        answered=items[-1].get("type") == "function_call_output",
        logprobs=alternatives if isinstance(include, list) and "message.output_text.logprobs" in include else None,
        schema=_schema(text.get("format") if isinstance(text, dict) else None, "text.format"),
    )


def _object(data: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise Refused(400, "We could not parse the JSON body of your request.") from None
    model = body.get("model") if isinstance(body, dict) else None
    require(isinstance(model, str), "model", "You must provide a model parameter.")
    return dict(body)


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _tools(body: dict[str, Any]) -> list[dict[str, Any]]:
    tools: list[dict[str, Any]] = body.get("tools") or []
    require(_objects(tools), "tools", "'tools' must be a list of objects.")
    return tools


def _integer(body: dict[str, Any], name: str, least: int, most: float = math.inf) -> int | None:
    number: int | None = body.get(name)
    # JSON's `true` is an int to isinstance().
    valid = number is None or (type(number) is int and least <= number <= most)
    wanted = f"of {least} or more" if most == math.inf else f"from {least} to {most}"
    require(valid, name, f"'{name}' must be an integer {wanted}.")
    return number


def _schema(wanted: Any, name: str) -> dict[str, Any] | None:
    """Return the JSON schema that the answer format *wanted* asks for: None for text, `{}` for any object."""
    kind = wanted.get("type") if isinstance(wanted, dict) else ""
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        return {}
    # Chat has name and schema in an object of their own, Responses beside the type.
    given = wanted.get("json_schema") if kind == "json_schema" and name == "response_format" else wanted
    named = kind == "json_schema" and isinstance(given, dict) and isinstance(given.get("name"), str)
    require(named, name, f"'{name}' must be text, json_object, or json_schema with a name.")
    schema = given.get("schema")
    return schema if isinstance(schema, dict) else {}


def _items(given: Any) -> list[dict[str, Any]]:
    """Return the input of a response as a list of items."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    require(_objects(given) and given, "input", "'input' must be a text or a list of items, not empty.")
    items: list[dict[str, Any]] = given
    for at, item in enumerate(items):
        if "role" not in item and isinstance(item.get("type"), str) and item["type"] != "message":
            continue  # a call, its output, a reasoning item
        types = _PARTS.get(str(item.get("role")))
        require(types, f"input[{at}].role", f"Invalid value. Supported values are: {', '.join(_PARTS)}.")
        content = item.get("content")
        parts = [] if isinstance(content, str) else content if isinstance(content, list) else [None]
        for number, part in enumerate(parts):
            known = isinstance(part, dict) and part.get("type") in (types or ())
            where = f"input[{at}].content[{number}]"
            require(known, where, f"Invalid value. Supported types are: {', '.join(types or ())}.")
    return items
