"""A call, a part of text and a note, as Responses have them."""

from __future__ import annotations

from typing import Any

import pytest

from app.events import ToolCall
from app.wire.response_parts import ItemCall, annotation, text_part

ID = "S" * 22


def call(*pieces: ToolCall) -> ItemCall:
    """Return the call of *pieces*, at place 2 of the output."""
    found = ItemCall(0, at=2)
    for piece in pieces:
        found.add(piece)
    return found


def test_a_function_call() -> None:
    """A call is an item with all of its arguments, and each piece of those is an event about that item."""
    found = call(ToolCall(0, "c", "f", "{"), ToolCall(0, "", "", "}"))
    assert found.item(ID, "completed") == {
        "id": f"fc_{ID}_2",
        "type": "function_call",
        "status": "completed",
        "call_id": "c",
        "name": "f",
        "arguments": "{}",
    }
    assert found.delta(ID, "{") == [
        {
            "type": "response.function_call_arguments.delta",
            "item_id": f"fc_{ID}_2",
            "output_index": 2,
            "delta": "{",
        }
    ]
    assert found.delta(ID, "") == []


def test_a_custom_call() -> None:
    """The input of a custom tool has its own name."""
    found = call(ToolCall(0, "c", "f", "x", "custom"))
    item = found.item(ID, "in_progress")
    assert (item["id"], item["type"], item["input"]) == (f"ctc_{ID}_2", "custom_tool_call", "x")
    assert "arguments" not in item
    assert found.delta(ID, "x")[0]["type"] == "response.custom_tool_call_input.delta"


def test_what_else_a_call_has() -> None:
    """It stands in the item, also what chat completions have within the function. The item's own fields stay."""
    extra = {"signature": "s", "function": {"strict": True, "name": "other"}, "status": "odd", "custom": {"x": 1}}
    item = call(ToolCall(0, "c", "f", "{}", extra=extra)).item(ID, "completed")
    assert {name: item[name] for name in ("signature", "strict", "name", "status")} == {
        "signature": "s",
        "strict": True,
        "name": "f",
        "status": "completed",
    }
    assert not {"function", "custom", "x"} & item.keys()


def test_a_text_part() -> None:
    """A part has lists of its own."""
    notes: list[Any] = []
    part = text_part("a", notes)
    notes.append(1)
    assert part == {"type": "output_text", "text": "a", "annotations": [], "logprobs": []}


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        (
            {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 3}},
            {"type": "url_citation", "url": "u", "title": "t", "start_index": 3, "end_index": 0},
        ),
        (
            {"type": "url_citation", "url": "u"},
            {"type": "url_citation", "url": "u", "title": "", "start_index": 0, "end_index": 0},
        ),
        ({"type": "file_citation", "file_id": "f"}, {"type": "file_citation", "file_id": "f"}),
        ({"url": "u"}, {"url": "u"}),
        ("u", "u"),
    ],
)
def test_notes(note: object, expected: object) -> None:
    """A note of chat completions loses its inner object; a citation gets the fields that it lacks."""
    assert annotation(note) == expected
