"""Events as bytes, the command that appends them, and what the last entries of a log say."""

from __future__ import annotations

import math
from typing import Any

import pytest
from redis.connection import Connection

from app.events import (
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
from app.journal.redis import keys
from app.journal.redis.entries import (
    HEADER,
    Tail,
    append,
    decode,
    encode,
    header_of,
    info_of,
    read_header,
    read_tail,
    seconds_kept,
)
from app.request import StreamInfo
from app.usage import Usage

DONE = Done("stop")
EVENTS: list[list[Event]] = [
    [Delta("Hello")],
    [Delta("\n\r\n\x00\u2028é𝄞"), Delta("")],
    [Start("gpt", 1750000000, ""), Reasoning("why"), Refusal("no"), ToolCall(0, "call", "name", '{"a":\n1}')],
    [Logprobs([{"token": "x", "logprob": -0.5, "bytes": [120]}], [])],
    [ToolCall(0, "c", "f", "", "custom"), ToolCall(0, "", "", "", "function", {"extra_content": {"google": ["x"]}})],
    [Annotation([{"type": "url_citation"}], ["u"], []), PlainReasoning("hm"), Extra({"a": 1}, {}, {"b": [None, 2.5]})],
    [Media("image", "image/png", "data:,x"), Media("audio", "audio/wav", "u", "audio", {"id": "a"})],
    [Done("stop", None, Usage({"total_tokens": 3, "details": {"cached": 1}}, estimated=True))],
    [Failure("It broke.", "upstream_error", "upstream", retryable=True, status=502, usage=Usage({}))],
]


def packed(*command: str | bytes) -> bytes:
    connection: Any = Connection
    return b"".join(connection().pack_command(*command))


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


@pytest.mark.parametrize("events", EVENTS)
@pytest.mark.parametrize("first", [1, 10, 123_456_789_012])
def test_an_entry_is_appended_as_redis_py_would(events: list[Event], first: int) -> None:
    """The command is byte by byte the one of redis-py: lengths count bytes, and the id is the first record's number."""
    key = keys.log("a" * 22)
    data = encode(events)
    assert append(key, first, data) == packed("XADD", key, "NOMKSTREAM", f"{first}-0", "e", data)


@pytest.mark.parametrize(
    "info",
    [
        StreamInfo("none"),
        StreamInfo(
            "size:7,80ms",
            "a1b2",
            1 << 40,
            "c3d4",
            True,
            '{"a":"é"}',
            12.5,
            "模型:7b",
            1 << 50,
            '{"b":"🦙"}',
        ),
    ],
)
def test_a_header_comes_back(info: StreamInfo) -> None:
    """What a stream was created with is in the header."""
    assert info_of(header_of(info, "p")) == info


def test_a_header_of_the_first_builds() -> None:
    """A header with the owner's plain name is not read: the owner's account cannot be known."""
    header = header_of(StreamInfo("none", "ann"), "p")
    assert read_header((HEADER, [part for field in header.items() for part in field])) == header
    header[b"owner"] = header.pop(b"account")
    with pytest.raises(ValueError, match="not the header"):
        read_header((HEADER, [part for field in header.items() for part in field]))


@pytest.mark.parametrize(("keep", "seconds"), [(math.inf, 60), (90, 60), (12.4, 12), (0, 1)])
def test_how_long_it_is_kept(keep: float, seconds: int) -> None:
    """A stream may be kept for less time than others, and never for more."""
    assert seconds_kept(StreamInfo("none", keep=keep), 60) == seconds


def entry(first: int, *events: Event) -> Any:
    return b"%d-0" % first, [b"e", encode(events)]


A, B, C = map(Delta, "abc")
TAILS: list[tuple[list[Any], int, Tail]] = [
    ([(HEADER, [b"chunk", b"none"])], 0, Tail(0, [])),
    ([(HEADER, [b"chunk", b"none"])], 2, Tail(0, [])),
    ([entry(1, A)], 0, Tail(1, [A])),
    ([entry(1, A)], 1, Tail(1, [])),
    ([entry(1, A), entry(2, B)], 1, Tail(2, [B])),
    ([entry(1, A, B), entry(3, C)], 1, Tail(3, [B, C])),  # divided at other places than they were sent
    ([entry(1, A, B, C, DONE)], 2, Tail(4, [C, DONE], DONE)),
    ([entry(1, A, DONE)], 2, Tail(2, [], DONE)),
    ([entry(1, A, DONE)], 5, Tail(2, [], DONE)),
    ([entry(3, C)], 1, Tail(3, [], gap=True)),
    ([entry(2, B), entry(4, DONE)], 1, Tail(4, [], DONE, gap=True)),
]


@pytest.mark.parametrize(("entries", "after", "tail"), TAILS)
def test_tails(entries: list[Any], after: int, tail: Tail) -> None:
    """The last entries say which records are newer, whether some are missing before them, and how the log ended."""
    assert read_tail(entries, after) == tail
