"""What is read from the database of a journal on disk: each function is one look, and blocks."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from app.journal import Listed
from app.journal.file.database import STREAM
from app.journal.file.entries import unpack_info
from app.request import StreamInfo

_ROWS_AT_ONCE = 8
_FIND = "SELECT number, info, state, last FROM streams WHERE id = ? AND "


class Kept(NamedTuple):
    """A stream that was moved: its *id*, its *number* in the database, and the number of its *last* record."""

    id: str
    number: int
    info: StreamInfo
    state: str
    last: int


def find(connection: sqlite3.Connection, stream_id: str, now: float) -> Kept | None:
    """Return a stream that has ended, or None."""
    return _kept(stream_id, connection.execute(_FIND + "expires > ?", (stream_id, now)))


def live(connection: sqlite3.Connection, stream_id: str) -> Kept | None:
    """Return a stream that the last process left live, or None. One that is live in this process may lack records."""
    return _kept(stream_id, connection.execute(_FIND + "state = 'live'", (stream_id,)))


def _kept(stream_id: str, found: sqlite3.Cursor) -> Kept | None:
    for number, info, state, last in found:
        return Kept(stream_id, number, unpack_info(info), state, last)
    return None


def rows(connection: sqlite3.Connection, kept: Kept, after: int) -> list[tuple[int, bytes]]:
    """Return the next rows of a stream after record *after*: the number of the first record, and a batch, of each.

    There are none if the stream is gone since. Another stream may have its number then.
    """
    begin, end = kept.number * STREAM, (kept.number + 1) * STREAM
    return connection.execute(
        "SELECT key - ?, data FROM records WHERE key > ? AND key < ? "
        "AND EXISTS (SELECT 1 FROM streams WHERE number = ? AND id = ?) ORDER BY key LIMIT ?",
        (begin, begin + after, end, kept.number, kept.id, _ROWS_AT_ONCE),
    ).fetchall()


def claimed(connection: sqlite3.Connection, claim: bytes, now: float) -> tuple[str, bytes] | None:
    """Return the stream that has an idempotency key, and the fingerprint of the body that came with it."""
    query = "SELECT id, fingerprint FROM streams WHERE claim = ? AND expires > ?"
    found: tuple[str, bytes] | None = connection.execute(query, (claim, now)).fetchone()
    return found


def labelled(connection: sqlite3.Connection, label: bytes, now: float) -> tuple[int, str] | None:
    """Return when the newest stream with a label was created, and the stream."""
    query = "SELECT created, id FROM streams WHERE label = ? AND expires > ? ORDER BY created DESC LIMIT 1"
    found: tuple[int, str] | None = connection.execute(query, (label, now)).fetchone()
    return found


def listed(connection: sqlite3.Connection, owner: bytes, limit: int, before: int | None, now: float) -> list[Listed]:
    """Return the *owner*'s streams that have ended, newest first, *limit* of them at most."""
    found = connection.execute(
        "SELECT id, info, state, last FROM streams WHERE owner = ? AND created < ? AND expires > ? "
        "ORDER BY created DESC LIMIT ?",
        (owner, (1 << 63) - 1 if before is None else before, now, limit),
    )
    return [
        Listed(stream_id, unpack_info(info), "error" if state == "lost" else state, last)
        for stream_id, info, state, last in found
    ]
