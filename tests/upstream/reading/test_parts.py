"""Content that comes in parts (row C3)."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import Malformed
from app.events import CONTENT_PARTS, Annotation, Content, Delta, Extra, Media, Reasoning, Refusal
from app.upstream.reading.answer import OPEN, Answer
from app.upstream.reading.parts import read_parts

LINK = "https://images.example/a.png"
IMAGE = Media("image", "image/png", LINK, "content")


def read(*parts: Any, with_thinking: bool = True) -> tuple[Answer, list[Content], list[dict[str, Any]]]:
    """Return the answer that *parts* make, its content, and the calls in it."""
    answer = Answer()
    calls: list[dict[str, Any]] = []
    read_parts(answer, list(parts), with_thinking, calls.append)
    answer.close_part()
    return answer, answer.content, calls


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("a", [Delta("a")]),
        (["a", {"text": "b"}], [Delta("ab")]),
        (None, []),
        ({"type": "text", "text": "a"}, [Delta("a")]),
        ({"type": "output_text", "text": {"value": "a"}}, [Delta("a")]),
        (
            {"type": "text", "text": {"value": "a", "annotations": [{"url": "u"}]}},
            [Delta("a"), Annotation([{"url": "u"}])],
        ),
        ({"type": "TEXT", "text": "a", "annotations": [{"url": "u"}]}, [Delta("a"), Annotation([{"url": "u"}])]),
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


def kept(*parts: dict[str, Any]) -> list[Content]:
    """Return the extras that parts are which are kept."""
    return [Extra({}, {}, {CONTENT_PARTS: [{**part, "index": at}]}) for at, part in enumerate(parts)]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "thinking", "thinking": "hm"},
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}, {"type": "reference", "reference_ids": [1]}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm", "signature": "s"}]},
        {"type": "reasoning.text", "text": "hm"},
        {"thinking": "hm"},
    ],
)
def test_reasoning(part: dict[str, Any]) -> None:
    """A part of reasoning is kept as it came, whether its text stands elsewhere or not."""
    assert read(part)[1] == [Reasoning("hm"), *kept(part)]
    assert read(part, with_thinking=False)[1] == kept(part)


def test_reasoning_without_a_text() -> None:
    """Ciphertext is kept; a part that says nothing is not."""
    part = {"type": "reasoning", "summary": [{"type": "summary_encrypted_text", "data": "x"}]}
    assert read(part)[1] == kept(part)
    assert read({"type": "reasoning", "summary": [{"type": "summary_text", "text": "", "signature": ""}]})[1] == []


def test_half_a_character() -> None:
    """A character whose halves are in two pieces is whole in the part."""
    high, low = ({"type": "thinking", "thinking": half} for half in ("\ud83d", "\ude00"))
    assert read(high, low)[1] == [Reasoning("\U0001f600"), *kept({"type": "thinking", "thinking": "\U0001f600"})]


def test_text_with_more_in_it() -> None:
    """What there is in a part of text besides its text, and the notes on it, is kept with the text."""
    note = {"type": "file_citation"}
    signed = {"type": "text", "text": "b", "thought_signature": "s"}
    inner = {"type": "text", "text": {"value": "c", "annotations": [note], "id": 3}}
    assert read({"type": "text", "text": "a"}, signed, inner)[1] == [
        *(Delta("a"), Delta("b"), kept(signed)[0]),
        *(Delta("c"), Annotation([note]), kept(signed, inner)[1]),
    ]
    last = {"type": "text", "text": "", "thought_signature": "s"}
    assert read({"type": "text", "text": "a"}, last)[1] == [Delta("a"), *kept(last)]


def test_unknown_parts_are_kept() -> None:
    """Parts of a type that has no word here are kept where they came."""
    first, second = {"type": "new", "data": 1}, {"type": "newer", "data": "\ud800"}
    a, b = kept(first, {"type": "newer", "data": "\ufffd"})
    assert read(first, "a", second)[1] == [a, Delta("a"), b]


@pytest.mark.parametrize("part", [{"data": 1}, {"type": "", "data": 1}, {"type": "image_url", "image_url": {"id": 3}}])
def test_what_cannot_be_understood(part: dict[str, Any]) -> None:
    """A part that says neither what it is nor a text, and an image that is nowhere, make the answer malformed."""
    answer, content, _ = read(part)
    assert isinstance(answer.error, Malformed)
    assert content == []
