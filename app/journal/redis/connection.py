"""The way to Redis: trips there and back, and whether it is there at all.

Redis is away from the first trip that fails, or that Redis refuses, to the first that it serves again. Meanwhile nobody
waits for it who can be told so; what cannot (records of live streams) waits for a bounded time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog.typing import FilteringBoundLogger

from app.errors import JournalDown
from app.journal.redis.cluster import Cluster
from app.journal.redis.pipeline import Command as Command
from app.journal.redis.pipeline import exchange

# Trips at once, beside the one that carries records; each takes a connection. When a thousand readers come at once, or
# a thousand copies are looked after, the others wait: redis-py would raise beyond its hundredth.
_TRIPS = 16

# Seconds that every process has, once Redis is back, to find that out and to write again what Redis has lost.
_SETTLING = 10.0

# `trip.exchange` to a certain Redis.
_Exchange = Callable[..., Awaitable[list[Any]]]


class Reconnected(Exception):
    """The wire is a new one: Redis may have been restarted, and have less than it had."""


class Link:
    """One process's way to Redis, over the connections of *client*.

    `on_failed` is told of every failure, after which nothing is to be taken for granted; `on_despair` that Redis has
    been away for *patience* seconds.
    """

    def __init__(self, client: Redis | Cluster, trip: float, patience: float, log: FilteringBoundLogger) -> None:
        self._exchange = _way(client)
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
        return await self._exchange(self._trip, commands)


class Wire:
    """The one connection over which records go to Redis, that of *client*; it knows whether it is still the same.

    Of a cluster, it is one to each node, and none of them may be a new one.
    """

    def __init__(self, client: Redis | Cluster, trip: float) -> None:
        self._exchange = _way(client)
        self._trip = trip
        self._made = 0
        self._trusted: int | None = None
        if isinstance(client, Cluster):
            client.on_connect = self._connected
        else:
            client.connection_pool.connection_kwargs["redis_connect_func"] = self._connected

    async def _connected(self, connection: Any) -> None:
        await connection.on_connect()
        self._made += 1

    def trust(self) -> None:
        """Take the connection for granted as it is now."""
        self._trusted = self._made

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """See `Link.exchange`. Raises Reconnected, having sent nothing, if the connection is not the trusted one."""
        return await self._exchange(self._trip, commands, self._check)

    def _check(self) -> None:
        if self._trusted is None:  # with the first one, there is nothing yet to have been lost
            self._trusted = self._made
        if self._made != self._trusted:
            raise Reconnected


def _way(client: Redis | Cluster) -> _Exchange:
    return client.exchange if isinstance(client, Cluster) else partial(exchange, client)


def _reason(error: Exception) -> str:
    """Return what operators look for, in Redis' own word for it (OOM, READONLY, LOADING, MISCONF), or nothing."""
    # redis-py cuts the word off where it has a class for it.
    word = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    return word if isinstance(error, RedisError) and word.isalpha() and word.isupper() else ""
