"""A stream as one JSON object: what a page that was closed for an hour needs to show the answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from app.events import Delta, Done, Event, EventId, Failure, Reasoning, Refusal, Start, ToolCall
from app.wire.json import error_object, usage_object


class Snapshot:
    """Collects the records of one stream so far, in order."""

    def __init__(self, stream_id: str) -> None:
        self._stream_id = stream_id
        self._texts: dict[type, list[str]] = {Delta: [], Reasoning: [], Refusal: []}
        self._calls: dict[int, dict[str, Any]] = {}
        self._count = 0
        self._facts: dict[str, Any] = {"state": "live", "model": None, "created": None, "finish_reason": None}
        self._usage: dict[str, Any] | None = None
        self._error: dict[str, Any] | None = None

    def add(self, events: Iterable[Event]) -> None:
        """Add the next records."""
        for event in events:
            self._count += 1
            match event:
                case Delta(text) | Reasoning(text) | Refusal(text):
                    self._texts[type(event)].append(text)
                case ToolCall(index, call_id, name, arguments):
                    call = self._calls.setdefault(index, {"index": index, "id": "", "name": "", "arguments": []})
                    call["id"] = call["id"] or call_id
                    call["name"] = call["name"] or name
                    call["arguments"].append(arguments)
                case Start(model, created):
                    self._facts |= {"model": model, "created": created}
                case Done():
                    self._facts |= {"state": "done", "finish_reason": event.finish_reason}
                    self._facts["model"] = event.model or self._facts["model"]
                    self._usage = usage_object(event.usage)
                case Failure():
                    self._facts["state"] = "error"
                    self._usage = usage_object(event.usage)
                    self._error = error_object(event)

    def encode(self) -> bytes:
        """Return the JSON: state, texts, calls, finish reason, usage, error, and the id to go on after."""
        last = str(EventId(self._stream_id, self._count)) if self._count else None
        texts = {name: "".join(self._texts[kind]) for name, kind in _NAMES}
        calls = [call | {"arguments": "".join(call["arguments"])} for call in self._calls.values()]
        return orjson.dumps(
            {
                "stream_id": self._stream_id,
                **self._facts,
                **texts,
                "tool_calls": calls,
                "usage": self._usage,
                "error": self._error,
                "last_event_id": last,
            }
        )


_NAMES = (("content", Delta), ("reasoning", Reasoning), ("refusal", Refusal))
