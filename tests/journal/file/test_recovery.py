"""What is done at the start with what the last process left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from app.errors import JournalDown
from app.events import Delta, Done, Event, Failure
from app.journal.encoding import decode, encode, pack
from app.journal.file import reading
from app.journal.file.database import NOTED, Database
from app.journal.file.entries import Identity, pack_info
from app.journal.file.folder import Mark
from app.journal.file.given_up import GivenUp
from app.journal.file.recovery import Found, recover
from app.request import StreamInfo
from tests.growth import LINEAR, growth
from tests.journal.file.test_database import move
from tests.journal.processes import ROOMY

NOW = 1000.0
IDENTITY = Identity(pack_info(StreamInfo("none", "ann")))
A = Delta("a")


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Mark]:
    with closing(Mark(tmp_path)) as first:
        first.begin(0, durable=False)
    with closing(Mark(tmp_path)) as mark:
        yield mark


@pytest.fixture
def database(tmp_path: Path, mark: Mark) -> Iterator[Database]:
    database = Database(tmp_path / "s.sqlite3", mark, replace(ROOMY, ended=1 << 30, total=1 << 40), durable=False)
    database.open()
    yield database
    database.close()


def commit(database: Database, *entries: list[object]) -> None:
    database.commit(orjson.dumps(entries))


def recovered(database: Database, mark: Mark) -> Found:
    with closing(GivenUp(database._path.parent, durable=False)) as given_up:
        return recover(database, mark, given_up, NOW, 60, durable=False)


def state(database: Database, stream_id: str) -> tuple[str, list[object]]:
    """Return a stream's state, and its records."""
    found = reading.find(database.connection, stream_id, NOW)
    assert found is not None
    rows = reading.rows(database.connection, found, 0)
    assert sum(len(decode(data)) for _, data in rows) == found.last
    return found.state, [event for _, data in rows for event in decode(data)]


def test_states(database: Database, mark: Mark) -> None:
    """A stream that had ended has its end, and one that had not gets one; what was removed is gone."""
    commit(database, IDENTITY.entry("ended"), IDENTITY.entry("live"), IDENTITY.entry("gone"))
    commit(database, ["ended", 1, pack([A])], ["live", 1, pack([A])], ["gone", 1, pack([A])])
    commit(database, ["gone", -1], ["ended", 2, pack([Done("stop")])])
    found = recovered(database, mark)
    assert found == Found(2, [("live", 2)], [], [], [], {})
    assert state(database, "ended") == ("done", [A, Done("stop")])
    kind, events = state(database, "live")
    assert (kind, events[:1], len(events)) == ("error", [A], 2)
    assert recovered(database, mark) == Found(2, [], [], [], [], {})


@pytest.mark.parametrize("why", ["gap", "number", "batch"])
def test_what_is_lost(database: Database, mark: Mark, why: str) -> None:
    """A stream of which something is missing is lost; one that had ended is not."""
    commit(database, IDENTITY.entry("ended"), IDENTITY.entry("live"))
    commit(database, ["ended", 1, pack([Done("stop")])], ["live", 3 if why == "gap" else 1, pack([A])])
    if why == "number":
        mark.number = 3
    elif why == "batch":
        database.commit(b"no batch")
    assert recovered(database, mark) == Found(2, [], ["live"], [], [], {})
    assert state(database, "ended")[0] == "done"
    found = reading.find(database.connection, "live", NOW)
    assert found is not None and found.state == "lost"


def test_a_note(database: Database, mark: Mark) -> None:
    """A stream with a note stays live, with its last note; it is lost as any other if something is missing."""
    commit(database, IDENTITY.entry("noted"), IDENTITY.entry("ended"), IDENTITY.entry("other"))
    commit(database, ["noted", NOTED, "old"], ["ended", NOTED, "n"], ["ended", 1, pack([Done("stop")])])
    commit(database, ["noted", NOTED, "new"], ["noted", 1, pack([A])])
    noted = IDENTITY._replace(note="new")
    for expected in ([("other", 1)], []):  # and a second time, out of the database alone
        found = recovered(database, mark)
        assert (found.ended, found.orphans) == (expected, {"noted": noted})
        live = reading.live(database.connection, "noted")
        assert live is not None and (live.last, reading.live(database.connection, "ended")) == (1, None)
    mark.number = 1000
    found = recovered(database, mark)
    assert (found.lost, found.orphans) == (["noted"], {})
    assert database.connection.execute("SELECT count(*) FROM streams WHERE note IS NOT NULL").fetchall() == [(0,)]


def test_what_was_given_up(database: Database, mark: Mark) -> None:
    """The end that readers were told has its number, whatever was written under that number since."""
    commit(database, *(IDENTITY.entry(name) for name in ("same", "late", "ended", "gap", "other")))
    written: dict[str, list[Event]] = {"late": [A, A, A], "ended": [A, Done("stop")]}
    for name in ("same", "late", "ended", "gap", "other"):
        commit(database, [name, 1, pack(written.get(name, [A]))])
    with closing(GivenUp(database._path.parent, durable=False)) as given_up:
        given_up.begin()
        given_up.note([("same", 2), ("late", 2), ("ended", 2), ("gap", 3), ("unknown", 1)])
    found = recovered(database, mark)
    for name in ("same", "late", "ended"):
        assert state(database, name) == ("error", [A, Failure.of(JournalDown())])
    assert (found.ended, found.lost) == ([("other", 2)], ["gap"])


def test_a_stream_that_was_moved(database: Database, mark: Mark) -> None:
    """Batches of a stream that was moved with its end change nothing."""
    commit(database, IDENTITY.entry("s"))
    commit(database, ["s", 1, pack([A])])
    database.move(
        move("s", info=IDENTITY.info, rows=[(1, encode([A, Done("stop")]))], last=2, ended=NOW, expires=NOW + 9)
    )
    assert recovered(database, mark) == Found(1, [], [], [], [], {})
    assert state(database, "s") == ("done", [A, Done("stop")])


def test_many_streams(database: Database, mark: Mark) -> None:
    """The time that it takes to open a file grows with the kept streams, a hundred thousand of them too."""

    def kept(streams: int) -> Callable[[], object]:
        database.connection.execute("BEGIN")
        database.connection.execute("DELETE FROM streams")
        database.connection.executemany(
            "INSERT INTO streams (id, owner, created, info, last, size, state, ended, expires) "
            "VALUES (?, ?, 1, ?, 1, 100, 'done', ?, 2000)",
            [(f"s{number:021}", b"o%d" % (number % 1000), IDENTITY.info, number) for number in range(streams)],
        )
        database.connection.execute("COMMIT")
        database.close()

        def start() -> None:
            database.open()
            assert recovered(database, mark).streams == streams
            assert len(database._sums) == 1000

        return start

    assert growth(kept, 100_000, repeat=1) < LINEAR
