"""The parts that a client keeps of an answer, on their way back (row C36)."""

from __future__ import annotations

from typing import Any

import pytest

from app.events import CONTENT_PARTS
from app.wire.content_parts import is_thought, parts_in, restored, text_in

THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": True}
SUMMARY = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm", "signature": "s"}]}
SIGNED = {"type": "text", "text": "b", "thought_signature": "s"}
OTHER = {"type": "new", "data": 1}
LAST = {"type": "text", "text": "", "thought_signature": "s"}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def message(content: Any, *parts: Any, **more: Any) -> dict[str, Any]:
    """Return an assistant's message that a client has kept with *parts*."""
    kept = [{**part, "index": at} for at, part in enumerate(parts)]
    return {"role": "assistant", "content": content, **more, CONTENT_PARTS: kept}


@pytest.mark.parametrize(
    ("kept", "content"),
    [
        (message("391", THOUGHT, reasoning_content="hm"), [THOUGHT, text("391")]),
        (message("391", SUMMARY, reasoning="hm"), [SUMMARY, text("391")]),
        (message(None, SUMMARY), [SUMMARY]),
        (message("", THOUGHT, SUMMARY), [THOUGHT, SUMMARY]),
        (message([text("a"), {"type": "image_url"}], THOUGHT), [THOUGHT, text("a"), {"type": "image_url"}]),
        (message("abc", SIGNED), [text("a"), SIGNED, text("c")]),
        (message("bb", SIGNED, SIGNED), [SIGNED, SIGNED]),
        (message([text("a"), text("bc")], SIGNED), [text("a"), SIGNED, text("c")]),
        (message("changed", SIGNED, THOUGHT), [THOUGHT, text("changed")]),
        (message("a", LAST, OTHER, {"type": "output_text", "signature": "s"}), [text("a"), LAST]),
        (message("ab", {**SIGNED, "lang": "en", "text": {"value": "b", "id": 1}}), [text("a"), SIGNED]),
        (message("ab", {"type": "text", "text": "b", "lang": "en"}, OTHER), "ab"),
    ],
)
def test_restored(kept: dict[str, Any], content: str | list[Any]) -> None:
    """The content has the parts as they came, and the reasoning stands nowhere else."""
    assert restored(kept) == {"role": "assistant", "content": content}


def test_other_fields_stay() -> None:
    """Calls stay, and so does the reasoning if it is in no part."""
    kept = message("b", SIGNED, reasoning_content="hm", tool_calls=[])
    assert restored(kept) == {"role": "assistant", "content": [SIGNED], "reasoning_content": "hm", "tool_calls": []}


@pytest.mark.parametrize("value", [[], None, "x", 3, ["x", None]])
def test_nothing_to_restore(value: object) -> None:
    """What has no parts in it is left out, and nothing else changes."""
    kept = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    assert restored({**kept, CONTENT_PARTS: value}) == kept
    assert restored(kept) is kept


def test_a_user_has_no_parts() -> None:
    """Only an answer has them."""
    said = {"role": "user", "content": "a", CONTENT_PARTS: [THOUGHT]}
    assert restored(said) is said


def test_parts() -> None:
    """A part is of the reasoning by its type, or by its one field; the text of a part is a string or in an object."""
    assert parts_in([{**OTHER, "index": 3}, "x"]) == [OTHER]
    assert [is_thought(part) for part in (THOUGHT, SUMMARY, {"thinking": "hm"}, SIGNED, OTHER, {})] == [
        *(True, True, True),
        *(False, False, False),
    ]
    assert [text_in(part) for part in (SIGNED, {"type": "text", "text": {"value": "c"}}, OTHER)] == ["b", "c", ""]
