"""A stream's log in Redis: its header, and its entries, each a batch of events.

The id of an entry is the number of its first record and, after the dash, the epoch of its producer: 0 for the process
that began the stream, and two more for each that has adopted it. To adopt a stream is to append an entry without
records, the claim, whose epoch is one lower than the new producer's. Redis takes no id that is not above the last one,
so the former producer can append nothing after a claim.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import ResponseError

from app.events import TERMINAL, Event, Terminal
from app.journal.encoding import decode
from app.journal.redis.client import Command
from app.request import StreamInfo

HEADER = b"0-1"
"""The id of the entry before record 1, which says what the stream was created with."""
MOST_ENTRIES = 1000
"""How many entries are read at once."""


def append(key: bytes, first: int, data: bytes, epoch: int = 0) -> bytes:
    """Return the command that appends an entry, the number of its first record being *first*, to an existing log.

    The command is sent for nearly every delta: these are the bytes that redis-py would send, at a tenth of the price.
    """
    entry_id = b"%d-%d" % (first, epoch)
    return b"*6\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n$10\r\nNOMKSTREAM\r\n$%d\r\n%b\r\n$1\r\ne\r\n$%d\r\n%b\r\n" % (
        len(key),
        key,
        len(entry_id),
        entry_id,
        len(data),
        data,
    )


def is_taken(reply: Any) -> bool:
    """Whether *reply* to `append` says that the entry cannot be: another one has its number, or the log is gone."""
    return reply is None or (isinstance(reply, ResponseError) and "equal or smaller" in str(reply))


def begin(key: bytes, header: Mapping[bytes, bytes], seconds: int) -> list[Command]:
    """Return the commands that begin a log, which is kept for *seconds*, unless it has a time already."""
    fields = [part for item in header.items() for part in item]
    return [("XADD", key, HEADER, *fields), ("EXPIRE", key, seconds, "NX")]


def header_of(info: StreamInfo, process: str) -> dict[bytes, bytes]:
    """Return the fields of the header of a stream that *process* produces."""
    return {
        b"chunk": info.chunk.encode(),
        b"account": info.owner.encode(),
        b"readers": b"%d" % info.readers,
        b"label": info.label.encode(),
        b"usage": b"%d" % info.include_usage,
        b"asked": info.asked.encode(),
        b"keep": str(info.keep).encode(),
        b"model": info.model.encode(),
        b"created": b"%d" % info.created,
        b"metadata": info.metadata.encode(),
        b"process": process.encode(),
    }


# What a header has at least. Those of the first builds have the owner's plain name, and no account.
_FIELDS = header_of(StreamInfo(""), "").keys()


def seconds_kept(info: StreamInfo, keep: int) -> int:
    """Return how many seconds an ended log stays in Redis: one at least, and *keep* at most."""
    return max(1, round(min(keep, info.keep)))


def read_header(entry: Any) -> dict[bytes, bytes]:
    """Return the fields of a header as Redis gives it. Raises ValueError if it is not this service's."""
    _, flat = entry
    header = dict(zip(flat[::2], flat[1::2], strict=True))
    if not header.keys() >= _FIELDS:
        raise ValueError("not the header of a log")
    return header


def info_of(header: dict[bytes, bytes]) -> StreamInfo:
    """Return what the stream was created with. Raises ValueError."""
    return StreamInfo(
        header[b"chunk"].decode(),
        header[b"account"].decode(),
        int(header[b"readers"]),
        header[b"label"].decode(),
        header[b"usage"] == b"1",
        header[b"asked"].decode(),
        float(header[b"keep"]),
        header[b"model"].decode(),
        int(header[b"created"]),
        header[b"metadata"].decode(),
    )


def read_entry(entry: Any) -> tuple[int, list[Event]]:
    """Return the number of an entry's first record, and its records; of the header, 1 and none. Raises ValueError."""
    entry_id, fields = entry
    if entry_id == HEADER:
        return 1, []
    if len(fields) != 2:
        raise ValueError("not an entry of a log")
    return int(entry_id.partition(b"-")[0]), decode(fields[1])


@dataclass(frozen=True, slots=True)
class Tail:
    """What a log in Redis has after a record that the reader names.

    *last* is the number of its last record, also if that is not after the named one, and *ending* that record if it is
    terminal. *newer* are the records after the named one. If records are missing between the two, *gap* is true, and
    *newer* has none. *entry* is the id of the last entry.
    """

    last: int
    newer: list[Event]
    ending: Terminal | None = None
    gap: bool = False
    entry: bytes = field(default=HEADER, compare=False)

    @property
    def epoch(self) -> int:
        """The epoch of the stream's producer."""
        return 0 if self.entry == HEADER else -(-int(self.entry.partition(b"-")[2]) // 2) * 2

    @property
    def claim(self) -> bytes:
        """The id of the entry with which another process claims the stream."""
        return b"%d-%d" % (self.last + 1, self.epoch + 1)


def read_tail(entries: Sequence[Any], after: int) -> Tail:
    """Return what the last *entries* of a log say of its tail after record *after*. Raises ValueError."""
    last = 0
    newer: list[Event] = []
    ending = None
    gap = False
    for entry in entries:
        first, events = read_entry(entry)
        known = after + len(newer)
        gap = gap or first > known + 1
        newer += events[max(0, known + 1 - first) :]
        last = first + len(events) - 1
        ending = events[-1] if events and isinstance(events[-1], TERMINAL) else None
    return Tail(last, [] if gap else newer, ending, gap, entries[-1][0] if entries else HEADER)


async def entries_after(execute: Callable[..., Awaitable[list[Any]]], key: bytes, after: int) -> Tail | None:
    """Return the tail of the log at *key* after record *after*, up to `MOST_ENTRIES` entries; None if the log is gone.

    *execute* sends commands to Redis. Raises what that raises, or ValueError.
    """
    # The entry with the next record may begin before it: a log that was written again is divided in other places.
    next_id = b"%d-0" % (after + 1)
    [found] = await execute(("XREVRANGE", key, next_id, HEADER, "COUNT", 1))
    start = found[0][0] if found else next_id
    [entries] = await execute(("XRANGE", key, start, "+", "COUNT", MOST_ENTRIES))
    return read_tail(entries, after) if entries else None
