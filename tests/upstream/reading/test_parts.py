"""Content that comes in parts (row C3)."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import Malformed
from app.events import Annotation, Content, Delta, Extra, Media, Reasoning, Refusal
from app.upstream.reading.answer import OPEN, Answer
from app.upstream.reading.parts import PARTS, read_parts

LINK = "https://images.example/a.png"
IMAGE = Media("image", "image/png", LINK, "content")


def read(*parts: Any, with_thinking: bool = True) -> tuple[Answer, list[Content], list[dict[str, Any]]]:
    """Return the answer that *parts* make, its content, and the calls in it."""
    answer = Answer()
    calls: list[dict[str, Any]] = []
    read_parts(answer, list(parts), with_thinking, calls.append)
    return answer, answer.content, calls


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("a", [Delta("a")]),
        (["a", {"text": "b"}], [Delta("ab")]),
        (None, []),
        ({"type": "text", "text": "a"}, [Delta("a")]),
        ({"type": "output_text", "text": {"value": "a"}}, [Delta("a")]),
        ({"type": "TEXT", "text": "a", "annotations": [{"url": "u"}]}, [Delta("a"), Annotation([{"url": "u"}])]),
        ({"type": "thinking", "thinking": "hm"}, [Reasoning("hm")]),
        ({"thinking": "hm"}, [Reasoning("hm")]),
        ({"type": "reasoning.text", "text": "hm", "index": 0}, [Reasoning("hm")]),
        ({"type": "refusal", "refusal": "no"}, [Refusal("no")]),
        ({"type": "citation", "url": "u"}, [Annotation([{"type": "citation", "url": "u"}])]),
        ({"type": "image_url", "image_url": {"url": LINK}}, [IMAGE]),
        ({"type": "image_url", "image_url": None}, []),
        ({"type": "new", "text": "a"}, [Delta("a")]),
        ({"text": "a"}, [Delta("a")]),
        ({"type": "new", "text": ""}, []),
        ({}, []),
    ],
)
def test_part(part: object, content: list[Content]) -> None:
    """A part becomes what it is, by its type or by what is in it."""
    answer, found, calls = read(part)
    assert (answer.state, found, calls) == (OPEN, content, [])


@pytest.mark.parametrize(
    ("part", "call"),
    [
        ({"type": "tool_use", "name": "f", "input": {}}, {"type": "function", "name": "f", "input": {}}),
        ({"type": "function_call", "function": {"name": "f"}}, {"type": "function", "function": {"name": "f"}}),
        ({"type": "tool_call", "id": "a"}, {"type": "tool_call", "id": "a"}),
    ],
)
def test_calls(part: dict[str, Any], call: dict[str, Any]) -> None:
    """A call is given to the reader of calls, as the function's call that it is."""
    assert read(part)[1:] == ([], [call])


def test_reasoning_that_stands_elsewhere() -> None:
    """Without thinking, a part of reasoning is not read; what it has besides its text is kept all the same."""
    signed = {"type": "thinking", "thinking": "hm", "signature": "s"}
    assert read(signed, with_thinking=False)[1] == [Extra({}, {}, {PARTS: [signed]})]
    assert read(signed)[1] == [Reasoning("hm"), Extra({}, {}, {PARTS: [signed]})]


def test_unknown_parts_are_kept() -> None:
    """Parts of a type that has no word here follow all the others, in one event, as they came."""
    first, second = {"type": "new", "data": 1}, {"type": "newer", "data": "\ud800"}
    kept = [first, {"type": "newer", "data": "\ufffd"}]
    assert read(first, "a", second)[1] == [Delta("a"), Extra({}, {}, {PARTS: kept})]


@pytest.mark.parametrize("part", [{"data": 1}, {"type": "", "data": 1}, {"type": "image_url", "image_url": {"id": 3}}])
def test_what_cannot_be_understood(part: dict[str, Any]) -> None:
    """A part that says neither what it is nor a text, and an image that is nowhere, make the answer malformed."""
    answer, content, _ = read(part)
    assert isinstance(answer.error, Malformed)
    assert content == []
