"""What is read of streams that are kept on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.journal import Listed
from app.journal.file import reading
from app.journal.file.database import Database
from app.journal.file.entries import pack_info
from app.journal.file.folder import Mark
from app.request import StreamInfo
from tests.journal.file.test_database import move
from tests.journal.processes import ROOMY

INFO = StreamInfo("none", "ann", created=1)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Mark(tmp_path)) as mark:
        database = Database(tmp_path / "s.sqlite3", mark, ROOMY, durable=False)
        database.open()
        for number, (stream_id, state) in enumerate([("a", "done"), ("b", "lost"), ("c", "error")], 1):
            database.move(
                move(
                    stream_id,
                    info=pack_info(INFO),
                    created=number,
                    state=state,
                    expires=100.0 + number,
                    label=b"l",
                    claim=b"k%d" % number,
                    fingerprint=b"f",
                    rows=[(1 + 2 * row, b'["x","y"]') for row in range(20)],
                    last=40,
                )
            )
        database.move(move("live", info=pack_info(INFO), state="live", ended=None, expires=None))
        yield database
        database.close()


def test_a_stream(database: Database) -> None:
    """A stream is found until its time is up; one that is live has no time yet."""
    found = reading.find(database.connection, "b", 101.9)
    assert found is not None and (found.id, *found[2:]) == ("b", INFO, "lost", 40)
    for stream_id, now in (("b", 102.0), ("live", 1.0), ("unknown", 1.0)):
        assert reading.find(database.connection, stream_id, now) is None


def test_rows(database: Database) -> None:
    """Rows come in order, some at a time."""
    found = reading.find(database.connection, "a", 1.0)
    assert found is not None
    firsts: list[int] = []
    while rows := reading.rows(database.connection, found, firsts[-1] if firsts else 0):
        firsts += [first for first, _ in rows]
        assert len(rows) <= 8
    assert firsts == list(range(1, 41, 2))


def test_a_number_that_is_used_again(database: Database) -> None:
    """Who reads a stream that is removed meanwhile gets nothing of the stream that takes its number."""
    database.move(move("old", info=pack_info(INFO)))
    found = reading.find(database.connection, "old", 1.0)
    assert found is not None and reading.rows(database.connection, found, 0) == [(1, b'["x"]')]
    database.remove("old")
    database.move(move("new", info=pack_info(INFO)))
    taken = reading.find(database.connection, "new", 1.0)
    assert taken is not None and taken.number == found.number
    assert reading.rows(database.connection, found, 0) == []


def test_a_key_and_a_label(database: Database) -> None:
    """Both stand for a stream that is kept; a label for the newest one."""
    assert reading.claimed(database.connection, b"k2", 1.0) == ("b", b"f")
    assert reading.claimed(database.connection, b"k2", 102.0) is None
    assert reading.labelled(database.connection, b"l", 1.0) == (3, "c")
    assert reading.labelled(database.connection, b"m", 1.0) is None


def test_a_list(database: Database) -> None:
    """An owner's streams are listed, newest first; one that is lost has ended with an error."""
    listed = [Listed("c", INFO, "error", 40), Listed("b", INFO, "error", 40), Listed("a", INFO, "done", 40)]
    assert reading.listed(database.connection, b"ann", 9, None, 1.0) == listed
    assert reading.listed(database.connection, b"ann", 2, None, 1.0) == listed[:2]
    assert reading.listed(database.connection, b"ann", 9, 3, 1.0) == listed[1:]
    assert reading.listed(database.connection, b"ann", 9, None, 101.5) == listed[:2]
    assert reading.listed(database.connection, b"bob", 9, None, 1.0) == []
