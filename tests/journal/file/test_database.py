"""The database of a journal on disk: what the file is, and what a write that fails leaves."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.journal import JournalRefused
from app.journal.file.database import _SCHEMA, APPLICATION, VERSION, Database, Move, check_header, connect
from app.journal.file.folder import Mark
from app.journal.file.reserve import NAME, Reserve
from tests.journal.processes import ROOMY


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Mark]:
    with closing(Mark(tmp_path)) as mark:
        yield mark


@pytest.fixture
def database(tmp_path: Path, mark: Mark) -> Iterator[Database]:
    database = Database(tmp_path / "s.sqlite3", mark, replace(ROOMY, ended=2), durable=False)
    database.open()
    yield database
    database.close()


def state_of(database: Database) -> tuple[int, ...]:
    sums = database._sums
    return database.last, sums.size, sums.count, count(database, "streams"), count(database, "records")


def move(stream_id: str, **more: Any) -> Move:
    whole = Move(stream_id, b"ann", 1, "[]", None, None, None, None, [(1, b'["x"]')], 1, "done", 1.0, 100.0)
    return whole._replace(**more)


def count(database: Database, table: str) -> int:
    [(found,)] = database.connection.execute(f"SELECT count(*) FROM {table}")
    return int(found)


@pytest.mark.parametrize(
    ("pragmas", "why"),
    [
        ({"application_id": APPLICATION, "user_version": VERSION + 1}, "was written by a newer version of chat-sse"),
        ({"application_id": APPLICATION, "user_version": 0}, "was written by an older version of chat-sse"),
        ({"application_id": 5}, "is another program's database"),
        ({}, "is another program's database"),
    ],
)
def test_other_databases(tmp_path: Path, mark: Mark, pragmas: dict[str, int], why: str) -> None:
    """A database of another program or version is refused, and is not written to."""
    path = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE t (x)")
        for name, value in pragmas.items():
            other.execute(f"PRAGMA {name} = {value}")
    before = path.read_bytes()
    with pytest.raises(JournalRefused, match=why):
        Database(path, mark, ROOMY, durable=False).open()
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"x", b"SQLite format 3\0", b"no database" * 100])
def test_no_database(tmp_path: Path, content: bytes) -> None:
    """Another file is refused, too."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(JournalRefused, match="is not a database"):
        check_header(path)


def test_damage(database: Database, tmp_path: Path, mark: Mark) -> None:
    """A database whose pages are not what they were is refused with a sentence."""
    for _ in range(200):
        database.commit(b"x" * 1000)
    database.checkpoint()
    database.close()
    data = database._path.read_bytes()
    database._path.write_bytes(data[:100] + b"\xff" * (len(data) - 100))
    with pytest.raises(JournalRefused, match="is damaged"):
        Database(database._path, mark, ROOMY, durable=False).open()


def test_a_batch(database: Database, mark: Mark) -> None:
    """Each batch has the next number, which is marked once the batch is written."""
    assert [database.commit(b"[]"), database.commit(b"[]", [("ann", 5, 9.0)])] == [1, 2]
    assert count(database, "batches") == 2
    assert database.connection.execute("SELECT * FROM accounts").fetchall() == [("ann", 5, 9.0)]


@pytest.mark.parametrize("what", ["commit", "move", "trim"])
def test_a_write_that_fails(database: Database, what: str) -> None:
    """A write that fails leaves everything as it was, and can be made again."""
    database.commit(b"[]")
    database.move(move("a"))
    pages = database.connection.execute("PRAGMA page_count").fetchone()[0]
    database.connection.execute(f"PRAGMA max_page_count = {pages}")
    before = state_of(database)
    large = b"x" * 50_000
    writes: dict[str, Callable[[], object]] = {
        "commit": lambda: database.commit(large, [("ann", 1, 1.0)]),
        "move": lambda: database.move(move("b", rows=[(1, large)])),
        "trim": lambda: database._insert(large),
    }
    with pytest.raises(sqlite3.OperationalError, match="full"):
        writes[what]()
    assert state_of(database) == before
    database.connection.execute("PRAGMA max_page_count = 100000")
    writes[what]()


def test_a_trim_that_fails(database: Database) -> None:
    """What was to be deleted when the disk refused is deleted later, although nothing else is written."""
    database.commit(b'[["s",1,["x"]]]')
    connection: Any = database.connection
    full: Any = Full(connection)
    database.connection = full
    with pytest.raises(sqlite3.OperationalError, match="full"):
        database.trim(2)
    database.connection = connection
    database.commit(b'[["s",2,["y"]]]')
    while database.trim(3):
        pass
    assert connection.execute("SELECT data FROM batches").fetchall() == [(b"[]",)]


class Wrapped:
    """A connection of which a subclass replaces a method."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


class Full(Wrapped):
    """A connection to a disk that is full at the end of each transaction."""

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement == "COMMIT":
            raise sqlite3.OperationalError("database or disk is full")
        return self._connection.execute(statement, *values)


def test_a_stream_in_parts(database: Database) -> None:
    """A stream may be moved in parts, and counts once it has ended; the oldest go when there are too many."""
    database.move(move("a", state="live", ended=None, expires=None))
    assert (database._sums.count, database._sums.size) == (0, 0)
    assert database.move(move("a", rows=[(2, b'["y","z"]')], last=3)) == []
    assert (database._sums.count, database._sums.size) == (1, len(b'["x"]') + len(b'["y","z"]'))
    assert database.move(move("b", ended=2.0)) == []
    assert database.move(move("c", ended=3.0)) == [("a", "count")]
    assert count(database, "records") == 2


def test_trimming(database: Database) -> None:
    """Batches are deleted in parts; the last number stays known, and an empty database is not written to."""
    for _ in range(600):
        database.commit(b'[["s",1,["x"]]]')
    assert [database.trim(500), database.trim(500), database.trim(500)] == [True, False, False]
    assert database.connection.execute("SELECT min(id), max(id) FROM batches").fetchone() == (500, 600)
    while database.trim(601):
        pass
    assert database.connection.execute("SELECT id, data FROM batches").fetchall() == [(601, b"[]")]
    assert (database.trim(602), database.last) == (False, 601)
    assert database.commit(b"[]") == 602


def test_room(database: Database) -> None:
    """What one turn deletes is bounded; the next turns go on."""
    for number in range(150):
        database.put(move(f"s{number}", ended=float(number)))
    turns = []
    while gone := database.expire(0.0):
        turns.append(len(gone))
    assert (turns, database._sums.count) == ([64, 64, 20], 2)


def test_a_full_disk(database: Database, tmp_path: Path) -> None:
    """What has expired is deleted although there is no room for anything, and then there is some."""
    large = bytes(500_000)
    database.move(move("a", rows=[(1, large)]))
    [(pages,)] = database.connection.execute("PRAGMA page_count")
    database.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        database.move(move("b", rows=[(1, large)]))
    with closing(Reserve(tmp_path)) as reserve:
        reserve.fill()
        assert database.free(reserve, 99.0, 1) == []
        assert database.free(reserve, 100.0, 1) == [("a", "time")]
        assert (tmp_path / NAME).stat().st_size == reserve.size
    assert database.move(move("b", rows=[(1, large)])) == []


class Little(Wrapped):
    """A connection to a disk that has room to delete one row at once."""

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        before = self._connection.total_changes
        done = self._connection.execute(statement, *values)
        if statement.startswith("DELETE FROM records") and self._connection.total_changes > before + 1:
            raise sqlite3.OperationalError("database or disk is full")
        return done


def test_a_long_stream_on_a_full_disk(database: Database, tmp_path: Path) -> None:
    """A stream that there is no room to delete at once is deleted row by row."""
    database.move(move("a", rows=[(1 + number, b"[]") for number in range(20)]))
    little: Any = Little(database.connection)
    database.connection = little
    with closing(Reserve(tmp_path)) as reserve:
        assert [database.free(reserve, 100.0, 1) for _ in range(3)] == [[], [], [("a", "time")]]
    assert (count(database, "records"), count(database, "streams"), database._sums.count) == (0, 0, 0)


def test_accounts(database: Database) -> None:
    """What was spent is forgotten when its day is over."""
    database.commit(b"[]", [("ann", 5, 9.0), ("bob", 5, 10.0)])
    database.forget_accounts(9.0)
    assert database.connection.execute("SELECT account FROM accounts").fetchall() == [("bob",)]


def test_shrinking(database: Database) -> None:
    """The file gives back what is not used any longer, in parts, and keeps some for what comes next."""
    database.move(move("a", rows=[(1, bytes(20 << 20))]))
    database.checkpoint()
    large = database._path.stat().st_size
    assert not database.shrink()
    database.remove("a")
    parts = 0
    while database.shrink():
        parts += 1
    database.checkpoint()
    assert parts >= 15
    assert 2 << 20 < database._path.stat().st_size < large / 3


def test_a_file_that_does_not_shrink(tmp_path: Path, mark: Mark, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database of the first builds keeps its size, and the keeper stops trying at once."""
    monkeypatch.setattr(
        "app.journal.file.database._SCHEMA", _SCHEMA.replace("auto_vacuum = INCREMENTAL", "auto_vacuum = NONE")
    )
    database = Database(tmp_path / "old.sqlite3", mark, ROOMY, durable=False)
    database.open()
    database.move(move("a", rows=[(1, bytes(20 << 20))]))
    database.remove("a")
    database.checkpoint()
    assert (database.shrink(), database.erased) == (False, False)
    database.close()


def test_a_removal_is_on_the_disk(database: Database) -> None:
    """A removal waits for the disk, even where a commit does not; the next commit does not wait either."""
    database.move(move("a"))
    statements: list[str] = []
    database.connection.set_trace_callback(statements.append)
    database.remove("a")
    levels = [statement for statement in statements if "synchronous" in statement or statement == "COMMIT"]
    assert levels == ["PRAGMA synchronous = FULL", "COMMIT", "PRAGMA synchronous = NORMAL"]


def test_expiry(database: Database) -> None:
    """What expires is deleted, and said."""
    database.move(move("a"))
    assert database.expire(99.0) == []
    assert database.expire(100.0) == [("a", "time")]
    assert (count(database, "streams"), count(database, "records")) == (0, 0)


@pytest.mark.parametrize(("durable", "level"), [(False, 1), (True, 2)])
def test_durability(tmp_path: Path, durable: bool, level: int) -> None:
    """A commit that is to survive a power loss waits for the disk, and no other does."""
    with closing(connect(tmp_path / "s", durable=durable)) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        with suppress(sqlite3.OperationalError):
            assert connection.execute("PRAGMA secure_delete").fetchone() == (1,)


def test_a_database_without_notes(database: Database, mark: Mark) -> None:
    """A database of the first builds, which kept no notes, is taken, and keeps them from then on."""
    database.connection.execute("ALTER TABLE streams DROP COLUMN note")
    database.close()
    for _ in range(2):
        again = Database(database._path, mark, ROOMY, durable=False)
        again.open()
        again.move(move("s", state="live", ended=None, expires=None, note="n"))
        assert again.connection.execute("SELECT note FROM streams").fetchall() == [("n",)]
        again.close()
