"""Events as bytes, and back: a batch is a JSON array of events.

A `Delta`, of which nearly every stream is made, is a bare string in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import orjson

from app.events import (
    TERMINAL,
    Annotation,
    Delta,
    Done,
    Event,
    Extra,
    Failure,
    Logprobs,
    Media,
    PlainReasoning,
    Reasoning,
    ReasoningText,
    Refusal,
    Start,
    Thinking,
    ThinkingContent,
    Thoughts,
    ToolCall,
    values,
)
from app.usage import Usage

_TAGS: dict[type, str] = {
    Start: "s",
    Reasoning: "r",
    PlainReasoning: "p",
    ReasoningText: "pr",
    Thinking: "pt",
    ThinkingContent: "pc",
    Thoughts: "ps",
    Refusal: "f",
    ToolCall: "t",
    Logprobs: "l",
    Annotation: "a",
    Media: "m",
    Extra: "x",
    Done: "d",
    Failure: "e",
}
_KINDS: dict[str, Any] = {tag: kind for kind, tag in _TAGS.items()}
# What JSON has for a field, by the field's type. An entry of another program may have anything.
_JSON: dict[str, Any] = {
    "str": str,
    "int": int,
    "bool": bool,
    "str | None": str | None,
    "int | None": int | None,
    "float | None": float | int | None,
    "Usage | None": list | None,
    "Mapping[str, Any]": dict,
    "Mapping[str, Any] | None": dict | None,
    "Sequence[Any]": list,
    "Sequence[Mapping[str, Any]]": list,
    "Any": object,
}
_TYPES: dict[str, list[Any]] = {
    tag: [_JSON[str(field.type)] for field in fields(kind) if field.init] for tag, kind in _KINDS.items()
}


def encode(events: Sequence[Event]) -> bytes:
    """Return *events* as bytes. Raises TypeError for what JSON cannot hold."""
    return orjson.dumps(pack(events))


def pack(events: Sequence[Event]) -> list[Any]:
    """Return *events* as a JSON array, which may hold what JSON cannot."""
    return [event.text if type(event) is Delta else _pack(event) for event in events]


def decode(data: bytes) -> list[Event]:
    """Return the events that were encoded. Raises ValueError for anything else."""
    return unpack(orjson.loads(data))


def unpack(items: Any) -> list[Event]:
    """Return the events that the JSON array *items* stands for. Raises ValueError for anything else."""
    if type(items) is not list:
        raise ValueError("not a batch of events")
    try:
        return [Delta(item) if isinstance(item, str) else _unpack(item) for item in items]
    except (KeyError, TypeError) as error:
        raise ValueError("not a batch of events") from error


def _pack(event: Event) -> list[Any]:
    packed = [[dict(it.fields), it.estimated] if isinstance(it, Usage) else it for it in values(event)]
    if isinstance(event, ToolCall) and event.type == "function" and event.extra is None:
        del packed[4:]  # as processes of an earlier version read it
    elif isinstance(event, Failure) and event.told is None and not event.retried:
        del packed[8:]
    return [_TAGS[type(event)], *packed]


def _unpack(item: list[Any]) -> Event:
    tag, *packed = item
    if not all(map(isinstance, packed, _TYPES[tag])):
        raise ValueError("not an event")
    event: Event = _KINDS[tag](*packed)
    if isinstance(event, TERMINAL) and event.usage is not None:
        usage: Any = event.usage  # still as `_pack` left it
        counts, estimated = usage
        if not isinstance(counts, dict) or not isinstance(estimated, bool):
            raise ValueError("not an event")
        return replace(event, usage=Usage(counts, estimated))
    return event
