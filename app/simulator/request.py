"""What a request asks of the simulator, in the words of neither API; what OpenAI would refuse is refused.

The Responses API knows its parameters and refuses others, `messages` for one: so whoever translates a chat request
into one of these, and leaves something behind, is told so here as he would be by OpenAI.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from app.simulator.refusals import Refused

# A response holds its whole text until its end, so it has one; OpenAI's models do, too.
MOST_TOKENS = 1_000_000
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
_PARTS = {
    "assistant": frozenset(("output_text", "refusal")),
    "other": frozenset(("input_text", "input_image", "input_file", "input_audio")),
}
_ROLES = frozenset(("user", "assistant", "system", "developer"))


@dataclass(slots=True)
class Asked:
    """One request, understood. *limit*: tokens at most; *logprobs*: how many alternatives, None for none at all."""

    model: str
    body: dict[str, Any]
    messages: list[Any]
    stream: bool
    limit: int | None
    stops: list[str]
    tools: list[str]  # the functions' names
    answered: bool  # the last word is a tool's
    logprobs: int | None
    format: Any  # None is text, `{}` any JSON object, else a JSON schema

    @property
    def prompt(self) -> str:
        """The text of the last user message."""
        for message in reversed(self.messages):
            if isinstance(message, dict) and message.get("role") == "user":
                return text_of(message)
        return ""


def text_of(message: Any) -> str:
    """Return the text of one message, whether a string or parts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        return "".join(str(part["text"]) for part in content if isinstance(part, dict) and "text" in part)
    return content if isinstance(content, str) else ""


def chat_request(body: bytes) -> Asked:
    """Understand a body of `/v1/chat/completions`. Raises Refused, as OpenAI would."""
    request = _object(body)
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise Refused(400, "'messages' must be a list of messages, not empty.", param="messages")
    if request.get("n") not in (None, 1):
        raise Refused(400, "The simulator gives one choice: 'n' must be 1.", param="n")
    limits = [_limit(request, name) for name in ("max_completion_tokens", "max_tokens")]
    stop = request.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(each, str) for each in stops):
        raise Refused(400, "'stop' must be a string or a list of strings.", param="stop")
    top = _alternatives(request)
    if top and not request.get("logprobs"):
        raise Refused(400, "'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs")
    tools = [tool.get("function") for tool in _objects(request, "tools")]
    wanted = request.get("response_format")
    return Asked(
        model=request["model"],
        body=request,
        messages=messages,
        stream=bool(request.get("stream")),
        limit=next((limit for limit in limits if limit is not None), None),
        stops=stops,
        tools=[str(tool["name"]) for tool in tools if isinstance(tool, dict) and "name" in tool],
        answered=messages[-1].get("role") == "tool",
        logprobs=top if request.get("logprobs") else None,
        format=_format(wanted, "response_format", nested=True),
    )


def responses_request(body: bytes) -> Asked:
    """Understand a body of `/v1/responses`. Raises Refused, as OpenAI would."""
    request = _object(body)
    if unknown := sorted(request.keys() - PARAMETERS):
        name = unknown[0][:100]
        raise Refused(400, f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)
    items = _items(request.get("input"))
    if request.get("background") and request.get("store") is False:
        raise Refused(400, "Background mode requires store=true.", param="store")
    include = request.get("include") or []
    text = request.get("text")
    top = _alternatives(request)
    names: list[str] = []
    for at, tool in enumerate(_objects(request, "tools")):
        if tool.get("type") == "function":
            if not isinstance(tool.get("name"), str):
                name = f"tools[{at}].name"
                raise Refused(
                    400, f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name
                )
            names.append(tool["name"])
    limit = _limit(request, "max_output_tokens")
    return Asked(
        model=request["model"],
        body=request,
        messages=items,
        stream=bool(request.get("stream")),
        limit=min(limit or MOST_TOKENS, MOST_TOKENS),
        stops=[],
        tools=names,
        answered=items[-1].get("type") == "function_call_output",
        logprobs=top if isinstance(include, list) and "message.output_text.logprobs" in include else None,
        format=_format(text.get("format") if isinstance(text, dict) else None, "text.format", nested=False),
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refused(400, "We could not parse the JSON body of your request.") from None
    if not isinstance(request, dict) or not isinstance(request.get("model"), str):
        raise Refused(400, "You must provide a model parameter.", param="model")
    return request


def _objects(request: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the list of objects *name*, empty if there is none."""
    value = request.get(name) or []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise Refused(400, f"'{name}' must be a list of objects.", param=name)
    return value


def _limit(request: dict[str, Any], name: str) -> int | None:
    limit = request.get(name)
    if limit is None:
        return None
    if type(limit) is not int or limit < 1:
        raise Refused(400, f"'{name}' must be an integer of at least 1.", param=name)
    return limit


def _alternatives(request: dict[str, Any]) -> int:
    top = request.get("top_logprobs")
    if top is not None and (type(top) is not int or not 0 <= top <= 20):
        raise Refused(400, "'top_logprobs' must be an integer from 0 to 20.", param="top_logprobs")
    return top or 0


def _format(wanted: Any, name: str, *, nested: bool) -> Any:
    """Return the JSON schema that *wanted* asks for: None for text, `{}` for any object."""
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else ""
    if kind == "text":
        return None
    if kind == "json_object":
        return {}
    holder = wanted.get("json_schema") if kind and nested else wanted
    if kind != "json_schema" or not isinstance(holder, dict) or not isinstance(holder.get("name"), str):
        raise Refused(400, f"'{name}' must be text, json_object, or json_schema with a name.", param=name)
    schema = holder.get("schema")
    return schema if isinstance(schema, dict) else {}


def _items(given: Any) -> list[dict[str, Any]]:
    """Return the input of a response as a list of items."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given or not all(isinstance(each, dict) for each in given):
        raise Refused(400, "'input' must be a text or a list of items, not empty.", param="input")
    for at, item in enumerate(given):
        if "role" not in item and isinstance(item.get("type"), str) and item["type"] != "message":
            continue  # a call, its output, a reasoning item
        role = item.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            where = f"input[{at}].role"
            raise Refused(400, f"Invalid value. Supported values are: {', '.join(sorted(_ROLES))}.", param=where)
        content = item.get("content")
        allowed = _PARTS["assistant" if role == "assistant" else "other"]
        if isinstance(content, str):
            continue
        parts = content if isinstance(content, list) else [None]
        for part, each in enumerate(parts):
            if not isinstance(each, dict) or str(each.get("type")) not in allowed:
                where = f"input[{at}].content[{part}]"
                raise Refused(400, f"Invalid value. Supported types are: {', '.join(sorted(allowed))}.", param=where)
    return given
