"""Budgets in Redis: they are shared, reservations end with their process, and charges outlive an outage."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import Redis

from app.errors import JournalDown
from app.journal.redis import keys
from app.journal.redis.journal import RedisJournal
from tests.journal.processes import DONE, FAST, INFO, Machine, acked
from tests.real.proxy import Proxy
from tests.real.redis import url_behind
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.real]


async def standing(journal: RedisJournal) -> tuple[int, int]:
    return (await journal.budgets.balance("ann"))[:2]


async def reserve(journal: RedisJournal, stream_id: str, wanted: int = 600) -> int:
    return (await journal.budgets.reserve("ann", stream_id, 1000, wanted, 16))[0]


async def test_processes_share(machine: Machine) -> None:
    """What one process has reserved or charged, another cannot."""
    a, b = [(await machine.start()).journal for _ in "ab"]
    assert [await reserve(a, "s"), await reserve(b, "t"), await reserve(b, "u")] == [600, 400, 0]
    await a.budgets.settle("ann", "s", 700)
    assert await standing(b) == (700, 400)
    await b.budgets.settle("ann", "s", 700)  # it is not b's
    assert await standing(b) == (700, 400)


async def test_the_key_says_no_name(machine: Machine, redis: Redis) -> None:
    """An account is one key, which goes when its day is over, or soon after its last reservation."""
    a = (await machine.start()).journal
    await reserve(a, "s")
    assert 30 < int(redis.ttl(keys.budget("ann"))) <= 60
    await a.budgets.settle("ann", "s", 7)
    assert 86_000 < int(redis.ttl(keys.budget("ann"))) <= 86_400
    assert keys.budget("ann") == b"chat-sse:budget:ann"


async def test_a_process_that_died(machine: Machine, redis: Redis) -> None:
    """The reservation of a live process is renewed; that of one that died lapses, and is not charged."""
    alive, dead = [await machine.start() for _ in "ad"]
    await reserve(alive.journal, "s", 300)
    await reserve(dead.journal, "t", 300)
    await dead.pause()
    later = int(redis.time()[0]) + 1
    for name in ("s", "t"):
        redis.hset(keys.budget("ann"), name, f"{later} 300")
    await until(lambda: int(redis.time()[0]) > later)
    assert await standing(alive.journal) == (0, 300)
    assert not redis.hexists(keys.budget("ann"), "t")
    await dead.journal.budgets.settle("ann", "t", 200)  # it was alive after all
    assert await standing(alive.journal) == (200, 300)


@pytest.mark.parametrize("remembers", [True, False])
async def test_an_outage(machine: Machine, redis: Redis, remembers: bool) -> None:
    """A charge that Redis could not be told is stored once Redis is back, and once only, whatever Redis remembers."""
    with Proxy(machine.url) as proxy:
        a = (await machine.start(url_behind(proxy))).journal
        for name in ("s", "t", "u"):
            await reserve(a, name, 300)
        proxy.pause()
        await asyncio.gather(a.budgets.settle("ann", "s", 50), a.budgets.settle("ann", "t", 60))
        with pytest.raises(JournalDown):
            await reserve(a, "v")
        if not remembers:
            redis.flushall()
        proxy.cut()  # what was answered before Redis forgot it is not heard
        proxy.resume()
        await until(lambda: not a.budgets._unsettled)
        await until(lambda: redis.hexists(keys.budget("ann"), "u"))
        await until(lambda: a.ready)
        assert await standing(a) == (110, 300)


async def test_a_lost_reply(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A charge whose reply was lost is sent again, and not charged again."""
    a = (await machine.start()).journal
    await reserve(a, "s")
    execute = a._connection.request

    async def lost(*commands: Any) -> list[object]:
        await execute(*commands)
        raise JournalDown

    monkeypatch.setattr(a._connection, "request", lost)
    await a.budgets.settle("ann", "s", 50)
    monkeypatch.setattr(a._connection, "request", execute)
    await until(lambda: not a.budgets._unsettled)
    assert await standing(a) == (50, 0)


async def test_the_last_try(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends stores the charges that it still has."""
    a, b = [await machine.start(timing=FAST) for _ in "ab"]
    await reserve(a.journal, "s")
    await a.pause()
    execute = a.journal._connection.request

    async def down(*_: object) -> list[object]:
        raise JournalDown

    monkeypatch.setattr(a.journal._connection, "request", down)
    await a.journal.budgets.settle("ann", "s", 50)
    monkeypatch.setattr(a.journal._connection, "request", execute)
    assert await standing(b.journal) == (0, 600)
    await a.held.aclose()
    assert await standing(b.journal) == (50, 0)


async def test_a_charge_waits_for_the_end(machine: Machine) -> None:
    """What another process may adopt is charged once its end is in Redis."""
    a = await machine.start()
    await reserve(a.journal, "s")
    writer = await a.journal.create("s", INFO)
    writer.note("n")
    await a.journal.budgets.settle("ann", "s", 50)
    await a.journal.budgets.store()
    assert await standing(a.journal) == (0, 600)
    writer.append([DONE])
    await until(lambda: not a.journal.budgets._unsettled)
    assert await standing(a.journal) == (50, 0)


@pytest.mark.parametrize("charges", [True, False])
async def test_a_stream_that_another_process_goes_on_with(machine: Machine, charges: bool) -> None:
    """A process neither charges nor reserves anything for a stream that it has left to another one."""
    a, b = [await machine.start() for _ in "ab"]
    await reserve(a.journal, "s")
    writer = await a.journal.create("s", INFO)
    writer.note("n")
    if charges:
        await a.journal.budgets.settle("ann", "s", 50)
    a.journal.budgets.disown("s")
    writer.append([DONE])
    await acked(writer, 1)
    assert a.journal.budgets.renewals() == []
    await a.journal.budgets.store()
    assert await standing(b.journal) == (0, 600)
    await reserve(b.journal, "s", 300)
    await b.journal.budgets.settle("ann", "s", 70)
    assert await standing(b.journal) == (70, 0)
