"""The way to Redis: trips there and back, and whether it is there at all.

Redis is away from the first trip that fails, or that Redis refuses, to the first that it serves again. Meanwhile nobody
waits for it who can be told so; what cannot (records of live streams) waits for a bounded time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from structlog.typing import FilteringBoundLogger

from app.errors import JournalDown

# Trips at once, beside the one that carries records; each takes a connection. When a thousand readers come at once, or
# a thousand copies are looked after, the others wait: redis-py would raise beyond its hundredth.
_TRIPS = 16

# Seconds that every process has, once Redis is back, to find that out and to write again what Redis has lost.
_SETTLING = 10.0

# As redis-py takes it, or as Redis does.
Command = tuple[bytes | str | int | float, ...] | bytes


class Reconnected(Exception):
    """The wire is a new one: Redis may have been restarted, and have less than it had."""


class Link:
    """One process's way to Redis, over the connections of *client*.

    `on_failed` is told of every failure, after which nothing is to be taken for granted; `on_despair` that Redis has
    been away for *patience* seconds.
    """

    def __init__(self, client: Redis, trip: float, patience: float, log: FilteringBoundLogger) -> None:
        self._client = client
        self._trip = trip
        self._patience = patience
        self._log = log
        self._trips = asyncio.Semaphore(_TRIPS)
        self._since: float | None = None
        self._settled_at = 0.0
        self._told: set[str] = set()  # what was logged since then
        self._despair: asyncio.TimerHandle | None = None
        self.on_failed: Callable[[], None] = lambda: None
        self.on_despair: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<Link {'away' if self.away else 'up'}>"

    @property
    def away(self) -> bool:
        """Whether Redis did not answer, or refused, when it was last asked."""
        return self._since is not None

    @property
    def settled(self) -> bool:
        """Whether Redis is there, and can be believed that what it does not have does not exist."""
        return not self.away and asyncio.get_running_loop().time() >= self._settled_at

    def failed(self, error: Exception) -> None:
        """Note that Redis is not there, and log why: once, until it is back."""
        loop = asyncio.get_running_loop()
        reason = _reason(error)
        if self._since is None:
            self._since = loop.time()
            self._told.clear()
            self._despair = loop.call_later(self._patience, self._despaired)
        if not self._told or (reason and reason not in self._told):
            self._told.add(reason)
            self._log.error("journal.away", error=type(error).__name__, reason=reason)
        self.on_failed()

    def answered(self) -> None:
        """Note that Redis is there."""
        if self._since is not None:
            now = asyncio.get_running_loop().time()
            away, self._settled_at = now - self._since, now + _SETTLING
            self.close()
            self._log.info("journal.back", away=round(away, 3))

    def close(self) -> None:
        """Wait for nothing any more."""
        self._since = None
        if self._despair is not None:
            self._despair.cancel()
            self._despair = None

    def _despaired(self) -> None:
        # Again, if it lasts: a trip that came through at the last moment may have left something that waits.
        self._despair = asyncio.get_running_loop().call_later(self._patience, self._despaired)
        self.on_despair()

    async def ask(self, *commands: Command) -> list[Any]:
        """Send *commands* in one trip and return their replies. Raises JournalDown, at once while Redis is away."""
        if self.away:
            raise JournalDown
        async with self._trips:
            if self.away:  # it went while we waited for our turn
                raise JournalDown
            try:
                return await self.asked(*commands)
            except (RedisError, OSError) as error:
                self.failed(error)
                raise JournalDown from None

    async def asked(self, *commands: Command) -> list[Any]:
        """Send *commands* in one trip and return their replies. Raises RedisError or OSError, also for a refusal."""
        replies = await self.exchange(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send *commands* in one trip and return their replies, refusals among them. Raises RedisError or OSError."""
        return await _exchange(self._client, self._trip, commands)


class Wire:
    """The one connection over which records go to Redis, that of *client*; it knows whether it is still the same."""

    def __init__(self, client: Redis, trip: float) -> None:
        self._client = client
        self._trip = trip
        self._made = 0
        self._trusted = 1  # with the first one, there is nothing yet to have been lost
        client.connection_pool.connection_kwargs["redis_connect_func"] = self._connected

    async def _connected(self, connection: Any) -> None:
        await connection.on_connect()
        self._made += 1

    def trust(self) -> None:
        """Take the connection for granted as it is now."""
        self._trusted = self._made

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """See `Link.exchange`. Raises Reconnected, having sent nothing, if the connection is not the trusted one."""
        return await _exchange(self._client, self._trip, commands, self._check)

    def _check(self) -> None:
        if self._made != self._trusted:
            raise Reconnected


async def _exchange(
    client: Redis, seconds: float, commands: Sequence[Command], check: Callable[[], None] | None = None
) -> list[Any]:
    pool = client.connection_pool
    # Not a timeout for each reply, but one for all, which saves 5 of 9 us a record.
    async with asyncio.timeout(seconds):
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            if check is not None:
                check()
            # Not a pipeline, which costs four times as much for the same bytes.
            pack = connection.pack_command
            packed = [each if isinstance(each, bytes) else b"".join(pack(*each)) for each in commands]
            replies: list[Any] = []
            await connection.send_packed_command(b"".join(packed))
            for _ in commands:
                try:
                    replies.append(await connection.read_response(timeout=math.inf))
                except ResponseError as error:
                    replies.append(error)
            return replies
        except Reconnected:
            raise
        except BaseException:
            await connection.disconnect(nowait=True)  # else the next one reads what was meant for us
            raise
        finally:
            await pool.release(connection)


def _reason(error: Exception) -> str:
    """Return what operators look for, in Redis' own word for it (OOM, READONLY, LOADING, MISCONF), or nothing."""
    # redis-py cuts the word off where it has a class for it.
    word = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    return word if isinstance(error, RedisError) and word.isalpha() and word.isupper() else ""
