"""What is done at the start with what the last process left: its live streams end, with the text that there is.

A stream that has a note stays live: this process may go on with it (see `app.journal.Orphan`).

A batch is on the disk before its records are sent, at the chosen level. If the mark says that there were batches which
are missing now, or if that cannot be known, then records that were sent may be gone, and their numbers must not be
given to others. Streams that had not ended are lost then, with or without a note: a reader is told so, and nothing else
of them is shown.
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

    *streams* is how many are kept. *ended* are the streams that were ended, with the number of their last record,
    *orphans* those that are live yet, by stream, *lost* those of which records may be gone, and *gone* those for which
    there is no room any more. *accounts* is what each account has spent, and until when that counts.
    """

    streams: int
    ended: list[tuple[str, int]]
    lost: list[str]
    gone: list[Gone]
    accounts: list[tuple[str, int, float]]
    orphans: dict[str, Identity]


def recover(database: Database, mark: Mark, given_up: GivenUp, now: float, seconds: float, *, durable: bool) -> Found:
    """End what the last process left. Ended streams are kept for *seconds*. Raises sqlite3.Error.

    *durable* is whether this process's batches will be on the disk before they are acknowledged.
    """
    connection = database.connection
    missing = mark.number is None or database.last < mark.number or not mark.whole or given_up.others
    tails = {
        stream_id: Tail(Identity(*identity), moved)
        for stream_id, moved, *identity in connection.execute(
            "SELECT id, last, info, label, claim, fingerprint, note FROM streams WHERE state = 'live'"
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
    orphans: dict[str, Identity] = {}
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
            if ending is not None:
                state = state_after(ending)
                if tail.last <= 2 and not tail.moved:
                    tail.identity = tail.identity.of_ended(unpack(tail.items))
            elif missing or tail.gap:
                state = "lost"
                lost.append(stream_id)
            elif tail.identity.note is not None:
                state = "live"
                orphans[stream_id] = tail.identity
            else:
                ending = Failure.of(ProducerLost())
                state = state_after(ending)
                tail.items += pack([ending])
                ended.append((stream_id, tail.last))
            database.put(moved_of(stream_id, tail, state, now, seconds))
        gone: list[Gone] = []
        while more := database.make_room():
            gone += more
        database.clear()
        database.forget_accounts(now)
    mark.begin(database.last, durable=durable)
    accounts = connection.execute("SELECT account, spent, until FROM accounts").fetchall()
    [(streams,)] = connection.execute("SELECT count(*) FROM streams")
    return Found(streams, ended, lost, gone, accounts, orphans)


def moved_of(stream_id: str, tail: Tail, state: str, now: float, seconds: float) -> Move:
    """Return how a stream is kept that has ended *now*, or that is live."""
    info = unpack_info(tail.identity.info)
    move = Move(stream_id, owner_of(info.owner), info.created, *tail.identity, [*tail.rows()], tail.last)
    return move if state == "live" else move._replace(state=state, ended=now, expires=now + kept(info, seconds))


def owner_of(name: str) -> bytes:
    """Return an owner as the database has it."""
    return name.encode(errors="surrogatepass")


def kept(info: StreamInfo, seconds: float) -> float:
    """Return how many seconds a stream is kept after its end, if others are kept for *seconds*."""
    return min(info.keep, seconds)
