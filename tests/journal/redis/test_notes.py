"""The notes of streams: what they say, and who may write one. On a real Redis."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from app.events import Delta, Done
from app.journal.encoding import encode
from app.journal.memory import MemoryJournal, MemoryLog
from app.journal.redis import keys, notes
from app.journal.redis.entries import HEADER, Tail
from app.journal.redis.notes import Note
from app.journal.redis.outbox import RedisOutbox
from app.journal.redis.writer import Pointer, RedisWriter
from tests.journal.processes import INFO, ROOMY

LOG, NOTE = keys.log("s"), keys.note("s")


@pytest.mark.parametrize("claim", [None, Pointer(keys.claim("ann", "k"), b"aa s")])
def test_it_comes_back(claim: Pointer | None) -> None:
    """A note is read as it was written."""
    note = Note("p", '{"text": "é"}', claim)
    assert notes.read(note.pack()) == note


@pytest.mark.parametrize("data", [None, b"", b"x", b"{}", b"[]", b'["p"]', b'["p",1]', b'["p","t","k"]', 7])
def test_what_is_no_note(data: object) -> None:
    """What another version, or another program, has left at the key is no note."""
    assert notes.read(data) is None


def writer(epoch: int = 0) -> RedisWriter:
    log = MemoryLog(MemoryJournal(ROOMY), "s", INFO)
    made = RedisWriter(RedisOutbox(), log, {b"process": b"p"}, epoch=epoch)
    made.noted = "text"
    return made


def run(redis: Redis, command: Any) -> Any:
    return redis.execute_command(*command)  # type: ignore[no-untyped-call]  # untyped in redis-py


def entry(redis: Redis, entry_id: bytes, *events: Any) -> None:
    redis.xadd(LOG, {"e": encode(events)}, id=entry_id)


@pytest.mark.real
@pytest.mark.parametrize(
    ("entries", "epoch", "written"),
    [
        ([], 0, False),
        ([HEADER], 0, True),
        ([HEADER, b"1-0"], 0, True),
        ([HEADER, b"1-0", b"2-1"], 0, False),
        ([HEADER, b"1-0", b"2-1"], 2, True),
        ([HEADER, b"1-0", b"2-1", b"2-2"], 2, True),
        ([HEADER, b"1-0", b"2-1", b"2-2", b"3-3"], 2, False),
    ],
)
def test_who_may_write_it(redis: Redis, entries: list[bytes], epoch: int, written: bool) -> None:
    """The producer writes the note of a stream that is there, unless another process has adopted the stream."""
    for entry_id in entries:
        entry(redis, entry_id, Delta("x"))
    assert [run(redis, command) for command in notes.put(writer(epoch), 60)] == [1, 1, int(written)]
    assert (redis.smembers(keys.noted("p")), redis.ttl(keys.noted("p"))) == ({b"s"}, 60)
    [data] = run(redis, notes.find("s"))
    assert notes.read(data) == (Note("p", "text", None) if written else None)
    assert (0 < redis.ttl(NOTE) <= 60) == written


@pytest.mark.real
def test_a_claim(redis: Redis) -> None:
    """Of two processes that claim a stream, one does, and the other learns which."""
    entry(redis, b"1-0", Delta("x"))
    tail = Tail(1, [], entry=b"1-0")
    ours, theirs = [Note(process, "text", None) for process in ("ours", "theirs")]
    assert notes.claimed(run(redis, notes.claim("s", tail, ours, 60)))
    reply = run(redis, notes.claim("s", tail, theirs, 60))
    assert not notes.claimed(reply)
    assert notes.read(reply) == ours
    found: Any = redis.xrange(LOG)
    assert found[-1] == (b"2-1", {b"e": b"[]"})
    assert 0 < redis.ttl(LOG) <= 60


@pytest.mark.real
def test_what_has_ended_is_not_claimed(redis: Redis) -> None:
    """A stream that ended, or was deleted, just before is not claimed, and nothing is written."""
    entry(redis, b"1-0", Delta("x"))
    tail = Tail(1, [], entry=b"1-0")
    entry(redis, b"2-0", Done("stop"))
    note = Note("ours", "text", None)
    assert notes.read(run(redis, notes.claim("s", tail, note, 60))) is None
    redis.delete(LOG)
    assert notes.read(run(redis, notes.claim("s", tail, note, 60))) is None
    assert redis.keys() == []


@pytest.mark.real
def test_something_else_at_the_key(redis: Redis) -> None:
    """Something else at the key is no note, and stops nothing."""
    redis.hset(NOTE, "a", "b")
    [data] = run(redis, notes.find("s"))
    assert notes.read(data) is None
