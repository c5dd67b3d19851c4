"""Events as bytes, and back."""

from __future__ import annotations

import pytest

from app.events import (
    REASONING,
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
    Refusal,
    Start,
    ToolCall,
)
from app.journal.encoding import decode, encode
from app.usage import Usage

EVENTS: list[list[Event]] = [
    [Delta("Hello")],
    [Delta("\n\r\n\x00\u2028é𝄞"), Delta("")],
    [Start("gpt", 1750000000, ""), Reasoning("why"), Refusal("no"), ToolCall(0, "call", "name", '{"a":\n1}')],
    [kind("hm") for kind in REASONING],
    [Logprobs([{"token": "x", "logprob": -0.5, "bytes": [120]}], [])],
    [ToolCall(0, "c", "f", "", "custom"), ToolCall(0, "", "", "", "function", {"extra_content": {"google": ["x"]}})],
    [Annotation([{"type": "url_citation"}], ["u"], []), PlainReasoning("hm"), Extra({"a": 1}, {}, {"b": [None, 2.5]})],
    [Media("image", "image/png", "data:,x"), Media("audio", "audio/wav", "u", "audio", {"id": "a"})],
    [Done("stop", None, Usage({"total_tokens": 3, "details": {"cached": 1}}, estimated=True))],
    [Failure("It broke.", "upstream_error", "upstream", retryable=True, status=502, usage=Usage({}))],
]


@pytest.mark.parametrize("events", EVENTS)
def test_events_come_back(events: list[Event]) -> None:
    """What was encoded is decoded as it was."""
    assert decode(encode(events)) == events


def test_a_usual_call_reads_as_before() -> None:
    """A call without anything new is what processes of an earlier version write and read."""
    assert encode([ToolCall(0, "c", "f", "{}")]) == b'[["t",0,"c","f","{}"]]'


GARBAGE = [b"", b"x", b"1", b"{", b'"x"', b"{}", b'[["?"]]', b"[[]]", b"[1]", b"[null]", b'[["s"]]']
# Of the right form, with values of other types.
FOREIGN = [b'[["r",5]]', b'[["s",1,2]]', b'[["l","x"]]', b'[["x",[]]]', b'[["m","image",null,"u"]]', b'[["d",null]]']
FOREIGN += [b'[["d","stop",null,[1,2]]]', b'[["d","stop",null,[{}]]]', b'[["t",0,"c","f",{}]]', b'[["r","a","b"]]']


@pytest.mark.parametrize("data", [*GARBAGE, *FOREIGN])
def test_garbage_is_refused(data: bytes) -> None:
    """What is not a batch of events is a ValueError."""
    with pytest.raises(ValueError):
        decode(data)
