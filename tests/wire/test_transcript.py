"""The snapshot: a stream as one object."""

from __future__ import annotations

import json
from typing import Any

from app.events import Delta, Done, Event, Failure, Reasoning, Refusal, Start, ToolCall
from app.usage import Usage
from app.wire.transcript import Snapshot


def snapshot(*events: Event) -> dict[str, Any]:
    collected = Snapshot("S")
    for event in events:
        collected.add([event])
    found: dict[str, Any] = json.loads(collected.encode())
    return found


def test_nothing_yet() -> None:
    """A stream without a record is live, and there is no position in it."""
    assert snapshot() == {
        "stream_id": "S",
        "state": "live",
        "model": None,
        "created": None,
        "finish_reason": None,
        "content": "",
        "reasoning": "",
        "refusal": "",
        "tool_calls": [],
        "usage": None,
        "error": None,
        "last_event_id": None,
    }


def test_live() -> None:
    """A live stream shows its texts, each kind apart, its calls put together, and the id to go on after."""
    found = snapshot(
        Start("m", 7),
        Reasoning("h"),
        Reasoning("m"),
        Delta("a"),
        ToolCall(0, "c", "f", "{"),
        ToolCall(1, "d", "g", ""),
        ToolCall(0, "", "", "}"),
        Refusal("no"),
        Delta("b"),
    )
    assert (found["state"], found["model"], found["created"], found["last_event_id"]) == ("live", "m", 7, "S-9")
    assert (found["content"], found["reasoning"], found["refusal"]) == ("ab", "hm", "no")
    assert found["tool_calls"] == [
        {"index": 0, "id": "c", "name": "f", "arguments": "{}"},
        {"index": 1, "id": "d", "name": "g", "arguments": ""},
    ]


def test_done() -> None:
    """An ended stream has its finish reason, usage, and upstream's name of the model."""
    found = snapshot(Start("m", 7), Delta("a"), Done("stop", usage=Usage({"total_tokens": 1}, True), model="real"))
    assert (found["state"], found["finish_reason"], found["model"]) == ("done", "stop", "real")
    assert found["usage"] == {"total_tokens": 1, "estimated": True}
    assert found["error"] is None


def test_error() -> None:
    """A failed stream has its error, in the form of the error event, and the text until then."""
    found = snapshot(Start("m", 7), Delta("a"), Failure("Broke.", "t", "c", True, 502))
    assert (found["state"], found["content"]) == ("error", "a")
    assert found["error"] == {"message": "Broke.", "type": "t", "code": "c", "retryable": True}
