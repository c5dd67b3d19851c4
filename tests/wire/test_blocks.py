"""Blocks and their positions."""

from __future__ import annotations

import pytest

from app.events import EventId
from app.wire.blocks import after, data_block, numbered

ID = "S" * 22
PREFIX = f"\nid: {ID}-".encode()


def test_data() -> None:
    """The data is JSON on one line, up to its line end."""
    assert data_block({"a": "b\nc"}) == b'data: {"a":"b\\nc"}'


@pytest.mark.parametrize(
    ("blocks", "first", "last", "positions"),
    [
        ([b"a"], 3, 3, ["3"]),
        ([b"a"], 3, 5, ["5"]),
        ([b"a", b"b", b"c"], 3, 3, ["3.1", "3.2", "3"]),
        ([b"a", b"b"], 3, 5, ["3.1", "5"]),
        ([], 3, 3, []),
    ],
)
def test_numbered(blocks: list[bytes], first: int, last: int, positions: list[str]) -> None:
    """The last event has the last record's position, and each one before it a place within the first record."""
    expected = [b"%s%s%s\n\n" % (block, PREFIX, at.encode()) for block, at in zip(blocks, positions, strict=True)]
    assert numbered(blocks, PREFIX, first, last) == b"".join(expected)


@pytest.mark.parametrize(
    ("place", "rest"),
    [(1, [b"b", b"c", b"d"]), (2, [b"c", b"d"]), (3, [b"c", b"d"]), (999, [b"c", b"d"])],
)
def test_after(place: int, rest: list[bytes]) -> None:
    """What a client has of a record is left out. A place that the record does not have here is before its last one."""
    whole = numbered([b"a", b"b", b"c"], PREFIX, 3, 3) + numbered([b"d"], PREFIX, 4, 4)
    blocks = dict(zip([b"a", b"b", b"c", b"d"], [block + b"\n\n" for block in whole.split(b"\n\n")], strict=False))
    sent = b"".join([blocks[name] for name in rest])
    assert [*after([(whole, False)], EventId(ID, 3, place))] == [(sent, False)]
    pieces = [*after([(b"", True), *((block, True) for block in blocks.values())], EventId(ID, 3, place))]
    assert b"".join(data for data, _ in pieces) == sent
    assert len(pieces) == 5


def test_after_with_ids_first() -> None:
    """A dialect may have the id before the data."""
    blocks = [b"id: %s-%s\ndata: x\n\n" % (ID.encode(), at) for at in (b"3.1", b"3.2", b"3", b"4")]
    for place, known in ((1, 1), (2, 2), (9, 2)):
        assert [*after([(b"".join(blocks), True)], EventId(ID, 3, place))] == [(b"".join(blocks[known:]), True)]


def test_after_a_record_of_one_block() -> None:
    """A record that another dialect makes several events of is sent whole."""
    whole = numbered([b"a"], PREFIX, 3, 3)
    assert [*after([(whole, False)], EventId(ID, 3, 2))] == [(whole, False)]
