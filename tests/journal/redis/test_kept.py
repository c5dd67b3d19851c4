"""What the ended streams of each owner take of Redis."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from app.errors import UnknownStream
from app.events import Delta
from app.journal.redis import keys
from app.request import StreamInfo
from tests.journal.processes import DONE, INFO, Machine, Process, acked, opened
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.real]


async def ended(process: Process, owner: str, *names: str, size: int = 4000) -> None:
    for name in names:
        writer = await process.journal.create(name, StreamInfo("none", owner))
        writer.append([Delta("x" * size), DONE])
        await acked(writer, 2)


def kept(redis: Redis, *names: str) -> list[str]:
    """Return those of the streams that Redis has."""
    return [name for name in names if redis.exists(keys.log(name))]


async def test_an_owners_bound(machine: Machine, redis: Redis) -> None:
    """Above it an owner loses its streams that ended first, whatever process produced them; the others lose none."""
    a, b = await machine.start(owner=10_000), await machine.start(owner=10_000)
    await ended(a, "bob", "b1")
    await ended(a, "ann", "a1", "a2")
    await until(lambda: redis.zcard(keys.kept("ann")) == 2)
    await ended(b, "ann", "a3", "a4")
    await until(lambda: kept(redis, "a1", "a2", "a3", "a4") == ["a3", "a4"])
    assert kept(redis, "b1") == ["b1"]
    assert len(await opened(b.journal, "a4")) == 2
    with pytest.raises(UnknownStream):
        await (await machine.start()).journal.open("a1")


async def test_one_large_stream(machine: Machine, redis: Redis) -> None:
    """The newest stream stays, even if it alone is too large."""
    a = await machine.start(owner=10_000)
    await ended(a, "ann", "small")
    await ended(a, "ann", "large", size=50_000)
    await until(lambda: kept(redis, "small", "large") == ["large"])


async def test_callers_without_credentials(machine: Machine, redis: Redis) -> None:
    """They are one owner to the service, and many to the world: there is no bound for them."""
    a = await machine.start(owner=1_000)
    await ended(a, "", "s1", "s2")
    await ended(a, "ann", "a1", "a2")
    await until(lambda: kept(redis, "a1", "a2") == ["a2"])
    assert kept(redis, "s1", "s2") == ["s1", "s2"]
    assert not redis.exists(keys.kept(""))


async def test_the_index_goes_with_the_streams(machine: Machine, redis: Redis) -> None:
    """What an owner has is forgotten when the streams are, and while Redis refuses, it waits to be counted."""
    a = await machine.start(owner=10_000, seconds=2)
    writer = await a.journal.create("s", INFO)
    writer.append([DONE])
    await acked(writer, 1)
    await until(lambda: redis.zcard(keys.kept("ann")) == 1)
    await until(lambda: not redis.exists(keys.kept("ann")))


async def test_something_else_at_the_key(machine: Machine, redis: Redis) -> None:
    """What is at an owner's key and is not ours stops neither that owner's streams nor the others'."""
    redis.set(keys.kept("ann"), "x")
    a = await machine.start(owner=1_000)
    await ended(a, "ann", "a1")
    await ended(a, "bob", "b1", "b2")
    await until(lambda: kept(redis, "b1", "b2") == ["b2"])
    assert a.journal.ready
    assert kept(redis, "a1") == ["a1"]


async def test_a_full_redis(machine: Machine, redis: Redis) -> None:
    """A Redis that is full still lets an owner's streams go, which makes room."""
    a = await machine.start(owner=10_000)
    await ended(a, "ann", "a1", "a2")
    await until(lambda: redis.zcard(keys.kept("ann")) == 2)
    redis.config_set("maxmemory", 1)
    a.journal._kept.ended("ann", "a3", 9_000)
    await a.journal._kept._count_all()
    assert kept(redis, "a1", "a2") == []


async def test_what_is_said_of_the_request(machine: Machine, redis: Redis) -> None:
    """The header of a log counts, too: a client may have much to say of a stream."""
    a = await machine.start()
    writer = await a.journal.create("s", INFO._replace(metadata="x" * 9_000))
    writer.append([DONE])
    await acked(writer, 1)
    await until(lambda: redis.zcard(keys.kept("ann")) == 1)
    items: Any = redis.zrange(keys.kept("ann"), 0, -1)
    assert 9_000 < int(items[0].partition(b" ")[2]) < 9_500
