"""What waits for the next pipeline to Redis."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.journal.redis.outbox import RedisOutbox


def test_messages() -> None:
    """Messages keep their order, by the process that they are for, and are taken once."""
    outbox = RedisOutbox()
    outbox.tell("p", b"1")
    outbox.tell("q", b"2")
    outbox.tell("p", b"3")
    taken = outbox.take_messages()
    outbox.tell("p", b"4")
    assert taken == {"p": [b"1", b"3"], "q": [b"2"]}
    assert outbox.take_messages() == {"p": [b"4"]}
    assert outbox.take_messages() == {}


@pytest.mark.parametrize(
    ("fill", "take"),
    [
        (lambda outbox: outbox.mark("a"), RedisOutbox.take_streams),
        (lambda outbox: outbox.tell("p", b"1"), RedisOutbox.take_messages),
    ],
    ids=["streams", "messages"],
)
def test_waking(fill: Callable[[RedisOutbox], None], take: Callable[[RedisOutbox], object]) -> None:
    """Whatever is put in wakes the committer, and something waits until it is taken."""
    outbox = RedisOutbox()
    assert (outbox.empty, outbox.wake.is_set()) == (True, False)
    fill(outbox)
    assert (outbox.empty, outbox.wake.is_set()) == (False, True)
    take(outbox)
    assert outbox.empty
