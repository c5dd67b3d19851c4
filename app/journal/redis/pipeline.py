"""One trip to one Redis: many commands there, their replies back."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

# As redis-py takes it, or as Redis does.
Command = tuple[bytes | str | int | float, ...] | bytes


async def exchange(
    client: Redis, seconds: float, commands: Sequence[Command], check: Callable[[], None] | None = None
) -> list[Any]:
    """Send *commands* over one connection of *client* and return their replies, refusals among them.

    *check* is called before anything is sent, and may raise. Raises RedisError or OSError.
    """
    pool = client.connection_pool
    # Not a timeout for each reply, but one for all, which saves 5 of 9 us a record.
    async with asyncio.timeout(seconds):
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # untyped in redis-py
        try:
            if check is not None:
                check()
            # Not a pipeline, which costs four times as much for the same bytes.
            pack = connection.pack_command
            packed = [each if isinstance(each, bytes) else b"".join(pack(*each)) for each in commands]
            replies: list[Any] = []
            try:
                await connection.send_packed_command(b"".join(packed))
                for _ in commands:
                    try:
                        replies.append(await connection.read_response(timeout=math.inf))
                    except ResponseError as error:
                        replies.append(error)
            except BaseException:
                await connection.disconnect(nowait=True)  # else the next one reads what was meant for us
                raise
            return replies
        finally:
            await pool.release(connection)
