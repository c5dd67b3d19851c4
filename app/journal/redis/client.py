"""What sends commands to Redis: the client of one node, and what it has in common with the client of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ResponseError

# A command as redis-py takes it, or as Redis does.
Command = tuple[bytes | str | int | float, ...] | bytes
# Takes a new connection of redis-py's, and has to await its `on_connect`.
OnConnect = Callable[[Any], Awaitable[None]]
# Called with the connection in hand, before anything is sent; may raise.
Check = Callable[[], None]


class Client(Protocol):
    """Sends commands to a Redis, or to a cluster, over connections of its own."""

    async def pipeline(self, seconds: float, commands: Sequence[Command], check: Check | None = None) -> list[Any]:
        """Send *commands* at once and return their replies within *seconds*, refusals among them.

        Raises RedisError or OSError.
        """

    def pubsub(self) -> PubSub:
        """Return what subscribes to channels. The one that was returned before has to be closed by then."""

    async def aclose(self) -> None:
        """Close all connections."""


class NodeClient:
    """Sends commands to one Redis, over the connections of *pool*."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._redis = Redis.from_pool(pool)
        self._pool = pool

    def pubsub(self) -> PubSub:
        return self._redis.pubsub()

    async def aclose(self) -> None:
        await self._redis.aclose()

    async def pipeline(self, seconds: float, commands: Sequence[Command], check: Check | None = None) -> list[Any]:
        # One timeout for all replies, and not one for each, saves 5 of 9 us a record.
        async with asyncio.timeout(seconds):
            connection: Any = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # untyped in redis-py
            try:
                # redis-py looks for the end of an idle connection, and not for a reset.
                if connection._writer.is_closing():
                    await connection.disconnect(nowait=True)
                    await connection.connect()
                if check is not None:
                    check()
                return await _exchange(connection, commands)
            finally:
                await self._pool.release(connection)


async def _exchange(connection: Any, commands: Sequence[Command]) -> list[Any]:
    # redis-py's own pipeline takes four times as long for the same bytes.
    packed = [each if isinstance(each, bytes) else b"".join(connection.pack_command(*each)) for each in commands]
    replies: list[Any] = []
    try:
        await connection.send_packed_command(b"".join(packed))
        for _ in commands:
            try:
                replies.append(await connection.read_response())
            except ResponseError as error:
                replies.append(error)
    except BaseException:
        await connection.disconnect(nowait=True)  # the next user would read the replies that are still to come
        raise
    return replies
