"""The database of a journal on disk, as one thread writes it.

What is live is a log of batches: each commit appends one row with what many streams had to write, so that a commit
costs one page, however many streams are in it. What has ended is a stream with its records, in few rows. A stream is
moved from the first form to the second shortly after its end, and a long one in between; a batch of which everything
was moved is deleted. What is deleted is overwritten with zeros.

The methods block, and raise sqlite3.Error where the disk is full or broken; what such a call was to write is not
written then.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from app.journal import Bounds, JournalRefused
from app.journal.file.folder import Mark
from app.journal.file.reserve import Reserve
from app.journal.file.sums import Sums

APPLICATION = 0x63737365
"""What SQLite's header says of the program that made the file: "csse"."""
VERSION = 1
# What an entry of a batch says besides records, in place of the number of the first one.
CREATED, REMOVED, RELEASED, NOTED = 0, -1, -2, -3

STREAM = 1 << 32
"""The key of a row of records is the stream's number times this, plus the number of the row's first record.

One number for both lets SQLite keep a row in one page, where a key of two columns takes a second page.
"""

# An owner is an account, as bytes. `label` and `claim` are digests (see `entries.digest`). `state` is live, done, error
# or lost; `ended` and `expires` are in seconds since the epoch. A live stream may have a `note` (see `Writer.note`).
_SCHEMA = f"""
PRAGMA auto_vacuum = INCREMENTAL;
CREATE TABLE batches (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE streams (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, owner BLOB NOT NULL, created INTEGER NOT NULL,
    info TEXT NOT NULL, label BLOB, claim BLOB, fingerprint BLOB, last INTEGER NOT NULL, size INTEGER NOT NULL,
    state TEXT NOT NULL, ended REAL, expires REAL, note TEXT
);
CREATE INDEX streams_by_owner ON streams (owner, created);
CREATE INDEX streams_by_end ON streams (owner, ended, size) WHERE ended IS NOT NULL;
CREATE INDEX streams_by_expiry ON streams (expires) WHERE expires IS NOT NULL;
CREATE INDEX streams_by_claim ON streams (claim) WHERE claim IS NOT NULL;
CREATE INDEX streams_by_label ON streams (label, created) WHERE label IS NOT NULL;
CREATE TABLE records (key INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE accounts (account TEXT PRIMARY KEY, spent INTEGER NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""
# SQLite's header: the user's version and the application's id, after what every database begins with.
_MAGIC = b"SQLite format 3\0"
_HEADER = struct.Struct(">60xi4xi")
# How many rows are deleted in one transaction, so that the commits between two of them do not wait long.
_BATCHES_AT_ONCE = 256
_STREAMS_AT_ONCE = 64
# How many pages are given back to the file system in one transaction; and how many stay for what is written next.
_PAGES_AT_ONCE = 256
_SPARE_PAGES = 1024
# On a full disk, what is deleted takes as much room in SQLite's log until the next checkpoint. Where that is too much,
# less is deleted at once. Each amount is deleted so many times at most before the next one is tried.
_STREAMS_ON_A_FULL_DISK = (8, 1)
_ROWS_ON_A_FULL_DISK = (16, 1)
_BATCHES_ON_A_FULL_DISK = (_BATCHES_AT_ONCE, 16, 1)
_PAGES_ON_A_FULL_DISK = (_PAGES_AT_ONCE, 16, 1)
_TURNS_ON_A_FULL_DISK = 16


class Move(NamedTuple):
    """What is known of a stream and was not moved yet.

    *rows* are the numbers of first records, and batches as `encode` returns them; *last* is the number of the last
    record in them. *ended* and *expires* are None as long as the stream is live.
    """

    id: str
    owner: bytes
    created: int
    info: str
    label: bytes | None
    claim: bytes | None
    fingerprint: bytes | None
    note: str | None
    rows: Sequence[tuple[int, bytes]]
    last: int
    state: str = "live"
    ended: float | None = None
    expires: float | None = None


class Gone(NamedTuple):
    """A stream that is no longer kept, and why: `time`, `count` or `memory`."""

    id: str
    reason: str


def connect(path: Path, *, durable: bool) -> sqlite3.Connection:
    """Return a connection for one thread. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        set_level(connection, durable=durable)
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # `Keeper` decides when, because that waits for the disk
        connection.execute("PRAGMA temp_store = MEMORY")
    except BaseException:
        connection.close()
        raise
    return connection


def set_level(connection: sqlite3.Connection, *, durable: bool) -> None:
    """Have each commit written to the file; if *durable*, have it on the disk, too."""
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")


def check_header(path: Path) -> None:
    """Raise JournalRefused unless the file is a database of this version of the service. Nothing is written to it."""
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        raise JournalRefused(f"{path} is not a database")
    version, application = _HEADER.unpack(header)
    if application != APPLICATION:
        raise JournalRefused(f"{path} is another program's database")
    if version != VERSION:
        age = "a newer" if version > VERSION else "an older"
        raise JournalRefused(f"{path} was written by {age} version of chat-sse")


def _make(path: Path) -> None:
    """Make an empty database. A process that is killed meanwhile leaves none."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its other files the same mode
    with closing(sqlite3.connect(new, isolation_level=None)) as connection:
        connection.executescript(_SCHEMA)
    new.replace(path)


class Database:
    """The streams in the file at *path*, within *bounds*."""

    def __init__(self, path: Path, mark: Mark, bounds: Bounds, *, durable: bool) -> None:
        self._path = path
        self._mark = mark
        self._bounds = bounds
        self._durable = durable
        self._sums = Sums()  # of ended streams
        self._counted: list[tuple[bytes, int, int]] = []  # in this transaction
        self._first = 1  # the first batch that may be there
        self._empty = 0  # the empty batch that `clear` wrote last
        self.last = 0
        self.erased = False  # whether something was deleted since the last checkpoint
        self.connection: sqlite3.Connection

    def open(self) -> None:
        """Open the file, or make it. Raises JournalRefused, with what is wrong with it, sqlite3.Error or OSError."""
        if self._path.exists():
            check_header(self._path)
        else:
            _make(self._path)
        try:
            self.connection = connect(self._path, durable=self._durable)
            try:
                self._read()
            except BaseException:
                self.connection.close()
                raise
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            raise JournalRefused(f"{self._path} is damaged") from None

    def _read(self) -> None:
        """Read how much is in the file."""
        columns = {name for _, name, *_ in self.connection.execute("PRAGMA table_info(streams)")}
        if "note" not in columns:  # the first builds kept none
            self.connection.execute("ALTER TABLE streams ADD COLUMN note TEXT")
        [(first, last)] = self.connection.execute("SELECT min(id), max(id) FROM batches")
        self._first, self.last = first or 1, last or 0
        self._sums = Sums()
        for owner, count, size in self.connection.execute(
            "SELECT owner, count(*), sum(size) FROM streams WHERE ended IS NOT NULL GROUP BY owner"
        ):
            self._sums.add(owner, count, size)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all that the block writes, or nothing of it."""
        before = self.last, self._first, self._empty
        self._counted.clear()
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            self.last, self._first, self._empty = before
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            for owner, count, size in self._counted:
                self._sums.add(owner, -count, -size)
            raise
        self._mark.set(self.last)

    def commit(self, data: bytes, accounts: Sequence[tuple[str, int, float]] = ()) -> int:
        """Write a batch, and what accounts have spent, and return the batch's number."""
        if accounts:
            with self.transaction():
                self._insert(data)
                self.connection.executemany("INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)", accounts)
        else:
            self._insert(data)
            self._mark.set(self.last)
        return self.last

    def _insert(self, data: bytes) -> None:
        self.connection.execute("INSERT INTO batches (id, data) VALUES (?, ?)", (self.last + 1, data))
        self.last += 1

    def move(self, move: Move) -> list[Gone]:
        """Write the records of *move*, and return the streams that had to go for it."""
        with self.transaction():
            self.put(move)
            return self.make_room() if move.ended is not None else []

    def put(self, move: Move) -> None:
        """Write the records of *move*, within a transaction, and count them if the stream has ended."""
        live = move.ended is None
        size = sum(len(data) for _, data in move.rows)
        self.connection.execute(
            "INSERT INTO streams (id, owner, created, info, label, claim, fingerprint, last, size, state) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, 'live') ON CONFLICT (id) DO NOTHING",
            move[:7],  # the note follows
        )
        [(number,)] = self.connection.execute("SELECT number FROM streams WHERE id = ?", (move.id,))
        self.connection.executemany(
            "INSERT OR REPLACE INTO records VALUES (?, ?)",
            [(number * STREAM + first, data) for first, data in move.rows],
        )
        self.connection.execute(
            "UPDATE streams SET claim = ?, fingerprint = ?, note = ?, last = ?, size = size + ?, "
            "state = ?, ended = ?, expires = ? WHERE number = ?",
            (
                *(move.claim, move.fingerprint, move.note if live else None),
                *(move.last, size, move.state, move.ended, move.expires, number),
            ),
        )
        if not live:
            [(size,)] = self.connection.execute("SELECT size FROM streams WHERE number = ?", (number,))
            self._add(move.owner, 1, size)

    def remove(self, stream_id: str) -> None:
        """Keep a stream no longer. This is on the disk at once: a client was told that its answer is gone."""
        with self._on_disk(), self.transaction():
            self._note_removed(stream_id)
            self._delete("id = ?", (stream_id,), "")

    @contextmanager
    def _on_disk(self) -> Iterator[None]:
        """Have what is committed within the block survive a power loss."""
        self.connection.execute("PRAGMA synchronous = FULL")
        try:
            yield
        finally:
            set_level(self.connection, durable=self._durable)

    def release(self, stream_id: str) -> None:
        """Let the idempotency key of a stream be used again of which all was moved."""
        self.connection.execute("UPDATE streams SET claim = NULL, fingerprint = NULL WHERE id = ?", (stream_id,))

    def expire(self, now: float, at_once: int = _STREAMS_AT_ONCE) -> list[Gone]:
        """Delete streams whose time is up or for which there is no room, a bounded number, and return them."""
        [(due,)] = self.connection.execute("SELECT EXISTS (SELECT 1 FROM streams WHERE expires <= ?)", (now,))
        if not due and self._crowded() is None:
            return []
        with self.transaction():
            gone = self._delete(f"expires <= ? ORDER BY expires LIMIT {at_once}", (now,), "time")
            self._note_removed(*(stream_id for stream_id, _ in gone))
            return gone + self.make_room()

    def forget_accounts(self, now: float) -> None:
        """Delete what accounts have spent that no longer counts."""
        self.connection.execute("DELETE FROM accounts WHERE until <= ?", (now,))

    def trim(self, oldest: int, at_once: int = _BATCHES_AT_ONCE) -> bool:
        """Delete batches before number *oldest*, *at_once* of them at most; return whether more are left.

        The last number has to be known after a restart, so an empty batch takes the place of the last one.
        """
        end = min(oldest, self._first + at_once)
        if self._first >= end or self.last == self._empty:
            return False
        with self.transaction():
            if end > self.last:
                self.clear()
            else:
                self.connection.execute("DELETE FROM batches WHERE id < ?", (end,))
                self._first = end
        self.erased = True
        return end < min(oldest, self.last)

    def clear(self) -> None:
        """Delete all batches, within a transaction."""
        self._insert(b"[]")
        self.connection.execute("DELETE FROM batches WHERE id < ?", (self.last,))
        self._first = self._empty = self.last

    def checkpoint(self) -> None:
        """Move what was committed from SQLite's log into the database, and make the log empty."""
        [(busy, _, _)] = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.erased = self.erased and bool(busy)

    def close(self) -> None:
        """Close the file."""
        with suppress(sqlite3.Error):
            self.connection.close()

    def shrink(self) -> bool:
        """Give back to the file system some of the pages that hold nothing; return whether there were enough of them.

        The file is shorter after the next checkpoint. A file of the first builds does not become shorter.
        """
        [(pages,)] = self.connection.execute("PRAGMA page_count")
        return self._give_back(max(_SPARE_PAGES, pages // 4), _PAGES_AT_ONCE)

    def _give_back(self, spare: int, at_once: int) -> bool:
        """Give back pages that hold nothing, unless there are only *spare* ones; return whether that did anything."""
        [(free,)] = self.connection.execute("PRAGMA freelist_count")
        if free <= spare:
            return False
        self.connection.execute(f"PRAGMA incremental_vacuum({at_once})").fetchall()
        [(left,)] = self.connection.execute("PRAGMA freelist_count")
        self.erased = self.erased or left < free
        return bool(left < free)

    def free(self, reserve: Reserve, now: float, oldest: int) -> list[Gone]:
        """Free what can be freed on a full disk, and return the streams that have gone; see `expire` and `trim`.

        Each step takes some room, and the *reserve* is that. It is a single call, so that no batch comes in between and
        takes it.
        """
        gone: list[Gone] = []

        def expire(at_once: int) -> bool:
            expired = self.expire(now, at_once)
            gone.extend(expired)
            return bool(expired)

        steps: list[Callable[[], bool]] = [partial(expire, at_once) for at_once in _STREAMS_ON_A_FULL_DISK]
        steps += [partial(self._erase, now, at_once) for at_once in _ROWS_ON_A_FULL_DISK]
        steps += [partial(self.trim, oldest, at_once) for at_once in _BATCHES_ON_A_FULL_DISK]
        steps += [partial(self._give_back, 0, at_once) for at_once in _PAGES_ON_A_FULL_DISK]
        reserve.empty()
        self._checkpoint_if_possible()
        for step in steps:
            for _ in range(_TURNS_ON_A_FULL_DISK):
                more = False
                with suppress(sqlite3.Error):
                    more = step()
                self._checkpoint_if_possible()
                if not more:
                    break
        reserve.fill()
        return gone

    def _checkpoint_if_possible(self) -> None:
        with suppress(sqlite3.Error):
            self.checkpoint()

    def _erase(self, now: float, at_once: int) -> bool:
        """Delete rows of the stream whose time was up first; return whether there may be more.

        It is for a stream that is too long to be deleted at once, and what is left of it is deleted as others are.
        """
        query = "SELECT number FROM streams WHERE expires <= ? ORDER BY expires LIMIT 1"
        found = self.connection.execute(query, (now,)).fetchone()
        if found is None:
            return False
        rows = (found[0] * STREAM, (found[0] + 1) * STREAM, at_once)
        query = "DELETE FROM records WHERE key IN (SELECT key FROM records WHERE key BETWEEN ? AND ? LIMIT ?)"
        with self.transaction():
            deleted = self.connection.execute(query, rows)
        self.erased = True
        return deleted.rowcount == at_once

    def make_room(self) -> list[Gone]:
        """Delete streams, within a transaction, while too much is kept, and return them: a bounded number at once.

        The owner that has most loses its oldest.
        """
        gone: list[Gone] = []
        while len(gone) < _STREAMS_AT_ONCE and (crowded := self._crowded()):
            deleted = self._delete_oldest(*crowded)
            if not deleted:
                break  # never: but a loop without an end here would hold up all writes
            gone += deleted
        if gone:
            self._note_removed(*(stream_id for stream_id, _ in gone))
        return gone

    def _crowded(self) -> tuple[bytes, str] | None:
        """Return who has to lose a stream, and why; or None if what is kept is within its bounds."""
        size, owner = self._sums.most_bytes(known=True)
        if size > self._bounds.owner:
            return owner, "memory"
        if self._sums.count > self._bounds.ended:
            return self._sums.most_streams(), "count"
        if self._sums.size > self._bounds.total:
            return self._sums.most_bytes(known=False)[1], "memory"
        return None

    def _note_removed(self, *stream_ids: str) -> None:
        """Let no batch that is still there bring the streams back at the next start."""
        self._insert(b"[%s]" % b",".join(b'["%s",%d]' % (each.encode(), REMOVED) for each in stream_ids))

    def _delete_oldest(self, owner: bytes, reason: str) -> list[Gone]:
        return self._delete("owner = ? AND ended IS NOT NULL ORDER BY ended, number LIMIT 1", (owner,), reason)

    def _delete(self, which: str, values: tuple[object, ...], reason: str) -> list[Gone]:
        """Delete streams, within a transaction."""
        query = f"SELECT number, id, owner, size, ended FROM streams WHERE {which}"  # noqa: S608 - of this module
        found = self.connection.execute(query, values).fetchall()
        for number, _, owner, size, ended in found:
            rows = (number * STREAM, (number + 1) * STREAM)
            self.connection.execute("DELETE FROM records WHERE key BETWEEN ? AND ?", rows)
            self.connection.execute("DELETE FROM streams WHERE number = ?", (number,))
            if ended is not None:
                self._add(owner, -1, -size)
            self.erased = True
        return [Gone(stream_id, reason) for _, stream_id, *_ in found]

    def _add(self, owner: bytes, count: int, size: int) -> None:
        self._sums.add(owner, count, size)
        self._counted.append((owner, count, size))
