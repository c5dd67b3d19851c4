"""How long Redis keeps what belongs to a stream: every key that a stream has, goes in time."""

from __future__ import annotations

import pytest

from app.events import Done
from app.journal.memory import MemoryJournal, MemoryLog
from app.journal.redis import keys
from app.journal.redis.lifetimes import Lifetimes
from app.journal.redis.outbox import RedisOutbox
from app.journal.redis.writer import Pointer, RedisWriter
from app.request import StreamInfo
from tests.journal.processes import ROOMY

LIFETIMES = Lifetimes(live=3600, keep=60, label=7200)
CLAIM = Pointer(keys.claim("ann", "k"), b"aa s")


def writer(owner: str = "ann") -> RedisWriter:
    log = MemoryLog(MemoryJournal(ROOMY), "s", StreamInfo("none", owner, label="l", keep=30))
    return RedisWriter(RedisOutbox(), log, {b"process": b"p"}, CLAIM)


@pytest.mark.parametrize("noted", [None, "text"])
def test_live(noted: str | None) -> None:
    """A live stream's log, claim, note and index are renewed, and the list of its process."""
    live = writer()
    live.noted = noted
    renewed = {command[1]: command[2] for command in LIFETIMES.renewals([live])}
    expected = {live.key: 3600, CLAIM.key: 3600, keys.streams("ann"): 3660}
    assert renewed == expected | ({keys.note("s"): 3600, keys.noted("p"): 3600} if noted else {})


@pytest.mark.parametrize("noted", [None, "text"])
def test_ended(noted: str | None) -> None:
    """With a stream's end, its log and its claim stay for as long as it is kept, its label and its note go."""
    ended = writer(owner="")
    ended.noted = noted
    commands = LIFETIMES.end(ended, 7, Done("stop"))
    assert [command for command in commands if command[0] == "EXPIRE"] == [
        ("EXPIRE", ended.key, 30),
        ("EXPIRE", CLAIM.key, 30),
    ]
    lists = [keys.noted("p")] if noted else []
    assert [command[3] for command in commands if command[0] == "EVAL"] == [keys.label("", "l"), *lists]
    assert [command for command in commands if command[0] == "DEL"] == ([("DEL", keys.note("s"))] if noted else [])


def test_begun() -> None:
    """A log that is begun has its label, and one that is begun again has both, unless they are another stream's."""
    made = writer(owner="")
    key = keys.label("", "l")
    assert LIFETIMES.begin(made)[2:] == [("SET", key, b"s", "EX", 7200)]
    claim = ("SET", CLAIM.key, CLAIM.value, "NX", "EX", 3600)
    assert LIFETIMES.begin(made)[2:] == [("SET", key, b"s", "NX", "EX", 7200), claim]
    made.given_up = True  # it is written only to be ended
    assert LIFETIMES.begin(made)[2:] == [claim]
