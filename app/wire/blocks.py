"""Blocks and their positions."""

from __future__ import annotations

from collections.abc import Sequence

from app.events import EventId
from app.wire.json import dumps


def data_block(content: object) -> bytes:
    """Return a block without a name that has *content* as its data, up to the line end before its id."""
    return b"data: " + dumps(content)


def numbered(blocks: Sequence[bytes], prefix: bytes, first: int, last: int) -> bytes:
    """Return *blocks*, which are the events of the records from *first* to *last*, with their ids.

    *prefix* comes before each position. The last event has the position of the last record. An event before it has that
    of the first record and its own place among the events: a reader that comes back with it gets all of the text, even
    if it is no longer joined.
    """
    ids = [b"%d.%d" % (first, place) for place in range(1, len(blocks))]
    return b"".join(
        [b"%s%s%s\n\n" % (block, prefix, at) for block, at in zip(blocks, [*ids, b"%d" % last], strict=False)]
    )


def after(data: bytes, position: EventId) -> bytes:
    """Return *data*, which begins with the record that *position* is in, without the blocks up to it.

    A position of a dialect in which that record is more blocks stands before the last one here.
    """
    blocks = data.split(b"\n\n")
    known = 0
    while known < position.place and blocks[known].endswith(b"-%d.%d" % (position.seq, known + 1)):
        known += 1
    return b"\n\n".join(blocks[known:])
