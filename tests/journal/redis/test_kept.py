"""What the ended streams of each owner take of Redis."""

from __future__ import annotations

import math
from typing import Any

import pytest
from redis import Redis
from structlog.testing import LogCapture

from app.errors import UnknownStream
from app.events import Delta
from app.journal.redis import keys
from app.request import StreamInfo
from tests.journal.processes import DONE, INFO, Machine, Process, acked, opened
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.real]


async def ended(process: Process, owner: str, *names: str, size: int = 4000, keep: float = math.inf) -> None:
    for name in names:
        writer = await process.journal.create(name, StreamInfo("none", owner, keep=keep))
        writer.append([Delta("x" * size), DONE])
        await acked(writer, 2)


def counted(redis: Redis, owner: str) -> list[str]:
    """Return the streams in an owner's index, those first that will be gone first."""
    items: Any = redis.zrangebyscore(keys.kept(owner), 0, "inf")
    return [item.decode().partition(" ")[0] for item in items]


def sum_of(redis: Redis, owner: str) -> tuple[int, int]:
    """Return the sum of sizes that an owner's index has, and what it should be."""
    items: Any = redis.zrangebyscore(keys.kept(owner), 0, "inf")
    score: Any = redis.zscore(keys.kept(owner), "sum")
    return -int(score), sum(int(item.partition(b" ")[2]) for item in items)


def kept(redis: Redis, *names: str) -> list[str]:
    """Return those of the streams that Redis has."""
    return [name for name in names if redis.exists(keys.log(name))]


async def test_an_owners_bound(machine: Machine, redis: Redis) -> None:
    """Above it an owner loses its streams that ended first, whatever process produced them; the others lose none."""
    a, b = await machine.start(owner=20_000), await machine.start(owner=20_000)
    await ended(a, "bob", "b1")
    await ended(a, "ann", "a1", "a2")
    await until(lambda: counted(redis, "ann") == ["a1", "a2"])
    await ended(b, "ann", "a3", "a4")
    await until(lambda: kept(redis, "a1", "a2", "a3", "a4") == ["a3", "a4"])
    await until(lambda: counted(redis, "ann") == ["a3", "a4"])
    assert len(set(sum_of(redis, "ann"))) == 1
    assert sorted(a.owner.evictions + b.owner.evictions) == [("a1", "memory"), ("a2", "memory")]
    assert kept(redis, "b1") == ["b1"]
    assert len(await opened(b.journal, "a4")) == 2
    with pytest.raises(UnknownStream):
        await (await machine.start()).journal.open("a1")


async def test_one_large_stream(machine: Machine, redis: Redis) -> None:
    """The newest stream stays, even if it alone is too large."""
    a = await machine.start(owner=20_000)
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


def limit(redis: Redis, share: float) -> None:
    """Have that *share* of Redis' memory in use."""
    usage: Any = redis.info("memory")
    redis.config_set("maxmemory", int(usage["used_memory"] / share))


async def test_little_room(machine: Machine, redis: Redis, logs: LogCapture) -> None:
    """If Redis has little room left, those that have most lose streams, also without credentials, until it has."""
    a, b = await machine.start(), await machine.start()
    await ended(a, "bob", "b1", "b2", size=100_000)
    await ended(a, "ann", *(f"a{number}" for number in range(10)), size=400_000)
    await ended(b, "", *(f"s{number}" for number in range(10)), size=400_000)
    everything = [*(f"a{number}" for number in range(10)), *(f"s{number}" for number in range(10)), "b1", "b2"]
    await until(lambda: sum(len(counted(redis, owner)) for owner in ("ann", "bob", "")) == 22)
    assert kept(redis, *everything) == everything
    limit(redis, 0.74)
    assert await a.journal._kept._excess() < 0
    limit(redis, 0.9)
    await until(lambda: not excess(redis))
    left = kept(redis, *everything)
    assert left[-2:] == ["b1", "b2"], "a small one had to go for large ones"
    assert abs(sum(name[0] == "a" for name in left) - sum(name[0] == "s" for name in left)) <= 1
    assert len(left) > 15, "more went than had to"
    await until(lambda: len(a.owner.evictions + b.owner.evictions) == len(everything) - len(left))
    await until(lambda: any(entry["event"] == "journal.full" and entry["freed"] > 0 for entry in logs.entries))
    for owner in ("ann", ""):
        assert len(set(sum_of(redis, owner))) == 1


def excess(redis: Redis) -> bool:
    usage: Any = redis.info("memory")
    return bool(usage["used_memory"] > 0.75 * usage["maxmemory"])


async def test_owners_whose_streams_are_gone(machine: Machine, redis: Redis) -> None:
    """Those that had most, and have nothing any more, are looked at and forgotten: others do not go in their place."""
    redis.zadd(keys.holders(), {f"gone{number}": 1e9 + number for number in range(50)})
    a = await machine.start()
    await ended(a, "ann", *(f"a{number}" for number in range(8)), size=400_000)
    await until(lambda: len(counted(redis, "ann")) == 8)
    limit(redis, 0.9)
    await until(lambda: not excess(redis))
    assert len(kept(redis, *(f"a{number}" for number in range(8)))) >= 5
    await until(lambda: redis.zrange(keys.holders(), 0, -1) == [b"ann"])


async def test_a_redis_that_does_not_tell(machine: Machine, redis: Redis) -> None:
    """Where its clients may not ask how full it is, Redis is none the less in use."""
    redis.execute_command("ACL", "SETUSER", "default", "-info")  # type: ignore[no-untyped-call]  # untyped in redis-py
    try:
        a = await machine.start(owner=20_000)
        await ended(a, "ann", "a1", "a2", "a3")
        await until(lambda: kept(redis, "a1", "a2", "a3") == ["a2", "a3"])
        assert a.journal.ready
    finally:
        redis.execute_command("ACL", "SETUSER", "default", "+info")  # type: ignore[no-untyped-call]  # untyped in redis-py
    redis.set(keys.holders(), "x")
    await ended(a, "ann", "a4")
    await until(lambda: kept(redis, "a2", "a3", "a4") == ["a3", "a4"])
    assert a.journal.ready


async def test_the_index_goes_with_the_streams(machine: Machine, redis: Redis) -> None:
    """What an owner has is forgotten when the streams are, and while Redis refuses, it waits to be counted."""
    a = await machine.start(owner=20_000, seconds=2)
    writer = await a.journal.create("s", INFO)
    writer.append([DONE])
    await acked(writer, 1)
    await until(lambda: counted(redis, "ann") == ["s"])
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
    a = await machine.start(owner=20_000)
    await ended(a, "ann", "a1", "a2")
    await until(lambda: counted(redis, "ann") == ["a1", "a2"])
    redis.config_set("maxmemory", 1)
    a.journal._kept.ended("ann", "a3", 19_000, 60)
    await until(lambda: not a.journal._kept._waiting)
    assert kept(redis, "a1", "a2") == []


async def test_what_is_said_of_the_request(machine: Machine, redis: Redis) -> None:
    """The header of a log counts, too: a client may have much to say of a stream."""
    a = await machine.start()
    writer = await a.journal.create("s", INFO._replace(metadata="x" * 9_000))
    writer.append([DONE])
    await acked(writer, 1)
    await until(lambda: counted(redis, "ann") == ["s"])
    assert 13_600 < sum_of(redis, "ann")[0] < 14_100


async def test_each_streams_own_time(machine: Machine, redis: Redis) -> None:
    """A stream counts for as long as Redis keeps it, and one that is kept for a shorter time is the first to go."""
    a = await machine.start(owner=20_000)
    await ended(a, "ann", "hour")
    await until(lambda: counted(redis, "ann") == ["hour"])
    await ended(a, "ann", "short", keep=20)
    await until(lambda: counted(redis, "ann") == ["short", "hour"])
    ttl: Any = redis.ttl(keys.kept("ann"))
    assert ttl > 40, "the index is gone before its last stream"
    await ended(a, "ann", "next")
    await until(lambda: kept(redis, "hour", "short", "next") == ["hour", "next"])
    assert not redis.exists(keys.log("short"))


async def test_what_is_gone(machine: Machine, redis: Redis) -> None:
    """A stream whose time is up counts no more: others do not go for it."""
    a = await machine.start(owner=20_000)
    await ended(a, "ann", "first", keep=1)
    await until(lambda: counted(redis, "ann") == ["first"])
    await ended(a, "ann", "second")
    await until(lambda: not redis.exists(keys.log("first")))
    await ended(a, "ann", "third")
    await until(lambda: counted(redis, "ann") == ["second", "third"])
    assert len(set(sum_of(redis, "ann"))) == 1


async def test_what_is_removed(machine: Machine, redis: Redis) -> None:
    """A stream that its owner deletes counts no more, counted before or not: others do not go for it."""
    a = await machine.start(owner=20_000)
    redis.set(keys.kept("bob"), "x")
    await ended(a, "bob", "b1")
    await ended(a, "ann", "first", "second")
    await until(lambda: counted(redis, "ann") == ["first", "second"])
    await ended(a, "ann", "third")
    for stream_id in ("b1", "first", "third"):
        await a.journal.remove(stream_id)
    await until(lambda: counted(redis, "ann") == ["second"])
    assert sum_of(redis, "ann") == (sum_of(redis, "ann")[1],) * 2
    await ended(a, "ann", "fourth")
    await until(lambda: counted(redis, "ann") == ["second", "fourth"])


async def test_a_deletion_that_fails(machine: Machine, redis: Redis) -> None:
    """It is tried again: a stream counts until it is really gone."""
    a = await machine.start(owner=20_000)
    await ended(a, "ann", "a1", "a2")
    await until(lambda: counted(redis, "ann") == ["a1", "a2"])
    redis.execute_command("ACL", "SETUSER", "default", "-unlink")  # type: ignore[no-untyped-call]  # untyped in redis-py
    try:
        await ended(a, "ann", "a3")
        await until(lambda: counted(redis, "ann") == ["a1", "a2", "a3"])
        assert kept(redis, "a1", "a2", "a3") == ["a1", "a2", "a3"]
    finally:
        redis.execute_command("ACL", "SETUSER", "default", "+unlink")  # type: ignore[no-untyped-call]  # untyped in redis-py
    await until(lambda: kept(redis, "a1", "a2", "a3") == ["a2", "a3"])
    await until(lambda: counted(redis, "ann") == ["a2", "a3"])


async def test_counted_twice(machine: Machine, redis: Redis) -> None:
    """A reply that is lost leads to another try, which counts nothing more."""
    a = await machine.start()
    for _ in range(2):
        a.journal._kept.ended("ann", "s", 500, 60)
    await until(lambda: not a.journal._kept._waiting)
    assert sum_of(redis, "ann") == (500, 500)


async def test_many_streams(machine: Machine, redis: Redis) -> None:
    """To count a stream, Redis works no longer for an owner of fifty thousand streams than for one of none."""
    a = await machine.start(owner=1 << 40)

    async def cost(owner: str) -> float:
        """Return how many microseconds of Redis' time it takes to count a stream."""
        redis.config_resetstat()
        for number in range(10):
            a.journal._kept.ended(owner, f"new{number}", 1, 60)
        await until(lambda: not a.journal._kept._waiting)
        stats: Any = redis.info("commandstats")
        return float(stats["cmdstat_eval"]["usec_per_call"])

    few = min([await cost("few") for _ in range(3)])
    redis.zadd(keys.kept("many"), {f"s{number} 1": 1e12 + number for number in range(50_000)})
    many = min([await cost("many") for _ in range(3)])
    assert many < 20 * few, f"{many} us for many, {few} us for few"


async def test_a_large_one_for_many(machine: Machine, redis: Redis) -> None:
    """However many streams have to go for one, all of them go."""
    a = await machine.start(owner=1_000_000)
    small = [f"s{number}" for number in range(150)]
    await ended(a, "ann", *small, size=1)
    await ended(a, "ann", "large", size=999_000)
    await until(lambda: counted(redis, "ann") == ["large"])
    assert kept(redis, *small) == []


async def test_small_streams(machine: Machine, redis: Redis) -> None:
    """What is counted is about what Redis takes, also for streams of which next to nothing is kept."""
    a = await machine.start(ended=1000)
    before: Any = redis.info("memory")
    await ended(a, "ann", *(f"s{number}" for number in range(300)), size=1)
    await until(lambda: len(counted(redis, "ann")) == 300)
    after: Any = redis.info("memory")
    used = after["used_memory"] - before["used_memory"]
    assert 0.6 * used < sum_of(redis, "ann")[0] < 1.5 * used
