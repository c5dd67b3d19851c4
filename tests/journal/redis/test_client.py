"""One pipeline over one connection of a real Redis."""

from __future__ import annotations

import pytest
from redis import Redis
from redis.asyncio import ConnectionPool
from redis.exceptions import ResponseError

from app.journal.redis.client import Command, NodeClient
from app.journal.redis.entries import append
from tests.real.redis import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.real]


async def test_replies_and_refusals(server: RedisServer, redis: Redis) -> None:
    """Replies come in the order of their commands, refusals among them, however the commands are written."""
    client = NodeClient(ConnectionPool.from_url(server.url))
    redis.xadd("log", {"e": "[]"}, id="0-1")
    redis.set("text", "x")
    commands: list[Command] = [append(b"log", 1, b"[]"), ("XLEN", "log"), ("XLEN", "text"), ("GET", b"text")]
    first, length, refusal, text = await client.pipeline(5.0, commands)
    assert (first, length, text) == (b"1-0", 2, b"x")
    assert isinstance(refusal, ResponseError)
    await client.aclose()


async def test_a_pipeline_that_takes_too_long(server: RedisServer, redis: Redis) -> None:
    """A reply that was not waited for is never read as the reply to what is sent next."""
    client = NodeClient(ConnectionPool.from_url(server.url))
    with pytest.raises(TimeoutError):
        await client.pipeline(0.05, [("BLPOP", "nothing", 1)])
    assert await client.pipeline(5.0, [("ECHO", "x")]) == [b"x"]
    await client.aclose()


async def test_nothing_is_sent_before_the_check(server: RedisServer, redis: Redis) -> None:
    """If the check raises, the connection stays as it was and nothing was sent."""

    def refuse() -> None:
        raise RuntimeError

    client = NodeClient(ConnectionPool.from_url(server.url))
    with pytest.raises(RuntimeError):
        await client.pipeline(5.0, [("SET", "x", "1")], refuse)
    assert await client.pipeline(5.0, [("EXISTS", "x")]) == [0]
    await client.aclose()
