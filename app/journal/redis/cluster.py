"""A Redis Cluster of several nodes, spoken to as if it were one Redis.

Every command touches one key at most. A trip is parted by the nodes that have the keys, and the parts are sent at once.
Which node has what is asked anew after anything has failed; what a node refuses because it does not, or no longer, have
the key makes the trip fail as a whole, just as if that node were gone. Whoever sent it compares and tries again.

A message that is published on any node reaches the subscribers of all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.connection import parse_url
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, RedisError, ResponseError, TryAgainError

from app.journal.redis.pipeline import Command, exchange

# How urls of a cluster begin, with what they are for a single node.
SCHEMES = {"redis+cluster://": "redis://", "rediss+cluster://": "rediss://"}
# A node that is asked for the topology has this part of a trip's time: the next may know better.
_PART = 0.25
# That a node does not serve a key: another does (a MovedError is an AskError), or none does now.
_ELSEWHERE = (AskError, TryAgainError, ClusterDownError)

# Host and port.
Address = tuple[str, int]


class Chart(NamedTuple):
    """Which node has which slots: *masters* are all of them, *owners* one for each slot, or None."""

    version: int
    masters: tuple[Address, ...]
    owners: Sequence[Address | None]


class Topology:
    """What is known of the cluster at *url*, which names any node of it; *options* are redis-py's for connections."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        scheme, separator, rest = url.partition("://")
        parsed: dict[str, Any] = {**parse_url(SCHEMES[scheme + separator] + rest)}
        self._seed: Address = parsed.pop("host", "localhost"), parsed.pop("port", 6379)
        self._options = {**options, **parsed}
        self._chart = Chart(0, (), ())
        self._doubted = 0  # the last version that something speaks against
        self._asking = asyncio.Lock()
        self._turn = 0

    def __repr__(self) -> str:
        return f"<Topology {self._chart.version}: {len(self._chart.masters)} masters{', stale' * self.stale}>"

    @property
    def stale(self) -> bool:
        """Whether the last chart is wrong, or may be."""
        return self._doubted == self._chart.version

    def client(self, address: Address) -> Redis:
        """Return a new client of one node."""
        host, port = address
        return Redis.from_pool(ConnectionPool(**{**self._options, "host": host, "port": port}))

    def next(self) -> Address:
        """Return one of the nodes, each time another one: any may be gone."""
        known = [*(each for each in self._chart.masters if each != self._seed), self._seed]
        self._turn += 1
        return known[self._turn % len(known)]

    def doubt(self, version: int) -> None:
        """Take the chart of that *version* for wrong."""
        self._doubted = max(self._doubted, version)

    async def chart(self, seconds: float) -> Chart:
        """Return a chart that nothing speaks against. Raises RedisError or OSError, within *seconds* for each node."""
        if self.stale:
            async with self._asking:
                await self._renew(seconds)
        return self._chart

    async def _renew(self, seconds: float) -> None:
        left = len(self._chart.masters)
        while self.stale:
            try:
                await self._ask(self.next(), seconds)
            except (RedisError, OSError):
                if not left:
                    raise
                left -= 1

    async def _ask(self, address: Address, seconds: float) -> None:
        client = self.client(address)
        try:
            [ranges] = await exchange(client, seconds, [("CLUSTER", "SLOTS")])
        finally:
            await client.aclose()
        if isinstance(ranges, ResponseError):
            raise ranges
        owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, (host, port, *_), *_ in ranges:
            # A node that does not know its own name is where it was found.
            owner = host.decode() if host and host != b"?" else address[0], int(port)
            owners[first : last + 1] = [owner] * (last + 1 - first)
        masters = tuple(sorted({owner for owner in owners if owner is not None}))
        self._chart = Chart(self._chart.version + 1, masters, owners)


class Cluster:
    """Clients of all nodes of a *topology*, which several may share; each has connections of its own.

    `on_connect` is awaited with every new connection, instead of its own `on_connect`, if it is set before the first.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._clients: dict[Address, Redis] = {}
        self._version = 0
        self._ears: Redis | None = None
        self.on_connect: Any = None

    def __repr__(self) -> str:
        return f"<Cluster {self._topology!r}: {len(self._clients)} clients>"

    @property
    def clients(self) -> list[Redis]:
        """The clients of all nodes that there was something to say to."""
        return [*self._clients.values(), *([self._ears] if self._ears is not None else [])]

    def pubsub(self) -> PubSub:
        """Return what subscribes at one of the nodes, each time at another one. The one before is to be closed."""
        self._ears = self._topology.client(self._topology.next())
        return self._ears.pubsub()

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self.clients:
            await client.aclose()

    async def exchange(
        self, seconds: float, commands: Sequence[Command], check: Callable[[], None] | None = None
    ) -> list[Any]:
        """See `trip.exchange`. All nodes share the *seconds*, and if one of them fails, the trip has failed.

        What is for the others gets there all the same: a lease that was kept from a healthy node by a dead one would
        make its process count as gone.
        """
        version = 0
        try:
            async with asyncio.timeout(seconds):
                chart = await self._topology.chart(seconds * _PART)
                version = chart.version
                if self._version != version:
                    await self._adopt(chart)
                    if check is not None:  # what is connected at once is checked once
                        await self._connect(chart, seconds * _PART)
                parts = _part(chart, commands)
                trips = [
                    exchange(self._client(address), seconds, [commands[place] for place in places], check)
                    for address, places in parts.items()
                ]
                # Each to its end: a connection that is given up in the middle is a new one the next time.
                answers = await asyncio.gather(*trips, return_exceptions=True)
            return _joined(len(commands), list(parts.values()), answers)
        except (RedisError, OSError):
            self._topology.doubt(version)
            raise

    def _client(self, address: Address) -> Redis:
        client = self._clients.get(address)
        if client is None:
            client = self._clients[address] = self._topology.client(address)
            if self.on_connect is not None:
                client.connection_pool.connection_kwargs["redis_connect_func"] = self.on_connect
        return client

    async def _adopt(self, chart: Chart) -> None:
        """Forget the nodes that are not in *chart*."""
        self._version = chart.version
        for address in self._clients.keys() - set(chart.masters):
            await self._clients.pop(address).aclose()

    async def _connect(self, chart: Chart, seconds: float) -> None:
        """Connect to all nodes that can be reached within *seconds*."""
        trips = [exchange(self._client(address), seconds, [("PING",)]) for address in chart.masters]
        await asyncio.gather(*trips, return_exceptions=True)


def create_clients(url: str, options: dict[str, Any], number: int) -> Sequence[Redis | Cluster]:
    """Return so many ways to the Redis, or the cluster, at *url*, each with connections of its own."""
    if url.startswith(tuple(SCHEMES)):
        topology = Topology(url, options)
        return [Cluster(topology) for _ in range(number)]
    return [Redis.from_url(url, **options) for _ in range(number)]


def _part(chart: Chart, commands: Sequence[Command]) -> dict[Address, list[int]]:
    """Return the places of the *commands* for each node. Raises ClusterDownError if no node has a key."""
    parts: dict[Address, list[int]] = {}
    for place, command in enumerate(commands):
        owner = chart.owners[key_slot(_key(command))]
        if owner is None:
            raise ClusterDownError("CLUSTERDOWN a slot has no node", status_code="CLUSTERDOWN")
        parts.setdefault(owner, []).append(place)
    return parts


def _key(command: Command) -> bytes:
    """Return the key of *command*; of one without, something that always sends it and its like to the same node."""
    if isinstance(command, bytes):
        *_, size, rest = command.split(b"\r\n", 4)
        return rest[: int(size[1:])]
    key = command[3 if command[0] == "EVAL" else 1]
    return key if isinstance(key, bytes) else str(key).encode()


def _joined(number: int, parts: Sequence[list[int]], answers: Sequence[list[Any] | BaseException]) -> list[Any]:
    """Return the replies in the order of their commands. Raises what any node has raised, or a word that it has not."""
    replies: list[Any] = [None] * number
    for places, answer in zip(parts, answers, strict=True):
        if isinstance(answer, BaseException):
            raise answer
        for place, reply in zip(places, answer, strict=True):
            if isinstance(reply, _ELSEWHERE):
                raise reply
            replies[place] = reply
    return replies
