"""A Redis Cluster of several nodes, spoken to as if it were one Redis.

The keys of a command are in one slot. A pipeline is split by the nodes that have the keys, and the parts are sent at
once. The topology is asked for again after anything has failed. If a node refuses a command because it does not have
the key, the whole pipeline fails, just as if that node were gone: the sender compares and tries again. A message that
is published on any node reaches the subscribers of all.

redis-py's own `RedisCluster` is not used, because its failures are others. It follows redirections and connects again
in silence, after which records that Redis lost would not be noticed. It asks the nodes for the topology one after the
other without a time limit for each, so one node that hangs makes the refresh fail. And it reports every refusal to
tell the topology as "Cluster mode is not enabled".
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.asyncio import ConnectionPool
from redis.asyncio.client import PubSub
from redis.asyncio.connection import parse_url
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, RedisError, ResponseError, TryAgainError

from app.journal.redis.client import Check, Command, NodeClient, OnConnect

# How the urls of a cluster begin, and how redis-py's urls of a single node begin.
SCHEMES = {"redis+cluster://": "redis://", "rediss+cluster://": "rediss://"}
# A node that is asked for the topology has this part of a pipeline's time: another node may answer sooner.
_PART = 0.25
# A node's refusals of a key that it does not serve: another node does (a MovedError is an AskError), or none does now.
_ELSEWHERE = (AskError, TryAgainError, ClusterDownError)

# Host and port.
Address = tuple[str, int]


class SlotMap(NamedTuple):
    """Which node has which slots: *masters* are all nodes with slots, *owners* has one of them, or None, per slot."""

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
        self._map = SlotMap(0, (), ())
        self._outdated = 0  # the last version that something speaks against
        self._asking = asyncio.Lock()
        self._turn = 0

    @property
    def outdated(self) -> bool:
        """Whether the last map may be wrong."""
        return self._outdated == self._map.version

    def client(self, address: Address, on_connect: OnConnect | None = None) -> NodeClient:
        """Return a new client of one node."""
        host, port = address
        options = {**self._options, "host": host, "port": port, "redis_connect_func": on_connect}
        return NodeClient(ConnectionPool(**options))

    def next(self) -> Address:
        """Return the address of a node, each time of another one: any of them may be gone."""
        known = [*(each for each in self._map.masters if each != self._seed), self._seed]
        self._turn += 1
        return known[self._turn % len(known)]

    def mark_outdated(self, version: int) -> None:
        """Take the map of that *version* for wrong."""
        self._outdated = max(self._outdated, version)

    async def slot_map(self, seconds: float) -> SlotMap:
        """Return a map that nothing speaks against. Raises RedisError or OSError, within *seconds* for each node."""
        async with self._asking:
            left = len(self._map.masters)
            while self.outdated:
                try:
                    self._map = await self._ask(self.next(), seconds)
                except (RedisError, OSError):
                    if not left:
                        raise
                    left -= 1
        return self._map

    async def _ask(self, address: Address, seconds: float) -> SlotMap:
        client = self.client(address)
        try:
            [ranges] = await client.pipeline(seconds, [("CLUSTER", "SLOTS")])
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
        return SlotMap(self._map.version + 1, masters, owners)


class ClusterClient:
    """Sends commands to the nodes of a cluster. Several clients may share one *topology*.

    *on_connect* is awaited with every new connection, in place of the connection's own `on_connect`.
    """

    def __init__(self, topology: Topology, on_connect: OnConnect | None = None) -> None:
        self._topology = topology
        self._on_connect = on_connect
        self._clients: dict[Address, NodeClient] = {}
        self._version = 0
        self._subscriber: NodeClient | None = None

    def pubsub(self) -> PubSub:
        """Return what subscribes at one of the nodes, each time at another one."""
        self._subscriber = self._topology.client(self._topology.next())
        return self._subscriber.pubsub()

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.aclose()
        if self._subscriber is not None:
            await self._subscriber.aclose()

    async def pipeline(self, seconds: float, commands: Sequence[Command], check: Check | None = None) -> list[Any]:
        """See `Client.pipeline`. If one node fails, the pipeline has failed.

        What the other nodes were sent gets there all the same. If a dead node kept a lease from a healthy one, the
        lease's process would count as gone.
        """
        version = 0
        try:
            async with asyncio.timeout(seconds):
                slot_map = await self._topology.slot_map(seconds * _PART)
                version = slot_map.version
                if self._version != version:
                    await self._adopt(slot_map)
                    if check is not None:  # connected to all nodes now, the caller sees new connections once
                        await self._connect(slot_map, seconds * _PART)
                parts = _split(slot_map, commands)
                sending = [
                    self._client(address).pipeline(seconds, [commands[place] for place in places], check)
                    for address, places in parts.items()
                ]
                # Each to its end: a connection that is given up halfway has to be made again.
                answers = await asyncio.gather(*sending, return_exceptions=True)
            return _join(len(commands), list(parts.values()), answers)
        except (RedisError, OSError):
            self._topology.mark_outdated(version)
            raise

    def _client(self, address: Address) -> NodeClient:
        client = self._clients.get(address)
        if client is None:
            client = self._clients[address] = self._topology.client(address, self._on_connect)
        return client

    async def _adopt(self, slot_map: SlotMap) -> None:
        """Forget the nodes that are not in *slot_map*."""
        self._version = slot_map.version
        for address in self._clients.keys() - set(slot_map.masters):
            await self._clients.pop(address).aclose()

    async def _connect(self, slot_map: SlotMap, seconds: float) -> None:
        """Connect to all nodes that can be reached within *seconds*."""
        pings = [self._client(address).pipeline(seconds, [("PING",)]) for address in slot_map.masters]
        await asyncio.gather(*pings, return_exceptions=True)


def _split(slot_map: SlotMap, commands: Sequence[Command]) -> dict[Address, list[int]]:
    """Return the places of the *commands* for each node. Raises ClusterDownError if no node has a key."""
    parts: dict[Address, list[int]] = {}
    for place, command in enumerate(commands):
        owner = slot_map.owners[key_slot(_key(command))]
        if owner is None:
            raise ClusterDownError("CLUSTERDOWN a slot has no node", status_code="CLUSTERDOWN")
        parts.setdefault(owner, []).append(place)
    return parts


def _key(command: Command) -> bytes:
    """Return the key of *command*; if it has none, its first argument, so that one node gets all of its kind."""
    if isinstance(command, bytes):
        # Before it come the number of parts, the length and the name of the command, and the key's length.
        return command.split(b"\r\n", 5)[4]
    key = command[3 if command[0] == "EVAL" else 1]
    return key if isinstance(key, bytes) else str(key).encode()


def _join(number: int, parts: Sequence[list[int]], answers: Sequence[list[Any] | BaseException]) -> list[Any]:
    """Return the replies in the order of their commands. Raises what a node has raised, or answered without the key."""
    replies: list[Any] = [None] * number
    for places, answer in zip(parts, answers, strict=True):
        if isinstance(answer, BaseException):
            raise answer
        for place, reply in zip(places, answer, strict=True):
            if isinstance(reply, _ELSEWHERE):
                raise reply
            replies[place] = reply
    return replies
