"""Texts known by what is around them: the same as the long way finds, or none."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events import Content, Delta
from app.upstream.reading.answer import ENDED, Answer
from app.upstream.reading.chat import ChatDialect, chat_reader
from app.upstream.reading.template import Template

PADDED = {"obfuscation": "aB3"}


def chunk(text: str, more: dict[str, Any] | None = None, choice: dict[str, Any] | None = None) -> dict[str, Any]:
    choices = [{"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None, **(choice or {})}]
    return {"id": "chatcmpl-1", "model": "m", "choices": choices, "usage": None, **(more or {})}


def event(data: object, *, ascii: bool = False, spaces: bool = False) -> bytes:
    separators = (", ", ": ") if spaces else (",", ":")
    return b"data: %b\n\n" % json.dumps(data, ensure_ascii=ascii, separators=separators).encode()


def learn(data: dict[str, Any], text: str) -> Template | None:
    dialect = ChatDialect(Answer())
    dialect.read(b"", data)  # what is constant has to be said before
    template = Template(dialect.take_text)
    template.learn(event(data)[6:-2], text)
    return template if template.known else None


def long_way(data: bytes) -> list[Content]:
    """Return what a reader finds in *data* that has learnt nothing, and will not."""
    reader = chat_reader()
    reader._template.lessons = 0
    reader.feed(event(chunk("first")))
    return reader.feed(data)


@pytest.mark.parametrize("more", [{}, PADDED])
@pytest.mark.parametrize(
    "text", ["hi", ' a "quoted" \\ text\n', "\u2028 é 😀", '"}', '"},"logprobs":null', "\\", "\\u00e9"]
)
def test_the_text_is_found(text: str, more: dict[str, Any]) -> None:
    """Whatever the text, and however it is escaped, it is what the long way finds; one event or several in a read."""
    template = learn(chunk("first", more), "first")
    assert template is not None
    for ascii in (False, True):
        data = event(chunk(text, more), ascii=ascii)
        assert template.texts(data) == long_way(data) == [Delta(text)]
        assert template.texts(data * 3) == [Delta(text)] * 3


@pytest.mark.parametrize(
    "other",
    [
        event(chunk("x", {"usage": {"total_tokens": 1}})),
        event(chunk("x", {"error": {"message": "no"}})),
        event(chunk("x", choice={"finish_reason": "stop"})),
        event(chunk("x", choice={"index": 1})),
        event(chunk("x", {"id": "chatcmpl-2"})),
        event(chunk("x", PADDED)),
        event(chunk("x"), spaces=True),
        event(chunk("x"))[:-1],
        event(chunk("x"))[:-2] + b"\r\n\r\n",
        event(chunk("x"))[:-2] + b"\ndata: {}\n\n",
        b": ping\n\n",
        b"data: [DONE]\n\n",
        event(chunk("a\x00b")).replace(b"\\u0000", b"\x00"),
        event(chunk("ab")).replace(b"ab", b"a\xffb"),
        event(chunk("ab")).replace(b"ab", b"\\ud800"),
        event(chunk("ab")).replace(b'"ab"', b'"a","x":"b"'),
    ],
)
def test_anything_else_is_not(other: bytes) -> None:
    """What differs by a byte outside the text, or is no JSON string inside, is left to the long way."""
    template = learn(chunk("first"), "first")
    assert template is not None
    assert template.texts(other) is None
    assert template.texts(event(chunk("x")) + other) is None


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (chunk("m"), "m"),  # the model's name is the same
        (chunk("content", {"note": "content"}), "content"),
        (chunk("x", {"a": "x", "b": "x", "c": "x"}), "x"),
    ],
)
def test_learnt_in_the_right_place(data: dict[str, Any], text: str) -> None:
    """Where the text is there twice, it is the one that the reader takes for it that is learnt."""
    template = learn(data, text)
    assert template is not None
    assert template.texts(event(data)) == [Delta(text)]
    other = json.loads(json.dumps(data))
    other["choices"][0]["delta"]["content"] = "other"
    assert template.texts(event(other)) == [Delta("other")]


def test_nothing_to_learn() -> None:
    """An event whose text is not where it seems, or on several lines, teaches nothing."""
    template = Template(ChatDialect(Answer()).take_text)
    for payload, text in (
        (b'{"choices":[]}', "x"),
        (b'{"x":"y"}', "y"),
        (event(chunk("x"))[6:-2].replace(b",", b",\n"), "x"),
    ):
        template.learn(payload, text)
        assert not template.known


def test_an_empty_text_is_none() -> None:
    """An event without text in it is read, and gives none."""
    template = learn(chunk("x"), "x")
    assert template is not None
    assert template.texts(event(chunk("")) + event(chunk("y"))) == [Delta("y")]


PIECES = st.one_of(
    st.text(max_size=8).map(lambda text: event(chunk(text))),
    st.text(max_size=8).map(lambda text: event(chunk(text, PADDED), ascii=True)),
    st.sampled_from(
        [
            b": ping\n\n",
            event(chunk("x", {"created": 2})),
            event({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}),
            b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}\n\n',
            b'data: {"choices":[{"index":0,"delta":{"content":"\\ude00"}}]}\n\n',
        ]
    ),
)


@given(st.lists(PIECES, max_size=24), st.lists(st.integers(0, 4000), max_size=8))
def test_it_makes_no_difference(pieces: list[bytes], cuts: list[int]) -> None:
    """A reader that learns finds what one that does not finds, however the bytes are cut."""
    data = b"".join(pieces)
    learning, plain = chat_reader(), chat_reader()
    plain._template.lessons = 0
    found: list[Content] = []
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in itertools.pairwise(places):
        found += learning.feed(data[start:end])
    found += learning.end()
    expected = [*plain.feed(data), *plain.end()]
    assert joined(found) == joined(expected)


def joined(content: list[Content]) -> list[tuple[type, str]]:
    """Return the texts, neighbours of a kind put together: a cut between two events may be one in the middle."""
    out: list[tuple[type, str]] = []
    for piece in content:
        text = getattr(piece, "text", "")
        if out and out[-1][0] is type(piece):
            out[-1] = type(piece), out[-1][1] + text
        else:
            out.append((type(piece), text))
    return out


def test_an_event_that_is_too_large_is_still_refused() -> None:
    """The bound on an event holds for those that are known by their surroundings."""
    reader = chat_reader(max_event=400)
    for _ in range(3):
        assert reader.feed(event(chunk("x"))) == [Delta("x")]
    assert reader.feed(event(chunk("y" * 500))) == []
    assert reader.answer.state is ENDED


def test_lessons_end() -> None:
    """Where every event is another, learning is given up; where one lesson was worth it, there are more."""
    reader = chat_reader()
    for number in range(10):
        reader.feed(event(chunk("x", {"created": number})))
    assert reader._template.lessons == 0
    patient = chat_reader()
    for number in range(10):
        for _ in range(12):
            assert patient.feed(event(chunk("x", {"created": number}))) == [Delta("x")]
    assert patient._template.lessons > 0
