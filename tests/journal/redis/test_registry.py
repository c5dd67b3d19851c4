"""What processes agree on by Redis: claims, labels and slots, and what becomes of those of the dead."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from app.errors import JournalDown
from app.journal.redis import keys
from app.journal.redis.client import Command
from app.journal.redis.journal import RedisJournal
from app.request import StreamInfo
from tests.journal.processes import (
    DONE,
    FAST,
    INFO,
    Machine,
)
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.real]


async def test_a_claim_without_a_stream(machine: Machine) -> None:
    """A key whose claimer died before it began the stream goes to one of those who wait for that."""
    a, b, c = [await machine.start(timing=replace(FAST, appearing=0.1)) for _ in "abc"]
    assert await a.journal.registry.claim("ann", "k", b"1", "s") is None

    async def claim(journal: RedisJournal, stream_id: str) -> str | None:
        known = await journal.registry.claim("ann", "k", b"1", stream_id)
        if known is None:
            await journal.create(stream_id, INFO)
        return known

    answers = await asyncio.gather(*[claim(b.journal, f"b{n}") for n in range(5)], claim(c.journal, "c"))
    winner = [*(f"b{n}" for n in range(5)), "c"][answers.index(None)]
    assert sorted(map(str, answers)) == sorted(["None", *[winner] * 5])
    with pytest.raises(JournalDown):  # it was only slow: now it must not begin a second one
        await a.journal.create("s", INFO._replace(label="l"))
    assert await b.journal.registry.labelled("ann", "l") is None
    await a.journal.registry.release("s")
    assert await b.journal.registry.claim("ann", "k", b"1", "d") == winner


async def test_slots_of_the_dead(machine: Machine, redis: Redis) -> None:
    """Slots count in every process as long as the one that took them lives, and are given back some time after."""
    a, b = [await machine.start(timing=replace(FAST, slot=3)) for _ in "ab"]
    assert await a.journal.registry.occupy("ann", "s", 1)
    assert not await b.journal.registry.occupy("ann", "t", 1)
    await asyncio.sleep(4)
    assert not await b.journal.registry.occupy("ann", "t", 1)
    await a.pause()
    while not await b.journal.registry.occupy("ann", "t", 1):
        await asyncio.sleep(0.05)


async def test_one_owner_with_many_streams(machine: Machine, redis: Redis) -> None:
    """Slots of many streams and owners are renewed, and vacated, without a trace left behind."""
    a = await machine.start()
    for owner in "ab":
        assert all(await asyncio.gather(*[a.journal.registry.occupy(owner, f"{owner}{n}", 100) for n in range(100)]))
    await a.journal._peers._renew()
    assert [redis.zcard(keys.slots(owner)) for owner in "ab"] == [100, 100]
    for owner in "ab":
        await asyncio.gather(*[a.journal.registry.vacate(owner, f"{owner}{n}") for n in range(100)])
    # A renewal of its own may have been on its way, and vacates them again.
    await until(lambda: not redis.exists(keys.slots("a"), keys.slots("b")))
    assert a.journal.registry.renewals() == []


async def test_a_slot_vacated_during_a_renewal(machine: Machine, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewal that reaches Redis after a slot was vacated does not take it for good."""
    a = await machine.start()
    await a.pause()  # there is one renewal at a time
    execute = a.journal._connection.execute

    async def overtaken(*commands: Command) -> list[Any]:
        await a.journal.registry.vacate("ann", "s")
        return await execute(*commands)

    assert await a.journal.registry.occupy("ann", "s", 1)
    assert await a.journal.registry.occupy("bob", "t", 1)
    with monkeypatch.context() as patch:
        patch.setattr(a.journal._connection, "execute", overtaken)
        await a.journal._peers._renew()
    await until(lambda: not redis.exists(keys.slots("ann")))
    assert redis.zcard(keys.slots("bob")) == 1


async def test_labels_end_with_their_streams(machine: Machine, redis: Redis) -> None:
    """Every process finds a live stream by its label; at its end that is taken away, unless it is another's by then."""
    a, b = await machine.start(), await machine.start()
    first = await a.journal.create("s", StreamInfo("auto", "o", 0, "l"))
    assert await b.journal.registry.labelled("o", "l") == "s"
    second = await b.journal.create("t", StreamInfo("auto", "o", 0, "l"))
    first.append([DONE])
    await until(lambda: redis.ttl(b"chat-sse:{s}:log") < 3000)
    assert await a.journal.registry.labelled("o", "l") == "t"
    second.append([DONE])
    await until(lambda: not redis.keys("chat-sse:label:*"))
    assert await a.journal.registry.labelled("o", "l") is None


async def test_a_stream_that_another_process_goes_on_with(machine: Machine, redis: Redis) -> None:
    """A process that has left a stream renews and releases nothing of it; the one that goes on with it does."""
    a, b = [(await machine.start()).journal.registry for _ in "ab"]
    assert await a.claim("ann", "k", b"1", "s") is None
    assert await a.occupy("ann", "s", 1)
    claim = a.claim_of("s")
    a.disown("s")
    await a.vacate("ann", "s")
    await a.release("s")
    assert a.renewals() == []
    assert redis.exists(keys.claim("ann", "k"), keys.slots("ann")) == 2
    b.adopt("s", claim)
    assert await b.occupy("ann", "s", 9)
    await b.vacate("ann", "s")
    await b.release("s")
    assert redis.exists(keys.claim("ann", "k"), keys.slots("ann")) == 0
