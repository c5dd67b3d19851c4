"""A Redis Cluster of three real nodes: streams are spread over them, and outlive a node's restart and a slot's move."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from limits import RateLimitItemPerMinute
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisError
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.composition.service import create_counts
from app.composition.settings import Settings
from app.edge.access.rates import Rate, SharedCounts
from app.errors import JournalDown, KeyReused
from app.events import Delta, Failure
from app.journal.redis import keys
from app.journal.redis.cluster import ClusterClient
from app.journal.redis.entries import HEADER, append
from app.request import StreamInfo, keyed_hash
from tests.journal.processes import (
    DONE,
    FAST,
    INFO,
    Machine,
    Process,
    acked,
    opened,
    read,
    reading,
    text,
)
from tests.ports import free_port
from tests.real.redis import RedisServer, launch_redis
from tests.waiting import until, wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.real]

# Milliseconds until the nodes take one of them for gone.
_NODE_TIMEOUT = 1000
# Seconds for a node to come back: it is started, found again by the others, and waits until it may write.
_BACK = 60.0


class Node(RedisServer):
    """One node, which keeps its place in the cluster and nothing else."""

    def __init__(self, directory: Path) -> None:
        binary = shutil.which("redis-server")
        assert binary is not None
        port = _free_port()
        self._directory = directory
        self._command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory), "--save", ""]
        self._command += ["--cluster-enabled", "yes", "--cluster-node-timeout", str(_NODE_TIMEOUT)]
        self.url = f"redis://127.0.0.1:{port}/0"
        self._begin()

    def run(self, *command: Any) -> Any:
        """Send one command to this node, and to no other."""
        with self.client() as client:
            return client.execute_command(*command)

    def logs(self) -> set[bytes]:
        """Return the keys of the logs that are on this node."""
        with self.client() as client:
            return set(client.keys("*:log"))


def _free_port() -> int:
    """Return a free port whose bus has one, too: ten thousand above."""
    while True:
        with socket.socket() as sock, socket.socket() as bus:
            sock.bind(("127.0.0.1", 0))
            port: int = sock.getsockname()[1]
            if port < 55_000:
                try:
                    bus.bind(("127.0.0.1", port + 10_000))
                except OSError:
                    continue
                return port


def _whole(nodes: list[Node]) -> bool:
    """Whether all nodes see one another, and serve all slots."""
    for node in nodes:
        with node.client() as client:
            info: Any = client.cluster("info")
        if info["cluster_state"] != "ok" or info["cluster_known_nodes"] != str(len(nodes)):
            return False
    return True


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Three masters with a third of the slots each."""
    with ExitStack() as held:
        nodes = []
        for name in "abc":
            nodes.append(Node(tmp_path_factory.mktemp(f"node-{name}")))
            held.callback(nodes[-1].stop)
        bounds = [REDIS_CLUSTER_HASH_SLOTS * number // 3 for number in range(4)]
        for node, first, following in zip(nodes, bounds, bounds[1:], strict=False):
            node.run("CLUSTER", "ADDSLOTSRANGE", first, following - 1)
            node.run("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        wait_until(lambda: _whole(nodes))
        yield nodes


@pytest.fixture
async def machine(nodes: list[Node], log: FilteringBoundLogger) -> AsyncIterator[Machine]:
    """Where processes are started, which know the first node's address."""
    for node in nodes:
        node.run("FLUSHALL")
    # Several of these servers share two processors. A lease outlasts a pipeline that fails.
    timing = replace(FAST, pipeline=1.0, lease=2.0)
    async with AsyncExitStack() as held:
        yield Machine(f"redis+cluster://127.0.0.1:{nodes[0].port}", log, held, timing)


def node_of(nodes: list[Node], stream_id: str) -> Node:
    """Return the node that has a stream's log; that it is there is checked."""
    [found] = [node for node in nodes if keys.log(stream_id) in node.logs()]
    return found


async def test_spread(machine: Machine, nodes: list[Node]) -> None:
    """Streams are on all nodes, and other processes read them without a gap."""
    a, b = [await machine.start() for _ in "ab"]
    writers = [await a.journal.create(f"s{number}", INFO) for number in range(30)]
    assert sorted(len(node.logs()) > 2 for node in nodes) == [True] * 3
    readers = [asyncio.create_task(opened(b.journal, writer.id)) for writer in writers]
    await until(lambda: sum(a.owner.readers.values()) == 30)
    for number in range(100):
        for writer in writers:
            writer.append([Delta(f"{number} ")])
        await asyncio.sleep(0)
    for writer in writers:
        writer.append([DONE])
    whole = "".join(f"{number} " for number in range(100))
    assert [text(events) for events in await asyncio.gather(*readers)] == [whole] * 30
    late = await machine.start()
    assert text(await opened(late.journal, "s7", after=1)) == whole[2:]
    assert a.owner.stopped == []


async def test_replies_in_order(machine: Machine, nodes: list[Node]) -> None:
    """A pipeline's replies are in the order of its commands, whichever nodes they come from."""
    a = await machine.start()
    names = [f"n{number}" for number in range(60)]
    commands: list[Any] = [("XADD", keys.log(name), HEADER, b"f", name) for name in names]
    await a.journal._connection.execute(*commands)
    commands = [append(keys.log(name), number + 1, b"x") for number, name in enumerate(names)]
    assert await a.journal._connection.execute(*commands) == [b"%d-0" % (number + 1) for number in range(60)]
    commands = [("EVAL", "return ARGV[1]", 1, name, name) for name in names]
    assert await a.journal._connection.execute(*commands) == [name.encode() for name in names]
    assert sum(len(node.logs()) for node in nodes) == 60
    assert all(node.logs() for node in nodes)


async def test_list(machine: Machine, nodes: list[Node]) -> None:
    """The streams of each owner are listed together, whichever nodes have them."""
    a, b = [await machine.start() for _ in "ab"]
    for owner in ("ann", "bob", "eve"):
        for number in range(20):
            await a.journal.create(f"{owner}{number}", StreamInfo("none", owner, created=number + 1))
        writer = await a.journal.create(f"{owner}20", StreamInfo("none", owner, created=21))
        writer.append([Delta("x"), DONE])
        await acked(writer, 2)
    assert all(node.logs() for node in nodes)
    for owner in ("ann", "bob", "eve"):
        listing = await b.journal.streams_of(owner, 100)
        assert [stream.stream_id for stream in listing.streams] == [f"{owner}{20 - place}" for place in range(21)]
        assert [stream.state for stream in listing.streams] == ["done"] + ["live"] * 20
        assert len((await b.journal.streams_of(owner, 100, live=True)).streams) == 20


async def test_agreement(machine: Machine) -> None:
    """Claims and slots hold across processes, whichever node has them; presence and stops come over any node."""
    a, b = [await machine.start() for _ in "ab"]
    for number in range(12):
        owner, stream_id = f"owner{number}", f"s{number}"
        assert await a.journal.registry.claim(owner, "k", b"1", stream_id) is None
        await a.journal.create(stream_id, INFO)
        assert await b.journal.registry.claim(owner, "k", b"1", "t") == stream_id
        with pytest.raises(KeyReused):
            await b.journal.registry.claim(owner, "k", b"2", "t")
        assert await a.journal.registry.occupy(owner, stream_id, 1)
        assert not await b.journal.registry.occupy(owner, "t", 1)
        await a.journal.registry.vacate(owner, stream_id)
        assert await b.journal.registry.occupy(owner, "t", 1)
    readers = [asyncio.create_task(opened(b.journal, f"s{number}", timeout=20)) for number in range(12)]
    await until(lambda: sum(a.owner.readers.values()) == 12)
    for number in range(12):
        b.journal.stop(f"s{number}")
    await until(lambda: set(a.owner.stopped) == {(f"s{number}", None) for number in range(12)})
    for reader in readers:
        reader.cancel()
    await until(lambda: sum(a.owner.readers.values()) == 0)


async def through(a: Process, b: Process, happen: Callable[[], Any]) -> str:
    """Write thirty streams while something happens; check that no reader saw a gap, and return what they all say."""
    writers = [await a.journal.create(f"s{number}", INFO) for number in range(30)]
    readers = [await reading(each.journal, w.id, timeout=60) for w in writers for each in (a, b)]
    over = False

    async def write() -> int:
        count = 0
        while not over or count < 100:
            for writer in writers:
                writer.append([Delta(f"{count} ")])
            count += 1
            await asyncio.sleep(0.02)
        return count

    writing = asyncio.create_task(write())
    for writer in writers:
        await acked(writer, 3)
    await asyncio.to_thread(happen)
    before = [writer.acked for writer in writers]
    await until(
        lambda: (
            all(writer.acked > was for writer, was in zip(writers, before, strict=True))
            and a.journal.ready
            and b.journal.ready
        ),
        _BACK,
    )
    over = True
    whole = "".join(f"{number} " for number in range(await writing))
    for writer in writers:
        writer.append([DONE])
    assert [text(events) for events in await asyncio.gather(*readers)] == [whole] * 60
    assert (a.owner.stopped, b.owner.stopped) == ([], [])
    return whole


@pytest.mark.parametrize("place", [0, 1])
async def test_a_node_restarts(machine: Machine, nodes: list[Node], place: int, logs: LogCapture) -> None:
    """A node is killed and comes back empty, the named one or another: streams wait, and go on without a gap."""
    a, b = [await machine.start() for _ in "ab"]
    whole = await through(a, b, lambda: nodes[place].restart(signal.SIGKILL))
    assert "journal.rewritten" in [entry["event"] for entry in logs.entries]
    wait_until(lambda: _whole(nodes), timeout=_BACK)
    fresh = await machine.start(f"redis+cluster://127.0.0.1:{nodes[2].port}")
    for number in range(30):
        assert text(await opened(fresh.journal, f"s{number}")) == whole
    assert all(node.logs() for node in nodes)


async def test_a_node_stays_away(machine: Machine, nodes: list[Node]) -> None:
    """If a node is away for longer than the patience, all live streams end with `journal_unavailable`."""
    a, b = [await machine.start(patience=0.7) for _ in "ab"]
    writers = [await a.journal.create(f"s{number}", INFO) for number in range(12)]
    for writer in writers:
        writer.append([Delta("x")])
        await acked(writer, 1)
    logs = [await each.journal.open(writer.id) for writer in writers for each in (a, b)]
    readers = [asyncio.create_task(read(log, timeout=20)) for log in logs]
    await until(lambda: sum(a.owner.readers.values()) == 12)
    nodes[2].send(signal.SIGSTOP)
    try:
        for writer in writers:
            writer.append([Delta("never seen")])
        for events in await asyncio.gather(*readers):
            assert isinstance(events[-1], Failure)
            assert events[-1].code == "journal_unavailable"
        with pytest.raises(JournalDown):
            await a.journal.create(writers[-1].id + "t", INFO)
    finally:
        nodes[2].send(signal.SIGCONT)
    await until(lambda: a.journal.ready and b.journal.ready and not a.journal._committer._live, _BACK)
    await asyncio.to_thread(wait_until, lambda: _whole(nodes), timeout=_BACK)


async def test_part_of_a_pipeline(machine: Machine, nodes: list[Node]) -> None:
    """While one node does not answer, a pipeline fails, but what it has for the other nodes gets there."""
    a = await machine.start()
    names = [f"n{number}" for number in range(30)]
    commands: list[Any] = [("SET", keys.log(name), b"1") for name in names]
    slots = {each: key_slot(keys.log(each)) * 3 // REDIS_CLUSTER_HASH_SLOTS for each in names}
    nodes[1].send(signal.SIGSTOP)
    try:
        with pytest.raises((TimeoutError, RedisError)):
            await a.journal._connection.execute(*commands)
        for place in (0, 2):
            assert nodes[place].logs() == {keys.log(name) for name in names if slots[name] == place}
    finally:
        nodes[1].send(signal.SIGCONT)
    await asyncio.to_thread(wait_until, lambda: _whole(nodes), timeout=_BACK)


async def test_counts(machine: Machine, nodes: list[Node], log: FilteringBoundLogger) -> None:
    """Requests are counted on the cluster, for all processes together."""
    settings = Settings.model_validate({"journal": machine.url})
    async with AsyncExitStack() as held:
        here, there = [SharedCounts(create_counts(settings, held), log, patience=5.0) for _ in "ab"]
        for number in range(9):
            ann = [Rate(RateLimitItemPerMinute(2), f"requests/{keyed_hash(f'ann{number}')}")]
            taken = [await each.take(ann) for each in (here, there, here, there)]
            assert [each.full for each in taken] == [None, None, 0, 0]
    found = [node.run("KEYS", "*") for node in nodes]
    assert sum(map(len, found)) == 9
    assert sum(map(bool, found)) > 1


async def test_a_slot_moves(machine: Machine, nodes: list[Node], logs: LogCapture) -> None:
    """While slots with live streams move to another node, streams go on without a gap; all is read where it is now."""
    a, b = [await machine.start() for _ in "ab"]
    moved: list[tuple[int, Node]] = []

    def move() -> None:
        for stream_id in ("s3", "s4", "s5"):
            source = node_of(nodes, stream_id)
            target = nodes[(nodes.index(source) + 1) % 3]
            slot = key_slot(keys.log(stream_id))
            _move(nodes, slot, source, target)
            moved.append((slot, source))
            assert node_of(nodes, stream_id) is target

    try:
        whole = await through(a, b, move)
    finally:
        for slot, source in moved:
            [target] = [node for node in nodes if node is nodes[(nodes.index(source) + 1) % 3]]
            _move(nodes, slot, target, source)
    assert {"MOVED", "ASK"} & {entry.get("reason") for entry in logs.entries}
    fresh = await machine.start()
    for number in range(30):
        assert text(await opened(fresh.journal, f"s{number}")) == whole


def _move(nodes: list[Node], slot: int, source: Node, target: Node) -> None:
    """Move a slot with its keys, as `redis-cli --cluster reshard` does."""
    names = {node: node.run("CLUSTER", "MYID").decode() for node in (source, target)}
    target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
    source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
    while found := source.run("CLUSTER", "GETKEYSINSLOT", slot, 100):
        source.run("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *found)
    for node in (target, source, *(each for each in nodes if each not in (source, target))):
        node.run("CLUSTER", "SETSLOT", slot, "NODE", names[target])


async def test_no_connection_is_left(machine: Machine, nodes: list[Node]) -> None:
    """However often connections break, a process has as many to each node as it has clients, and ends them all."""
    a = await machine.start()
    client, before = a.journal._connection._client, [len(_others(node)) for node in nodes]
    assert isinstance(client, ClusterClient)
    for turn in range(5):
        writers = [await a.journal.create(f"{turn}-{number}", INFO) for number in range(20)]
        for node in nodes:
            with node.client() as redis:
                for kind in ("normal", "pubsub"):
                    redis.client_kill_filter(_type=kind, skipme=True)
        for writer in writers:
            writer.append([Delta("x"), DONE])
        await until(lambda: not a.journal._committer._live)
        await until(lambda: a.journal.ready)
    assert len(client._clients) == 3
    assert all(len(_others(node)) <= was + 3 for node, was in zip(nodes, before, strict=True))
    await a.held.aclose()
    await until(lambda: not any(_others(node) for node in nodes))


def _others(node: Node) -> list[Any]:
    """Return the clients of a node, but this one."""
    with node.client() as client:
        mine = client.client_id()
        return [each for each in client.client_list() if each["id"] != str(mine)]


async def test_a_wrong_seed(machine: Machine, logs: LogCapture, tmp_path: Path) -> None:
    """A Redis that is no cluster is away, and why is logged once; the process is there, and not ready."""
    server = RedisServer(tmp_path)
    try:
        a = await machine.start(server.url.replace("redis://", "redis+cluster://"))
        with pytest.raises(JournalDown):
            await a.journal.create("s", INFO)
        assert not a.journal.ready
        assert [(entry["event"], entry["reason"]) for entry in logs.entries] == [("journal.away", "ERR")]
        await a.held.aclose()
    finally:
        server.stop()


async def test_on_a_cluster(machine: Machine, tmp_path: Path) -> None:
    """A node of a cluster takes all that is sent: every command touches one slot."""
    server = launch_redis(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    try:
        with server.client() as redis:
            redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await until(lambda: redis.cluster("info")["cluster_state"] == "ok")
        a, b = [await machine.start(server.url) for _ in "ab"]
        assert await a.journal.registry.claim("ann", "k", b"1", "s") is None
        assert await a.journal.registry.occupy("ann", "s", 1)
        writer = await a.journal.create("s", INFO)
        reader = asyncio.create_task(opened(b.journal))
        await until(lambda: a.owner.readers.get("s") == 1)
        writer.append([Delta("x")])
        await a.journal._peers._renew()
        a.journal._committer.require_reconcile()
        writer.append([DONE])
        assert text(await reader) == "x"
        assert await b.journal.registry.claim("ann", "k", b"1", "t") == "s"
        await a.journal.registry.vacate("ann", "s")
        await a.journal.registry.release("s")
        assert a.journal.ready
        assert b.journal.ready
        for process in (b, a):
            await process.held.aclose()
    finally:
        server.stop()
