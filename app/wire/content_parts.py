"""The parts of an answer's content that were kept as they came, and how they go back upstream.

A client of chat completions keeps them in the message, at `content_parts`, beside the text and the reasoning in them.
Mistral and Databricks refuse a message with any such field, and take their reasoning back in the content alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.events import CONTENT_PARTS, PlainReasoning, Reasoning
from app.wire.json import string_in
from app.wire.opaque import is_of_reasoning


def parts_in(value: Any) -> list[dict[str, Any]]:
    """Return the parts that *value* has, as they came: the index in each is this service's."""
    parts = value if isinstance(value, (list, tuple)) else ()
    return [
        {name: item for name, item in part.items() if name != "index"} for part in parts if isinstance(part, Mapping)
    ]


def is_thought(part: Mapping[str, Any]) -> bool:
    """Whether *part* is of the reasoning."""
    kind = string_in(part, "type")
    return is_of_reasoning(kind) if kind else "thinking" in part


def text_in(part: Mapping[str, Any]) -> str:
    """Return the text that *part* has, and that is in the message's text, too."""
    inner = part.get("text")
    return string_in(inner, "value") if isinstance(inner, Mapping) else string_in(part, "text")


def restored(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return *message* with the parts that a client kept of it in its content, where the upstream had sent them.

    Reasoning that is among them stands nowhere else then. A text that the client has changed has no part.
    """
    if message.get("role") != "assistant" or CONTENT_PARTS not in message:
        return message
    parts = parts_in(message[CONTENT_PARTS])
    fields = {name: value for name, value in message.items() if name != CONTENT_PARTS}
    thoughts = [part for part in parts if is_thought(part)]
    texts = [text for part in parts if not is_thought(part) and (text := _signed(part))]
    if not (thoughts or texts):
        return fields
    if thoughts:
        fields.pop(Reasoning.FIELD, None)
        fields.pop(PlainReasoning.FIELD, None)
    said = _with_texts(message.get("content"), [text for text in texts if text["text"]])
    return {**fields, "content": [*thoughts, *said, *(text for text in texts if not text["text"])]}


def _signed(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an upstream wants back of a part of text, such as its signature; {} if that is no more than the text.

    Other fields, and parts of other types, stay out: where the settings say what may be asked, they would be refused.
    """
    more = {name: value for name, value in part.items() if is_of_reasoning(name) or name == "extra_content"}
    if not more or "text" not in part:
        return {}
    return {"type": "text", "text": text_in(part), **more}


def _with_texts(content: Any, parts: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return *content* as a list, in which each of *parts* is in the place of its text."""
    said = content if isinstance(content, list) else [_text(content)] if isinstance(content, str) else []
    found: list[Any] = []
    waiting = iter(parts)
    part = next(waiting, None)
    for item in said:
        start = 0
        whole = string_in(item, "text") if part is not None and item == _text(string_in(item, "text")) else ""
        while part is not None and (at := whole.find(part["text"], start)) >= 0:
            found += [_text(whole[start:at])] if at > start else []
            found.append(part)
            start = at + len(part["text"])
            part = next(waiting, None)
        if start == 0:
            found.append(item)
        elif start < len(whole):
            found.append(_text(whole[start:]))
    return [item for item in found if item != _text("")]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
