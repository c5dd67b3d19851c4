"""The ways to Redis, and whether Redis is there at all.

Redis is *away* from the first pipeline that fails, or that Redis refuses, to the first that Redis serves again.
Meanwhile requests are told so at once; the records of live streams wait for a bounded time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from structlog.typing import FilteringBoundLogger

from app.errors import JournalDown
from app.journal.availability import Availability
from app.journal.redis.client import Client, Command, NodeClient, OnConnect
from app.journal.redis.cluster import SCHEMES, ClusterClient, Topology
from app.journal.redis.failures import own_word, place, why
from app.journal.redis.timing import Timing

# Requests to Redis at once, each over a connection of its own. When a thousand readers come at once, the others wait
# for their turn: redis-py raises beyond its hundredth connection.
_AT_ONCE = 16

# Makes a client that awaits the given function with every new connection.
Connector = Callable[[OnConnect | None], Client]


def connector(url: str, timing: Timing) -> Connector:
    """Return what makes clients of the Redis, or of the cluster, at *url*."""
    options: dict[str, Any] = {
        # redis-py's own retries would hide that Redis was away, after which it may have less than it had.
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        # A pipeline has one timeout as a whole, and a channel may well be silent. Besides, with a timeout redis-py
        # sends by `asyncio.wait_for`, which until Python 3.12 may swallow that its task is cancelled.
        "socket_timeout": None,
        "socket_connect_timeout": timing.connect,
    }
    if not url.startswith("unix://"):
        options["socket_keepalive"] = True
    if url.startswith(tuple(SCHEMES)):
        return partial(ClusterClient, Topology(url, options))
    return lambda on_connect: NodeClient(ConnectionPool.from_url(url, **options, redis_connect_func=on_connect))


class RedisConnection(Availability):
    """One process's way to the Redis at *url* for everything but records and messages, over *client*.

    `failures` counts how often Redis was away or refused. After each failure the committer, which *wake* wakes,
    compares what Redis has with what it had acknowledged.
    """

    def __init__(
        self, client: Client, url: str, wake: asyncio.Event, timing: Timing, log: FilteringBoundLogger
    ) -> None:
        def explain(error: Exception) -> dict[str, str]:
            return {"reason": own_word(error), "cause": why(error, url), "redis": place(url)}

        super().__init__(explain, log)
        self._client = client
        self._wake = wake
        self._timing = timing
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._settled_at = 0.0
        self.failures = 0

    def __repr__(self) -> str:
        return f"<RedisConnection {'away' if self.away else 'up'}>"

    @property
    def settled(self) -> bool:
        """Whether Redis is there, and what it does not have does not exist."""
        return not self.away and asyncio.get_running_loop().time() >= self._settled_at

    def failed(self, error: Exception) -> None:
        super().failed(error)
        self.failures += 1
        self._wake.set()

    def answered(self) -> bool:
        was_away = super().answered()
        if was_away:
            self._settled_at = asyncio.get_running_loop().time() + self._timing.settling
        return was_away

    async def request(self, *commands: Command) -> list[Any]:
        """Send *commands* at once and return their replies.

        Raises JournalDown, immediately while Redis is away; Unanswered if Redis may have run some of them.
        """
        if self.away:
            raise JournalDown
        async with self._turns:
            if self.away:  # Redis went away while this request waited for its turn
                raise JournalDown
            try:
                return await self.execute(*commands)
            except (RedisError, OSError) as error:
                if not is_foreign(error):
                    self.failed(error)
                raise Unanswered from None

    async def execute(self, *commands: Command) -> list[Any]:
        """Send *commands* at once and return their replies. Raises RedisError or OSError, also for a refusal."""
        replies = await self.pipeline(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """Send *commands* at once and return their replies, refusals among them. Raises RedisError or OSError."""
        return await self._client.pipeline(self._timing.pipeline, commands)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()


class Unanswered(JournalDown):
    """Redis did not answer, or refused: it may have done what it was asked, or a part of it."""


class Reconnected(Exception):
    """The connection is a new one: Redis may have been restarted, and have less than it had."""


class RecordConnection:
    """The one connection that carries records to Redis, and that knows whether it is still the same one.

    To a cluster it is one connection to each node, and none of them may be new.
    """

    def __init__(self, connect: Connector, timing: Timing) -> None:
        self._client = connect(self._connected)
        self._timing = timing
        self._made = 0
        self._trusted: int | None = None

    async def _connected(self, connection: Any) -> None:
        await connection.on_connect()
        self._made += 1

    def trust(self) -> None:
        """Take the connection as it is now for the right one."""
        self._trusted = self._made

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """Send *commands* as `RedisConnection.pipeline` does.

        Raises Reconnected, and sends nothing, if the connection is not the trusted one.
        """
        return await self._client.pipeline(self._timing.pipeline, commands, self._check)

    def _check(self) -> None:
        if self._trusted is None:  # before the first connection, nothing was sent that could be lost
            self._trusted = self._made
        if self._made != self._trusted:
            raise Reconnected

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()


def is_foreign(reply: object) -> bool:
    """Whether Redis refused because something else is at a key: no reason to stop what is at the others."""
    return isinstance(reply, ResponseError) and "WRONGTYPE" in str(reply)
