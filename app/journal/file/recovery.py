"""What is done at the start with what the last process left: its live streams end, with the text that there is.

A batch is on the disk before its records are sent, at the chosen level. If the mark says that there were batches which
are missing now, or if that cannot be known, then records that were sent may be gone, and their numbers must not be
given to others. Streams that had not ended are lost then: a reader is told so, and nothing else of them is shown.
"""

from __future__ import annotations

from typing import NamedTuple

from app.errors import JournalDown, ProducerLost
from app.events import Failure
from app.journal.encoding import pack, unpack
from app.journal.file.database import Database, Gone, Move
from app.journal.file.entries import Identity, Tail, fold, unpack_info
from app.journal.file.folder import Mark
from app.journal.file.given_up import GivenUp
from app.journal.holder import state_after
from app.request import StreamInfo


class Found(NamedTuple):
    """What was found at the start.

    *streams* is how many are kept. *ended* are the streams that were ended, with the number of their last record, and
    *lost* those of which records may be gone, and *gone* those for which there is no room any more. *accounts* is what
    each account has spent, and until when that counts.
    """

    streams: int
    ended: list[tuple[str, int]]
    lost: list[str]
    gone: list[Gone]
    accounts: list[tuple[str, int, float]]


def recover(database: Database, mark: Mark, given_up: GivenUp, now: float, seconds: float, *, durable: bool) -> Found:
    """End what the last process left. Ended streams are kept for *seconds*. Raises sqlite3.Error.

    *durable* is whether this process's batches will be on the disk before they are acknowledged.
    """
    connection = database.connection
    missing = mark.number is None or database.last < mark.number or not mark.whole or given_up.others
    tails = {
        stream_id: Tail(Identity(*identity), moved)
        for stream_id, moved, *identity in connection.execute(
            "SELECT id, last, info, label, claim, fingerprint FROM streams WHERE state = 'live'"
        )
    }
    removed: set[str] = set()
    for (data,) in connection.execute("SELECT data FROM batches ORDER BY id"):
        try:
            fold(data, tails, removed)
        except ValueError:
            missing = True
    for stream_id, number in given_up.found.items():
        if stream_id in tails:
            tails[stream_id].end_at(number, Failure.of(JournalDown()))
    ended: list[tuple[str, int]] = []
    lost: list[str] = []
    with database.transaction():
        # A clock that was put back, or a shorter time to keep streams, does not keep what is here for longer.
        connection.execute(
            "UPDATE streams SET expires = min(expires, ?, ended + ?) WHERE expires > min(?, ended + ?)",
            (now + seconds, seconds) * 2,
        )
        for stream_id, tail in tails.items():
            if connection.execute("SELECT 1 FROM streams WHERE id = ? AND state <> 'live'", (stream_id,)).fetchone():
                continue  # it had ended, and all of it was moved
            ending = tail.ending
            if ending is None and not (missing or tail.gap):
                ending = Failure.of(ProducerLost())
                tail.items += pack([ending])
                ended.append((stream_id, tail.last))
            elif ending is None:
                lost.append(stream_id)
            elif tail.last <= 2 and not tail.moved:
                tail.identity = tail.identity.of_ended(unpack(tail.items))
            state = "lost" if ending is None else state_after(ending)
            database.put(moved_of(stream_id, tail, state, now, seconds))
        gone: list[Gone] = []
        while more := database.make_room():
            gone += more
        database.clear()
        database.forget_accounts(now)
    mark.begin(database.last, durable=durable)
    accounts = connection.execute("SELECT account, spent, until FROM accounts").fetchall()
    [(streams,)] = connection.execute("SELECT count(*) FROM streams")
    return Found(streams, ended, lost, gone, accounts)


def moved_of(stream_id: str, tail: Tail, state: str, now: float, seconds: float) -> Move:
    """Return how an ended stream is kept."""
    info = unpack_info(tail.identity.info)
    rows = [*tail.rows()]
    return Move(
        stream_id,
        owner_of(info.owner),
        info.created,
        *tail.identity,
        rows,
        tail.last,
        state,
        now,
        now + kept(info, seconds),
    )


def owner_of(name: str) -> bytes:
    """Return an owner as the database has it."""
    return name.encode(errors="surrogatepass")


def kept(info: StreamInfo, seconds: float) -> float:
    """Return how many seconds a stream is kept after its end, if others are kept for *seconds*."""
    return min(info.keep, seconds)
