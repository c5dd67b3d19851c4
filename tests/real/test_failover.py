"""Redis fails over to its replica under load, in good order or by a death that costs writes; and it is full once.

The address stays, as that of a managed Redis does. What else happens, and how it is judged, is in `test_chaos`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.journal.processes import port_of
from tests.real import node
from tests.real.conftest import Start
from tests.real.fleet import Fleet
from tests.real.processes import Server
from tests.real.proxy import Proxy
from tests.real.redis import RedisServer
from tests.real.test_chaos import Chaos
from tests.waiting import until, wait_until

pytestmark = pytest.mark.real

# Bytes of the primary's writes that the replica does not have: about a second of them, in which streams end, too.
MISSED = 100_000


class Pair:
    """A primary with its replica, at one address that stays."""

    def __init__(self, primary: RedisServer, replica: RedisServer, proxy: Proxy) -> None:
        self.primary = primary
        self.replica = replica
        self.url = f"redis://127.0.0.1:{proxy.url.rpartition(':')[2]}/0"
        self._proxy = proxy
        with replica.client() as client:
            client.replicaof("127.0.0.1", port_of(primary.url))
            wait_until(lambda: _replication(client)["master_link_status"] == "up")

    def switch(self) -> None:
        """Let the two change places, and move the address once the old primary has refused a write."""
        with self.primary.client() as old:
            old.execute_command("FAILOVER")
            wait_until(lambda: _replication(old)["role"] == "slave")
            _await_refusals(old, "READONLY")
        self._move()

    def die(self) -> float:
        """Promote the replica, let the primary take writes that the other does not have, and kill it."""
        with self.replica.client() as new, self.primary.client() as old:
            new.replicaof("NO", "ONE")
            written = _replication(old)["master_repl_offset"]
            wait_until(lambda: _replication(old)["master_repl_offset"] > written + MISSED)
        self.primary.popen.kill()
        self.primary.ended()
        died_at = time.time()
        self._move()
        return died_at

    def _move(self) -> None:
        self._proxy.move(self.replica.url)
        self._proxy.cut(reset=True)


def _replication(client: Redis) -> dict[str, Any]:
    found: Any = client.info("replication")
    return dict(found)


def _await_refusals(client: Redis, word: str) -> None:
    """Wait until that Redis has refused some more commands with this *word*."""

    def refused() -> int:
        errors: Any = client.info("errorstats")
        return int(errors.get(f"errorstat_{word}", {"count": 0})["count"])

    before = refused()
    wait_until(lambda: refused() >= before + 10)


class FailingOver(Chaos):
    """A fleet behind nginx, the load on it, and *pair*, which fails over in the middle."""

    def __init__(self, fleet: Fleet, pair: Pair, nginx: Server, simulator: Server) -> None:
        super().__init__(fleet, pair.primary, nginx, simulator)
        self.pair = pair

    async def _switch(self) -> None:
        await asyncio.to_thread(self.pair.switch)

    async def _fill(self) -> None:
        """Leave no room in the primary until writes and new streams have been refused.

        The load begins some more, because those that are live cannot end meanwhile and make place for others.
        """
        self.load.live += 5
        with self.pair.primary.client() as client:
            memory: Any = client.info("memory")
            client.config_set("maxmemory", memory["used_memory"])
            await asyncio.to_thread(_await_refusals, client, "OOM")
            await until(lambda: self.load.counts["503 journal_unavailable"])
            client.config_set("maxmemory", 0)

    async def _die(self) -> None:
        self.died_at.append(await asyncio.to_thread(self.pair.die))


@pytest.fixture
def chaos(
    start_redis: Callable[..., RedisServer],
    start_simulator: Start,
    start_nginx: Start,
    processes: list[Server],
    tmp_path: Path,
) -> Iterator[FailingOver]:
    node.install()
    primary, replica = start_redis(), start_redis()
    with Proxy(primary.url) as proxy:
        pair = Pair(primary, replica, proxy)
        simulator = start_simulator()
        fleet = Fleet(tmp_path, processes, simulator, pair.url)
        yield FailingOver(fleet, pair, start_nginx(*fleet.running), simulator)
        for process in fleet.running:
            process.stop()


def test_a_switch(chaos: FailingOver, capsys: pytest.CaptureFixture[str]) -> None:
    """In good order nothing is lost: the old primary refuses what comes late, and it is written to the new one."""
    with capsys.disabled():
        asyncio.run(chaos.run("switch"))
        chaos.judge()
    assert chaos.read_again() == set()


def test_a_death(chaos: FailingOver, capsys: pytest.CaptureFixture[str]) -> None:
    """What the replica did not have, ends of streams included, is written to it again: no reader is told otherwise."""
    with capsys.disabled():
        asyncio.run(chaos.run("die"))
        chaos.judge(keys_kept=False)
    assert chaos.read_again() == set()


def test_a_full_redis(chaos: FailingOver, capsys: pytest.CaptureFixture[str]) -> None:
    """While Redis has no room and drops nothing, live streams wait, and new ones get a 503; then all go on.

    The processes may have dropped streams that had ended, to make room; the log says which.
    """
    with capsys.disabled():
        asyncio.run(chaos.run("fill"))
        chaos.judge()
    assert chaos.load.counts["503 journal_unavailable"] > 0
    logs = "".join(server.text() for server in chaos.fleet.all)
    assert chaos.read_again() <= set(re.findall(r'"journal.evicted", "stream_id": "([^"]+)", "reason": "memory"', logs))
