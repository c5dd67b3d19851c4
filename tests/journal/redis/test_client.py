"""One pipeline over one connection of a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from redis import Redis
from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError, ResponseError

from app.journal.redis.client import Command, NodeClient
from app.journal.redis.entries import append
from tests.real.proxy import Proxy
from tests.real.redis import RedisServer
from tests.waiting import until

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


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_connection_that_was_reset(
    server: RedisServer, redis: Redis, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A connection that was reset while it was idle is replaced, and fails no request."""
    with Proxy(server.url) as proxy, asyncio.Runner(loop_factory=loop_factory) as runner:
        pool = ConnectionPool(port=int(proxy.url.rpartition(":")[2]))
        client = NodeClient(pool)

        async def reset() -> None:
            assert await client.pipeline(5.0, [("ECHO", "x")]) == [b"x"]
            proxy.cut(reset=True)
            idle: Any = pool._available_connections[0]
            await until(lambda: idle._writer.transport.is_closing())
            assert await client.pipeline(5.0, [("ECHO", "x")]) == [b"x"]
            await client.aclose()

        runner.run(reset())


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_connection_that_is_reset_meanwhile(
    server: RedisServer, redis: Redis, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A connection that is reset while it is used fails what it was used for, and the next one works."""
    with Proxy(server.url) as proxy, asyncio.Runner(loop_factory=loop_factory) as runner:
        client = NodeClient(ConnectionPool(port=int(proxy.url.rpartition(":")[2])))

        async def reset() -> None:
            assert await client.pipeline(5.0, [("ECHO", "x")]) == [b"x"]
            with pytest.raises((RedisError, OSError)):
                await client.pipeline(5.0, [("ECHO", "x")], lambda: proxy.cut(reset=True))
            assert await client.pipeline(5.0, [("ECHO", "x")]) == [b"x"]
            await client.aclose()

        runner.run(reset())
