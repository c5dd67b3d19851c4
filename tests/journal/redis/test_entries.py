"""The command that appends events, and what the last entries of a log say."""

from __future__ import annotations

import math
from typing import Any

import pytest
from redis.connection import Connection

from app.events import Delta, Done, Event
from app.journal.encoding import encode
from app.journal.redis import keys
from app.journal.redis.entries import HEADER, Tail, append, header_of, info_of, read_header, read_tail, seconds_kept
from app.request import StreamInfo

DONE = Done("stop")


def packed(*command: str | bytes) -> bytes:
    connection: Any = Connection
    return b"".join(connection().pack_command(*command))


@pytest.mark.parametrize("events", [[Delta("Hello")], [Delta("\n\r\n\x00\u2028é𝄞"), Delta("")]])
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


def test_an_entry_of_an_adopter() -> None:
    """The id of an entry has the producer's epoch after the number."""
    key = keys.log("a" * 22)
    assert append(key, 12, b"[]", 4) == packed("XADD", key, "NOMKSTREAM", "12-4", "e", b"[]")


@pytest.mark.parametrize(
    ("last", "epoch", "claim"),
    [
        ((HEADER, [b"chunk", b"none"]), 0, b"1-1"),
        ((b"7-0", [b"e", b'["a","b"]']), 0, b"9-1"),
        ((b"9-1", [b"e", b"[]"]), 2, b"9-3"),  # a claim, after which nothing was written
        ((b"9-2", [b"e", b'["c"]']), 2, b"10-3"),
    ],
)
def test_epochs(last: Any, epoch: int, claim: bytes) -> None:
    """A claim is above all that the stream's producer may write next, and below what the adopter writes."""
    tail = read_tail([last], 0)
    assert (tail.epoch, tail.claim) == (epoch, claim)


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
    ([entry(1, A), entry(2), entry(2, B)], 0, Tail(2, [A, B])),  # with a claim
    ([entry(1, A), entry(2)], 1, Tail(1, [])),
]


@pytest.mark.parametrize(("entries", "after", "tail"), TAILS)
def test_tails(entries: list[Any], after: int, tail: Tail) -> None:
    """The last entries say which records are newer, whether some are missing before them, and how the log ended."""
    assert read_tail(entries, after) == tail
