"""What processes tell one another: one JSON array per publication, its first element the version of the messages.

A process has one channel, its inbox. A publication may be lost, and then the logs in Redis say what it said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from app.events import Event
from app.journal.encoding import unpack

VERSION = 1


@dataclass(slots=True)
class Records:
    """Records of a stream that the receiver follows, the first of them number *first*. Redis has them.

    Not `frozen`, which would double the price of an object that is made for nearly every delta.
    """

    stream_id: str
    first: int
    events: list[Event]


@dataclass(frozen=True, slots=True)
class Following:
    """*process* follows these streams of the receiver's, with readers (true) or without; null: no longer."""

    process: str
    streams: Mapping[str, bool | None]


@dataclass(frozen=True, slots=True)
class Positions:
    """The number of the last record that Redis has of each of these streams; -1: the sender has no such live stream."""

    last: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Cancel:
    """A client wishes the end of a stream of the receiver's."""

    stream_id: str


Message = Records | Following | Positions | Cancel


def pack_records(stream_id: str, first: int, data: bytes) -> bytes:
    """Return `Records`; *data* are the encoded events. This is done per entry, so JSON is not encoded again."""
    return b'["records","%b",%d,%b]' % (stream_id.encode(), first, data)


def pack(message: Following | Positions | Cancel) -> bytes:
    """Return *message* as bytes."""
    match message:
        case Following(process, streams):
            return orjson.dumps(["following", process, streams])
        case Positions(last):
            return orjson.dumps(["positions", last])
        case Cancel(stream_id):
            return orjson.dumps(["cancel", stream_id])


def publish(channel: bytes, packed: Sequence[bytes] = ()) -> bytes:
    """Return the command that publishes packed messages as one, which is cheaper for the receiver than one by one.

    Without messages, a publication shows that the channel works. The command is sent for nearly every delta that
    another process reads: these are the bytes that redis-py would send, at a tenth of the price.
    """
    body = b"[%b]" % b",".join([b"%d" % VERSION, *packed])
    return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, len(body), body)


def read(body: bytes) -> list[Message]:
    """Return the messages of a publication. Raises ValueError for anything else, as another version may send it."""
    try:
        version, *items = orjson.loads(body)
        if version != VERSION:
            raise ValueError("another version")
        # Nearly all are records, which a pattern would take twice as long to read.
        return [_records(*item[1:]) if item[0] == "records" else _read(item) for item in items]
    except (TypeError, IndexError, KeyError) as error:
        raise ValueError("not a publication of this version") from error


def _records(stream_id: str, first: int, packed: list[Any]) -> Records:
    if type(stream_id) is not str or type(first) is not int:
        raise TypeError
    return Records(stream_id, first, unpack(packed))


def _read(item: Any) -> Message:
    match item:
        case ["following", str(process), dict(streams)]:
            return Following(process, streams)
        case ["positions", dict(last)] if all(type(number) is int for number in last.values()):
            return Positions(last)
        case ["cancel", str(stream_id)]:
            return Cancel(stream_id)
    raise ValueError("not a message of this version")
