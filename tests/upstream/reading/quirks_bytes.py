"""How a case is written down: the upstream's bytes, and what must be made of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from app.errors import StreamError
from app.events import Content, ToolCall


@dataclass(frozen=True)
class Case:
    """*raw* and how the body *ends*: `eof`, `cut`, or `open`, where the socket stays open after the last byte.

    *end* is the finish reason, `other:raw`, or the class of the error.
    """

    name: str
    raw: bytes
    end: str | type[StreamError] = "stop"
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: tuple[tuple[str, str, str], ...] = ()  # id, name, arguments of each, put together
    ends: str = "eof"
    usage: dict[str, Any] | None = None
    model: str = ""
    message: str | None = None
    replaced_bytes: int = 0
    cut_after_finish: bool = False
    others: tuple[Content, ...] | None = None  # annotations, media and extras; None if they are not what it is about


def dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def event(value: object) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else dumps(value)) + b"\n\n"


def chunk(delta: object = None, finish: object = None, **more: object) -> bytes:
    return event({"choices": [{"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}], **more})


def text(content: object) -> bytes:
    return chunk({"content": content})


def tool(*calls: object) -> bytes:
    return chunk({"tool_calls": list(calls)})


def call(index: int | None, id: str | None, name: str | None, arguments: str | None) -> dict[str, object]:
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    fields: dict[str, object] = {"function": function}
    if index is not None:
        fields["index"] = index
    if id is not None:
        fields["id"] = id
    return fields


HI = text("hi")
STOP = chunk({}, "stop")
DONE = b"data: [DONE]\n\n"
END = STOP + DONE
ERROR = {"error": {"message": "It broke.", "type": "server_error", "code": 500}}
CUT: dict[str, Any] = {"ends": "cut"}
OPEN: dict[str, Any] = {"ends": "open"}


def merged(pieces: list[ToolCall]) -> tuple[tuple[str, str, str], ...]:
    """Put the pieces of calls together; their indexes must be dense and in order of appearance."""
    calls: list[tuple[str, str, str]] = []
    for piece in pieces:
        if piece.index == len(calls):
            calls.append((piece.id, piece.name, piece.arguments))
        else:
            id, name, arguments = calls[piece.index]
            assert not (piece.id and id), "an id is sent once"
            calls[piece.index] = (id or piece.id, name + piece.name, arguments + piece.arguments)
    return tuple(calls)
