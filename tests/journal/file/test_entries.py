"""What batches hold, and what they add up to."""

from __future__ import annotations

import math

import orjson
import pytest

from app.events import Delta, Done, Event
from app.journal.encoding import decode, pack
from app.journal.file.entries import Identity, Tail, digest, fold, pack_info, unpack_info
from app.request import StreamInfo

DONE = Done("stop")
A, B, C, D = map(Delta, "abcd")
IDENTITY = Identity(pack_info(StreamInfo("none", "ann")), b"label", b"claim", b"print")


def batch(*entries: list[object]) -> bytes:
    return orjson.dumps(entries)


def folded(*batches: bytes, moved: int = 0) -> Tail | None:
    """Return what *batches* say of the stream "s", of which so many records were moved before."""
    tails = {"s": Tail(IDENTITY, moved)} if moved else {}
    removed: set[str] = set()
    for each in batches:
        fold(each, tails, removed)
    return tails.get("s")


def records(first: int, *events: Event) -> bytes:
    return batch(["s", first, pack(events)])


BEGUN = batch(IDENTITY.entry("s"))


@pytest.mark.parametrize(
    ("batches", "moved", "events", "gap"),
    [
        ([BEGUN], 0, [], False),
        ([BEGUN, records(1, A), records(2, B, C)], 0, [A, B, C], False),
        ([BEGUN, records(1, A, B, C), records(2, D)], 0, [A, D], False),  # it was given up while more was under way
        ([BEGUN, records(1, A), records(3, C)], 0, [A, C], True),
        ([records(1, A), records(2, B), records(3, C)], 2, [C], False),
        ([records(1, A, B, C)], 2, [C], False),
        ([BEGUN, records(1, A), records(2, B)], 2, [], False),
        ([records(4, D)], 2, [D], True),
    ],
)
def test_records(batches: list[bytes], moved: int, events: list[Event], gap: bool) -> None:
    """Entries add up to what was not moved; one that does not follow replaces, and a missing one is noticed."""
    tail = folded(*batches, moved=moved)
    assert tail is not None
    found = [event for first, data in tail.rows() for event in decode(data)]
    assert (found, tail.gap, tail.identity) == (events, gap, IDENTITY)
    if not gap:
        assert tail.last == moved + len(events)


def test_the_end() -> None:
    """A terminal record is an end, and nothing else is."""
    tail = folded(BEGUN, records(1, A, DONE))
    assert tail is not None and tail.ending == DONE
    tail = folded(BEGUN, records(1, A))
    assert tail is not None and tail.ending is None


def test_rows() -> None:
    """A long stream is kept in rows of a bounded number of records."""
    tail = folded(BEGUN, records(1, *[A] * 1200))
    assert tail is not None
    assert [(first, len(decode(data))) for first, data in tail.rows()] == [(1, 512), (513, 512), (1025, 176)]


def test_removed() -> None:
    """A stream that was removed does not come back, whatever was written of it then."""
    assert folded(BEGUN, records(1, A), batch(["s", -1]), records(2, B), BEGUN) is None


def test_released() -> None:
    """A stream whose key was released has none."""
    tail = folded(BEGUN, batch(["s", -2]), records(1, A))
    assert tail is not None and tail.identity == Identity(IDENTITY.info, b"label")


@pytest.mark.parametrize("data", [b"", b"x", b"1", b"[1]", b"[[]]", b'[["s",0]]', b'[["s",0,"{}","x"]]'])
def test_no_batch(data: bytes) -> None:
    """What is no batch is a ValueError."""
    with pytest.raises(ValueError):
        fold(data, {}, set())


@pytest.mark.parametrize(
    "info", [StreamInfo("none"), StreamInfo("size:7", "\udcff\0é", 1 << 40, "\udcfe", True, '{"a":"é"}', 12.5, "m", 9)]
)
def test_infos(info: StreamInfo) -> None:
    """What a stream was created with comes back, whatever its owner is called."""
    assert unpack_info(pack_info(info)) == info
    assert pack_info(info).isascii()


def test_an_info_of_an_earlier_version() -> None:
    """Fields that it did not know are as usual."""
    assert unpack_info('["none", "ann"]') == StreamInfo("none", "ann", keep=math.inf)


def test_digests() -> None:
    """No two pairs of an owner and a name share a digest."""
    pairs = [("a", "bc"), ("ab", "c"), ("", "abc"), ("1:a", "bc"), ("\udcff", "")]
    assert len({digest(*pair) for pair in pairs}) == len(pairs)
