"""What Redis has lost is written again, a part at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from redis import Redis

from app.events import Delta, Event
from app.journal.encoding import decode, encode
from app.journal.redis import keys, rewriter
from tests.journal.processes import INFO, SELDOM, Machine, acked, entries
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.real]


async def test_a_long_log_is_written_again_in_steps(
    machine: Machine, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No turn of the event loop encodes more of a log than it has time for."""
    a = await machine.start(timing=SELDOM)
    writer = await a.journal.create("s", INFO)
    writer.append([Delta("x")] * 5000)
    await acked(writer, 5000)
    loop = asyncio.get_running_loop()
    turns = 0
    in_turn: list[int] = []

    def count() -> None:
        nonlocal turns
        turns += 1
        loop.call_soon(count)

    def encoded(events: Sequence[Event]) -> bytes:
        in_turn.append(turns)
        return encode(events)

    monkeypatch.setattr(rewriter, "encode", encoded)
    redis.delete(keys.log("s"))
    loop.call_soon(count)
    a.journal._committer.require_reconcile()
    await until(lambda: sum(len(decode(fields[b"e"])) for _, fields in entries(redis)[1:]) == 5000)
    assert len(in_turn) == 10
    assert max(Counter(in_turn).values()) <= 3
