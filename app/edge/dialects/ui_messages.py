"""The AI SDK's `UIMessage[]` → OpenAI's messages, as the SDK's own `convertToModelMessages` and OpenAI provider do it.

What this service's answer had in a part's `providerMetadata`, or in a part `data-extra`, goes back into the fields of
the message or the call that it came from: `app.wire.ai_sdk` put it there, and some providers refuse a turn without it.
The reasoning goes back for the same reason.

Sources, data parts, metadata, and files of an assistant that did not come from an answer are for the page, not for the
model: they are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from app.edge.dialects.openai_messages import (
    DATA_URL,
    LEFT_OUT,
    add_fields,
    document_part,
    image_part,
    reasoning_field,
    sound_part,
    string_of,
    wrong,
)
from app.wire import ai_sdk

_DROPPED = ("reasoning", "reasoning-file", "custom", "step-start")  # of a user, who says none of them
_DROPPED_PREFIXES = ("data-", "source-")
_DENIED = "Tool call execution denied."  # what the SDK tells the model
_UNANSWERED = ("input-available", "approval-requested", "approval-responded")


class UIPart(BaseModel):
    """A part of a message. What else is in it depends on its type."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str


class UIMessage(BaseModel):
    """A message as a page keeps it. Its id, its metadata and any other field are the page's own."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["system", "user", "assistant"]
    parts: Annotated[list[UIPart], Field(fail_fast=True)]


def to_openai(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what *messages*, each of which is a valid `UIMessage`, say to the model.

    Raises BadRequest, which names the part that cannot be said.
    """
    last_user = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=-1)
    found: list[dict[str, Any]] = []
    for at, message in enumerate(messages):
        parts = message["parts"]
        where = f"messages[{at}].parts"
        match message["role"]:
            case "system":
                said = ((part, _at(where, j)) for j, part in enumerate(parts) if part["type"] == "text")
                texts = [string_of(part, "text", place) for part, place in said]
                found.append({"role": "system", "content": "".join(texts)})
            case "user":
                found.append(_user(parts, where))
            case _:
                found.extend(_assistant(parts, where, superseded=at < last_user))
    if not found:
        raise wrong("messages", "has nothing in it that is for the model")
    return found


def _user(parts: Sequence[Mapping[str, Any]], where: str) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    for j, part in enumerate(parts):
        match part["type"]:
            case "text":
                content.append({"type": "text", "text": string_of(part, "text", _at(where, j))})
            case "file":
                content.append(_file(part, _at(where, j), j))
            case kind if not _is_dropped(kind):
                raise wrong(f"{_at(where, j)}.type", "is not a part of a user's message that this service knows")
    if not content:
        raise wrong(where, "has nothing in it that is for the model")
    alone = len(content) == 1 and content[0]["type"] == "text"
    return {"role": "user", "content": content[0]["text"] if alone else content}


def _assistant(parts: Sequence[Mapping[str, Any]], where: str, *, superseded: bool) -> list[dict[str, Any]]:
    """Return a message for each step, each followed by the outputs of the tools that it called.

    A call without an output is left out if the user has *superseded* it, and is wrong otherwise. A call whose arguments
    are not whole is left out, and so is a step in which nothing remains: they are left of an answer that broke off.
    """
    found: list[dict[str, Any]] = []
    step = _Step()
    for j, part in enumerate(parts):
        place = _at(where, j)
        match part["type"]:
            case "step-start":
                found += step.messages()
                step = _Step()
            case "steering-message":  # the user's, sent between two steps
                found += (*step.messages(), _user(_parts(part, place), f"{place}.parts"))
                step = _Step()
            case "text":
                step.text(string_of(part, "text", place))
            case "reasoning":
                step.reasoning(part)
            case "file":
                step.file(part)
            case ai_sdk.EXTRA_PART:
                step.add(part.get("data"))
            case kind if kind == "dynamic-tool" or kind.startswith("tool-"):
                output = _output(part, place)
                if output is not None:
                    name = string_of(part, "toolName", place) if kind == "dynamic-tool" else kind.removeprefix("tool-")
                    step.call(_call(part, string_of(part, "toolCallId", place), name), output)
                elif part["state"] in _UNANSWERED and not superseded:
                    raise wrong(f"{place}.state", "has to be one with an output: the model waits for that")
            case kind if not _is_dropped(kind):
                raise wrong(f"{place}.type", "is not a part of an assistant's message that this service knows")
    return [*found, *step.messages()]


class _Step:
    """What an assistant said with one answer, and the outputs of the tools that it called."""

    def __init__(self) -> None:
        self._content: list[dict[str, Any]] = []
        self._reasoning: dict[str, list[str]] = {}
        self._fields: dict[str, Any] = {}
        self._calls: list[dict[str, Any]] = []
        self._outputs: list[dict[str, Any]] = []

    def text(self, text: str) -> None:
        self._content.append({"type": "text", "text": text})

    def reasoning(self, part: Mapping[str, Any]) -> None:
        own = _own(part.get("providerMetadata"))
        field = reasoning_field(own.pop(ai_sdk.REASONING_FIELD, None))
        text = part.get("text")
        if text and isinstance(text, str):
            self._reasoning.setdefault(field, []).append(text)
        self.add(own)

    def file(self, part: Mapping[str, Any]) -> None:
        own = _own(part.get("providerMetadata"))
        url = part.get("url")
        image = image_part(url if isinstance(url, str) else "")
        match own.get(ai_sdk.MEDIA_FIELD):
            case "images":
                self.add({"images": [image]})
            case "content":
                self._content.append(image)
            case "audio" if own.get("id"):
                self.add({"audio": {"id": own["id"]}})

    def add(self, fields: Any) -> None:
        """Add fields of the message, if these are such."""
        given = fields if isinstance(fields, dict) else {}
        add_fields(self._fields, {name: value for name, value in given.items() if name not in LEFT_OUT})

    def call(self, call: Mapping[str, Any], output: str) -> None:
        self._calls.append(dict(call))
        self._outputs.append({"role": "tool", "tool_call_id": call["id"], "content": output})

    def messages(self) -> list[dict[str, Any]]:
        text = "".join([part.get("text", "") for part in self._content])
        alone = all(part["type"] == "text" for part in self._content)
        content = (text or None) if alone else self._content
        if not (content or self._calls or "images" in self._fields or "audio" in self._fields):
            return []
        calls = {"tool_calls": self._calls} if self._calls else {}
        reasoning = {field: "".join(texts) for field, texts in self._reasoning.items()}
        message = {"role": "assistant", "content": content, **reasoning, **self._fields, **calls}
        return [message, *self._outputs]


def _call(part: Mapping[str, Any], call_id: str, name: str) -> dict[str, Any]:
    """Return a call in OpenAI's form, with the fields that the upstream had given it."""
    metadata = part.get("callProviderMetadata") or part.get("resultProviderMetadata")  # as the SDK does after an error
    own = _own(metadata)
    kind = "custom" if own.pop("type", None) == "custom" else "function"
    inner = own.pop(kind, None)
    given = part.get("input")
    if kind == "custom":
        arguments = {"input": given if isinstance(given, str) else ""}
    else:
        arguments = {"arguments": _arguments(part)}
    called = {**(inner if isinstance(inner, dict) else {}), "name": name, **arguments}
    return {**own, "id": call_id, "type": kind, kind: called}


def _own(metadata: Any) -> dict[str, Any]:
    """Return what this service put into a part's metadata."""
    own = metadata.get(ai_sdk.PROVIDER) if isinstance(metadata, dict) else None
    return dict(own) if isinstance(own, dict) else {}


def _output(part: Mapping[str, Any], where: str) -> str | None:
    """Return what the model is told that a tool said, or None if the tool has not said anything."""
    approval = part.get("approval")
    approval = approval if isinstance(approval, dict) else {}
    match string_of(part, "state", where):
        case "output-available":
            output = part.get("output")
            return output if isinstance(output, str) else _json(output)
        case "output-error":
            return _json({"error": string_of(part, "errorText", where)})
        case "output-denied":
            return _json({"error": approval.get("reason") or _DENIED})
        case "approval-responded" if approval.get("approved") is False:
            return str(approval.get("reason") or _DENIED)
        case state if state == "input-streaming" or state in _UNANSWERED:
            return None
        case _:
            raise wrong(f"{where}.state", "is not a state of a tool that this service knows")


def _file(part: Mapping[str, Any], where: str, number: int) -> dict[str, Any]:
    """Return a file as OpenAI takes it: images by any URL, sound and documents as data."""
    media_type = string_of(part, "mediaType", where).lower()
    url = string_of(part, "url", where)
    kind, _, subtype = media_type.partition("/")
    data = DATA_URL.match(url)
    if kind == "image":
        if data is None and not url.startswith(("https://", "http://")):
            raise wrong(f"{where}.url", "is neither an http(s) URL nor a data URL in base64")
        return image_part(url)
    if kind == "video":
        raise wrong(f"{where}.mediaType", "is none that OpenAI's API takes")
    if data is None:
        raise wrong(f"{where}.url", "is not a data URL in base64, and OpenAI's API takes other URLs of images only")
    if kind == "audio":
        return sound_part(url[data.end() :], media_type, f"{where}.mediaType")
    name = string_of(part, "filename", where) if part.get("filename") is not None else f"part-{number}.{subtype}"
    return document_part(url, name)


def _is_dropped(kind: str) -> bool:
    return kind in _DROPPED or kind.startswith(_DROPPED_PREFIXES)


def _parts(part: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Return the parts within a part, which pydantic has not checked."""
    parts = part.get("parts")
    if isinstance(parts, list) and all(isinstance(one, dict) and isinstance(one.get("type"), str) for one in parts):
        return parts
    raise wrong(f"{where}.parts", "has to be a list of parts, each with a type")


def _arguments(part: Mapping[str, Any]) -> str:
    """Return the arguments of a call. The model wrote none if they are no object, which no provider would take."""
    given = part.get("input")
    return _json(given) if isinstance(given, dict) else "{}"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _at(where: str, index: int) -> str:
    return f"{where}[{index}]"
