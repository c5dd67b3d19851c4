"""The names of the keys in Redis. Processes of different versions share them, so they stay as they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis.crc import key_slot

from app.journal.redis import keys


def test_names() -> None:
    """A key says whose it is and what it holds."""
    assert keys.log("S") == b"chat-sse:{S}:log"
    assert keys.lease("p") == b"chat-sse:lease:p"
    assert keys.inbox("p") == b"chat-sse:inbox:p"
    assert keys.slots("ann") == b"chat-sse:slots:49915e0d7d4b402e3017d010bc1c0e83cac6c797d6c16e66340fe3268693a6a1"
    assert keys.kept("ann") == b"chat-sse:kept:49915e0d7d4b402e3017d010bc1c0e83cac6c797d6c16e66340fe3268693a6a1"
    assert keys.claim("ann", "k") == b"chat-sse:key:fc990c2959a01c79feeec89598fedc9bb5455121714210ac30b8a7cf9fdcbf60"
    assert keys.label("ann", "k") == b"chat-sse:label:fc990c2959a01c79feeec89598fedc9bb5455121714210ac30b8a7cf9fdcbf60"


def test_slots_of_a_cluster() -> None:
    """A stream's keys are where its id is."""
    assert key_slot(keys.log("S")) == key_slot(b"S")


@pytest.mark.parametrize("key", [keys.claim, keys.label])
def test_what_clients_choose(key: Callable[[str, str], bytes]) -> None:
    """No two pairs of an owner and a name give one key, none can be read in it, and each has one length."""
    pairs = [("x", "yz"), ("xy", "z"), ("xyz", ""), ("", "xyz"), ("1:x", "yz"), ("x", "\ud800"), ("x" * 9999, "y")]
    found = [key(owner, name) for owner, name in pairs]
    assert len({*found}) == len(found)
    assert len({len(each) for each in found}) == 1
    assert b"xyz" not in b"".join(found)


def test_kinds_are_apart() -> None:
    """A claim, a label and an owner's slots never meet, whatever their names."""
    assert len({keys.claim("a", "b"), keys.label("a", "b"), keys.slots("a"), keys.slots("\ud800")}) == 4
