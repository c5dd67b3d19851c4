"""Blocks and their positions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from app.events import EventId
from app.wire.json import dumps


def data_block(content: object) -> bytes:
    """Return a block without a name that has *content* as its data, up to the line end before its id."""
    return b"data: " + dumps(content)


def places(count: int, first: int, last: int) -> list[bytes]:
    """Return where each of *count* events is in a stream, if they are the records from *first* to *last*.

    The last event has the number of the last record. An event before it has that of the first record and its own place
    among the events: a reader that comes back with it gets all of the text, even if it is no longer joined.
    """
    return [*(b"%d.%d" % (first, place) for place in range(1, count)), *([b"%d" % last] if count else ())]


def numbered(blocks: Sequence[bytes], prefix: bytes, first: int, last: int) -> bytes:
    """Return *blocks*, which are the events of the records from *first* to *last*, with their ids at their ends.

    *prefix* comes before each place.
    """
    ids = places(len(blocks), first, last)
    return b"".join([b"%s%s%s\n\n" % (block, prefix, at) for block, at in zip(blocks, ids, strict=True)])


def after(pieces: Iterable[tuple[bytes, bool]], position: EventId) -> Iterator[tuple[bytes, bool]]:
    """Yield the *pieces* of an encoder, which begin with the record of *position*, without the blocks up to that.

    A position of a dialect in which that record is more blocks stands before the last one here.
    """
    known = 0
    for data, more in pieces:
        start = 0
        while known < position.place:
            end = data.find(b"\n\n", start) + 2
            if end < 2 or not _is_at(data, start, end, b"-%d.%d\n" % (position.seq, known + 1)):
                break
            known += 1
            start = end
        yield data[start:], more


def _is_at(data: bytes, start: int, end: int, place: bytes) -> bool:
    """Whether the id of a block, which is its last line or its first, ends with *place*."""
    first = data.find(b"\n", start, end) + 1
    return data.endswith(place, start, end - 1) or data.endswith(place, start, first)
