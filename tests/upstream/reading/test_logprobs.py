"""Log probabilities, as either dialect has them."""

from __future__ import annotations

import json
from collections.abc import Callable

import orjson
import pytest

from app.events import Content, Delta, Logprobs, Refusal, ToolCall
from app.upstream.reading.chat import chat_reader
from app.upstream.responses.reader import responses_reader
from tests.upstream.reading.quirks_bytes import event
from tests.upstream.responses.bytes import sent


def weighed(token: str = "hi", **more: object) -> dict[str, object]:
    fields = {"token": token, "logprob": -0.5, "bytes": list(token.encode("utf-8", "replace")), "top_logprobs": []}
    return fields | more


def chat(logprobs: object) -> list[Content]:
    """Return what comes of a chunk, in ASCII, since half a character has no other form."""
    raw = json.dumps({"choices": [{"delta": {"content": "hi"}, "logprobs": {"content": logprobs}}]})
    return chat_reader().feed(event(raw.encode()))


def responses(logprobs: object) -> list[Content]:
    raw = json.dumps({"type": "response.output_text.delta", "delta": "hi", "logprobs": logprobs})
    return responses_reader().feed(event(raw.encode()))


DIALECTS = pytest.mark.parametrize("read", [chat, responses])


@DIALECTS
def test_after_their_text(read: Callable[[object], list[Content]]) -> None:
    """They come right after the text that they are of, in the chat's shape."""
    top = [{"token": "hi", "logprob": -0.5, "bytes": [104, 105]}, {"token": "ho", "logprob": -1.5, "bytes": None}]
    assert read([weighed(top_logprobs=top)]) == [Delta("hi"), Logprobs([weighed(top_logprobs=top)])]
    # Responses has no bytes, as its types say.
    bare = {"token": "hi", "logprob": 0, "top_logprobs": [{"token": "hi", "logprob": 0}, {"logprob": 1}]}
    whole = {"token": "hi", "logprob": 0, "bytes": None}
    assert read([bare, bare])[1] == Logprobs([whole | {"top_logprobs": [whole]}] * 2)


@DIALECTS
@pytest.mark.parametrize(
    "value",
    [
        *(7, "x", {"a": 1}, True, [3], [[]]),
        [weighed(), {"token": "b"}],
        [weighed(logprob=float("nan"))],
        [weighed(logprob=float("-inf"))],
        [weighed(logprob=10**400)],
        [weighed(logprob=True)],
        [weighed() | {"token": ["a"]}],
        [weighed("a" * 2000)],
        [],
        None,
    ],
    ids=range(15),
)
def test_what_is_none(read: Callable[[object], list[Content]], value: object) -> None:
    """What is no list of tokens with finite numbers is left out, and the text is not (C14)."""
    assert read(value) == [Delta("hi")]


@DIALECTS
def test_can_be_sent_on(read: Callable[[object], list[Content]]) -> None:
    """Other fields of the upstream's are not passed on, however large or deep, so everything can be encoded."""
    deep: object = []
    for _ in range(200):
        deep = [deep]
    wild = weighed("\ud800", bytes=[300], top_logprobs=[weighed(logprob=float("nan")), 7, *[weighed()] * 99], deep=deep)
    _, said = read([wild])
    assert isinstance(said, Logprobs)
    [token] = said.content
    assert len(token.pop("top_logprobs")) == 18  # type: ignore[attr-defined]  # a Mapping to readers; here a dict
    assert token == {"token": "\ufffd", "logprob": -0.5, "bytes": None}
    assert orjson.dumps(said)


def test_chat_in_order() -> None:
    """In a chat, they come after a refusal, too, and before a call; a chunk without them is read as ever."""

    def said(delta: object, logprobs: object) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": None}
        return event({"model": "m", "choices": [choice]})

    hi, no = weighed("hi"), weighed("no")
    raw = (
        said({"role": "assistant", "content": ""}, None)
        + said({"content": "hi"}, {"content": [hi], "refusal": None})
        + said({"content": "hi"}, {"content": [hi, hi]})
        + said({"content": "ho"}, None)
        + said({"refusal": "no"}, {"content": None, "refusal": [no]})
        + said({"content": "x", "tool_calls": [{"index": 0, "id": "c"}]}, {"content": [hi]})
        + said({"content": "ho"}, {"content": [], "refusal": 3})
        + said({"content": "ho"}, "none")
    )
    assert chat_reader().feed(raw) == [
        *(Delta("hi"), Logprobs([hi])),
        *(Delta("hi"), Logprobs([hi, hi])),
        Delta("ho"),
        *(Refusal("no"), Logprobs((), [no])),
        *(Delta("x"), Logprobs([hi]), ToolCall(0, "c", "", "")),
        *(Delta("ho"), Delta("ho")),
    ]


def test_responses_in_order() -> None:
    """In a response, each delta has its own; those of a whole text come only where the text does (R7)."""
    hi = weighed("hi")
    raw = (
        sent("output_text.delta", sequence_number=1, output_index=0, content_index=0, delta="hi", logprobs=[hi])
        + sent("output_text.delta", sequence_number=2, output_index=0, content_index=0, delta="hi", logprobs=[hi])
        + sent("output_text.delta", sequence_number=3, output_index=0, content_index=0, delta="ho", logprobs=[])
        + sent("output_text.done", sequence_number=4, output_index=0, content_index=0, text="hihi", logprobs=[hi, hi])
        + sent("output_text.done", sequence_number=5, output_index=1, content_index=0, text="hi", logprobs=[hi])
    )
    weights = Logprobs([hi])
    assert responses_reader().feed(raw) == [
        *(Delta("hi"), weights, Delta("hi"), weights, Delta("ho")),
        *(Delta("hi"), weights),
    ]
