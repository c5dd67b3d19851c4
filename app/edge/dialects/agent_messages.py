"""AG-UI's messages, tools and context → OpenAI's messages and tools.

What an answer had in an encrypted value goes back into the fields of the message or the call that it came from:
`app.wire.ag_ui` put it there, and some providers refuse a turn without it. The reasoning goes back for the same reason,
in the assistant's message that it is beside. Messages of activities are for the page, not for the model: they are
dropped, and so are calls that are left of an answer that broke off.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from app.edge.bodies import Short
from app.edge.dialects.openai_messages import (
    DATA_URL,
    LEFT_OUT,
    document_part,
    image_part,
    reasoning_field,
    sound_part,
    string_of,
    wrong,
)
from app.errors import BadRequest
from app.wire import ag_ui
from app.wire.calls import runnable
from app.wire.opaque import unseal
from app.wire.transcript import Call


class AgentFunction(BaseModel):
    """The function of a call."""

    model_config = ConfigDict(extra="ignore", strict=True)

    name: str
    arguments: str


class AgentToolCall(BaseModel):
    """A call of a tool. Its arguments are JSON in a string."""

    model_config = ConfigDict(extra="ignore", strict=True)

    id: str
    function: AgentFunction
    encryptedValue: str | None = None


class AgentMessage(BaseModel):
    """A message as an agent's client keeps it. Its id, its metadata and any other field are the client's own."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["developer", "system", "assistant", "user", "tool", "activity", "reasoning"]
    toolCalls: Annotated[list[AgentToolCall], Field(fail_fast=True)] | None = None
    toolCallId: str | None = None
    encryptedValue: str | None = None
    error: str | None = None


class AgentTool(BaseModel):
    """A tool of the client's. Its parameters are a JSON Schema."""

    model_config = ConfigDict(extra="ignore", strict=True)

    name: Short
    description: str | None = None
    parameters: dict[str, Any] | None = None


class AgentContext(BaseModel):
    """Something that the model is to know."""

    model_config = ConfigDict(extra="ignore", strict=True)

    description: str
    value: str


def to_messages(messages: Sequence[Mapping[str, Any]], context: Sequence[AgentContext]) -> list[dict[str, Any]]:
    """Return what *messages*, each of which is a valid `AgentMessage`, and the *context* say to the model.

    The context is a system message before the others. Raises BadRequest, which names the field that cannot be said.
    """
    found: list[dict[str, Any]] = []
    thoughts: list[Mapping[str, Any]] = []  # of the assistant, beside whose message they stand
    left_over = _left_over(messages)
    for at, message in enumerate(messages):
        where = f"messages[{at}]"
        match message["role"]:
            case "reasoning":
                thoughts.append(message)
                continue
            case "activity":
                continue
            case "assistant":
                found += _assistant(message, where, thoughts, left_over.get(at, frozenset()))
                thoughts = []
                continue
            case "user":
                said: dict[str, Any] = {"role": "user", "content": _content(message, where)}
            case "tool":
                said = _output(message, where)
            case role:
                said = {"role": role, "content": string_of(message, "content", where)}
        _add_to_last(found, thoughts)
        thoughts = []
        found.append(said | _name(message))
    _add_to_last(found, thoughts)
    if not found:
        raise BadRequest("'messages' has nothing in it that is for the model.", param="messages")
    if context:
        found.insert(
            0, {"role": "system", "content": "\n\n".join(f"{one.description}:\n{one.value}" for one in context)}
        )
    return found


def sealed_in(messages: Iterable[AgentMessage]) -> Iterator[str | None]:
    """Yield the encrypted values of the messages and of their calls."""
    for message in messages:
        yield message.encryptedValue
        for call in message.toolCalls or ():
            yield call.encryptedValue


def to_tool(tool: AgentTool) -> dict[str, Any]:
    """Return a tool in OpenAI's form."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}


def _reasoning(thoughts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields of the assistant's message that messages of reasoning are."""
    texts: dict[str, list[str]] = {}
    fields: dict[str, Any] = {}
    for message in thoughts:
        metadata = message.get("metadata")
        own = metadata.get(ag_ui.OWN) if isinstance(metadata, dict) else None
        field = reasoning_field(own.get(ag_ui.REASONING_FIELD) if isinstance(own, dict) else None)
        said = message.get("content")
        if said and isinstance(said, str):
            texts.setdefault(field, []).append(said)
        fields |= _fields(message)
    return {**{field: "".join(pieces) for field, pieces in texts.items()}, **fields}


def _fields(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that the upstream wants back."""
    fields = unseal(message.get("encryptedValue")) or {}
    return {name: value for name, value in fields.items() if name not in LEFT_OUT}


def _add_to_last(found: Sequence[dict[str, Any]], thoughts: Iterable[Mapping[str, Any]]) -> None:
    """Add what the assistant thought after its last message to that."""
    if found and found[-1]["role"] == "assistant":
        found[-1].update({name: value for name, value in _reasoning(thoughts).items() if name not in found[-1]})


def _left_over(messages: Sequence[Mapping[str, Any]]) -> dict[int, set[int]]:
    """Return the places of the calls that are left of an answer that broke off, by the place of their message.

    A call without an output is one if the user has superseded it, or if its arguments are not whole. Upstreams refuse a
    call that no output follows.
    """
    found: dict[int, set[int]] = {}
    answered: set[Any] = set()
    superseded = False
    for at in reversed(range(len(messages))):
        message = messages[at]
        calls = message.get("toolCalls") or ()
        if message["role"] == "user":
            superseded = True
        elif message["role"] == "tool":
            answered.add(message.get("toolCallId"))
        elif message["role"] == "assistant" and calls:
            waiting = ((j, call) for j, call in enumerate(calls) if call["id"] not in answered)
            found[at] = {j for j, call in waiting if superseded or not _is_whole(call)}
            answered = set()  # some upstreams give the calls of each answer the same ids
    return found


def _is_whole(call: Mapping[str, Any]) -> bool:
    """Whether the arguments of a call have come to their end, as far as they tell."""
    return runnable(Call(0, pieces=[call["function"]["arguments"]]), "unknown") is not None


def _assistant(
    message: Mapping[str, Any], where: str, thoughts: Iterable[Mapping[str, Any]], left_over: Container[int]
) -> list[dict[str, Any]]:
    """Return the assistant's message; none, if it has nothing in it but calls that are *left_over*."""
    content = message.get("content")
    said = None if content is None else string_of(message, "content", where)
    given = message.get("toolCalls") or ()
    calls = [_call(call) for at, call in enumerate(given) if at not in left_over]
    more = {"tool_calls": calls} if calls else {}
    own = {**_reasoning(thoughts), **_fields(message)}
    if given and not (said or calls or "images" in own or "audio" in own):
        return []
    return [{"role": "assistant", "content": said or None, **_name(message), **own, **more}]


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call in OpenAI's form, with the fields that the upstream had given it."""
    own = unseal(call.get("encryptedValue")) or {}
    kind = "custom" if own.pop(ag_ui.CALL_TYPE, None) == "custom" else "function"
    inner = own.pop(kind, None)
    function = call["function"]
    arguments = "input" if kind == "custom" else "arguments"
    called = {"name": function["name"], arguments: function["arguments"]}
    return {**own, "id": call["id"], "type": kind, kind: {**(inner if isinstance(inner, dict) else {}), **called}}


def _output(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    content = _content(message, where)
    if not content and message.get("error"):
        content = orjson.dumps({"error": message["error"]}).decode()
    return {"role": "tool", "tool_call_id": string_of(message, "toolCallId", where), "content": content}


def _content(message: Mapping[str, Any], where: str) -> str | list[dict[str, Any]]:
    content = message.get("content")
    if isinstance(content, list):
        return [_part(part, f"{where}.content[{j}]") for j, part in enumerate(content)]
    return string_of(message, "content", where)


def _part(part: Any, where: str) -> dict[str, Any]:
    """Return a part of a content as OpenAI takes it: images by any URL, sounds and documents as data."""
    if not isinstance(part, dict):
        raise wrong(where, "has to be an object")
    kind = part.get("type")
    if kind == "text":
        return {"type": "text", "text": string_of(part, "text", where)}
    if kind not in ("image", "audio", "document"):
        raise wrong(f"{where}.type", "is not a part that OpenAI's API takes")
    url, media_type = _url(part.get("source"), f"{where}.source")
    if kind == "image":
        return image_part(url)
    data = DATA_URL.match(url)
    if data is None:
        raise wrong(f"{where}.source", "is not data in base64, and OpenAI's API takes other sources of images only")
    media_type = media_type or data[1].lower()
    if kind == "document":
        name = f"{where.rpartition('[')[2].removesuffix(']')}.{media_type.rpartition('/')[2]}"
        return document_part(url, f"part-{name}")
    return sound_part(url[data.end() :], media_type, f"{where}.source.mimeType")


def _url(source: Any, where: str) -> tuple[str, str]:
    """Return the URL, which may be a data URL, and the media type of a part's source."""
    if not isinstance(source, dict):
        raise wrong(where, "has to be an object")
    value = string_of(source, "value", where)
    media_type = source.get("mimeType")
    media_type = media_type.lower() if isinstance(media_type, str) else ""
    match source.get("type"):
        case "data":
            return f"data:{string_of(source, 'mimeType', where)};base64,{value}", media_type
        case "url" if value.startswith(("https://", "http://")) or DATA_URL.match(value):
            return value, media_type
        case "url":
            raise wrong(f"{where}.value", "is neither an http(s) URL nor a data URL in base64")
        case _:
            raise wrong(f"{where}.type", "is not a source that this service knows")


def _name(message: Mapping[str, Any]) -> dict[str, Any]:
    name = message.get("name")
    return {"name": name} if isinstance(name, str) and name else {}
