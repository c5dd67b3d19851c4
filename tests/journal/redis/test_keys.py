"""The names of the keys in Redis. Processes of different versions share them, so they stay as they are."""

from __future__ import annotations

from redis.crc import key_slot

from app.journal.redis import keys


def test_names() -> None:
    """A key says whose it is and what it holds."""
    assert keys.log("S") == b"chat-sse:{S}:log"
    assert keys.note("S") == b"chat-sse:{S}:note"
    assert keys.processes() == b"chat-sse:processes"
    assert keys.noted("p") == b"chat-sse:noted:p"
    assert keys.lease("p") == b"chat-sse:lease:p"
    assert keys.inbox("p") == b"chat-sse:inbox:p"
    assert keys.slots("ann") == b"chat-sse:slots:ann"
    assert keys.kept("ann") == b"chat-sse:kept:ann"
    assert keys.claim("ann", "k") == b"chat-sse:key:ann:k"
    assert keys.label("ann", "k") == b"chat-sse:label:ann:k"


def test_slots_of_a_cluster() -> None:
    """A stream's keys are where its id is."""
    assert key_slot(keys.log("S")) == key_slot(keys.note("S")) == key_slot(b"S")


def test_kinds_are_apart() -> None:
    """A claim, a label and what an owner has never meet, whatever their names."""
    owners = {keys.slots("a"), keys.kept("a"), keys.streams("a"), keys.budget("a"), keys.lease("a"), keys.inbox("a")}
    assert len({keys.claim("a", "b"), keys.label("a", "b"), keys.claim("", "b"), *owners}) == 9
