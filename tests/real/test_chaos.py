"""Three processes, a load balancer and a Redis, of which each is killed, drained, stalled or restarted, under load.

`CHAOS_SEED` repeats one's load, `CHAOS_LIVE` sets how many streams are live at a time, and `CHAOS_STEPS` picks some of
what happens: `kill,stall,restart,replace`.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from math import inf
from pathlib import Path

import httpx
import pytest

from tests.real import node
from tests.real.chaos import LOST, Load, Stream
from tests.real.chaos_reader import Reader
from tests.real.clients.sse import Event, text
from tests.real.conftest import Start
from tests.real.fleet import Fleet, Logs
from tests.real.processes import Server, stats
from tests.real.redis import FORGETFUL, PERSISTENT, RedisServer

pytestmark = pytest.mark.real

SEED = int(os.environ.get("CHAOS_SEED") or 1)
LIVE = int(os.environ.get("CHAOS_LIVE", "40"))
STEPS = os.environ.get("CHAOS_STEPS", "kill,stall,restart,replace").split(",")
# Seconds: longer than any trip to Redis may take, so that not only answers come late, but whole trips are given up.
STALL = 6.0


class Chaos:
    """A fleet behind nginx, the load on it, and the report."""

    def __init__(self, fleet: Fleet, redis: RedisServer, nginx: Server, simulator: Server) -> None:
        self.fleet = fleet
        self.redis = redis
        self.load = Load(nginx.url, random.Random(SEED), LIVE, node_readers=4)
        self.report: list[str] = []
        self.died_at: list[float] = []  # when Redis had ended, as time.time() has it
        self._simulator = simulator
        self._began = time.monotonic()

    async def run(self, *steps: str) -> None:
        """Run the load, and in the middle of it one of *steps* after the other."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.load.run())
            await self.load.progress(LIVE // 2)
            for step in steps:
                await getattr(self, f"_{step}")()
                await self.load.settled()
            self.load.finish()

    async def _kill(self) -> None:
        await asyncio.to_thread(self.fleet.kill, 0)

    async def _replace(self) -> None:
        for index in range(3):
            await asyncio.to_thread(self.fleet.replace, index)
            await self.load.progress(LIVE // 4)

    async def _stall(self) -> None:
        self.redis.send(signal.SIGSTOP)
        await asyncio.sleep(STALL)
        self.redis.send(signal.SIGCONT)

    async def _restart(self) -> None:
        self.died_at.append(await asyncio.to_thread(self.redis.restart, signal.SIGKILL))

    def judge(self, *, forgets: bool = False, keys_kept: bool = True) -> None:
        """Hold every transcript against what is promised, and print the report.

        *forgets*: Redis does; what has ended may be gone. *keys_kept*: it has not lost an idempotency key.
        """
        load, fleet, logs = self.load, self.fleet, Logs(self.fleet)
        counts = load.counts
        for stream in load.streams:
            stream.check(load.lose, load.double, forgets=forgets)
            producer = logs.producer.get(stream.id)
            for reader in stream.readers:
                if reader.gone_at and not (forgets and logs.ended_at.get(stream.id, reader.gone_at) < reader.gone_at):
                    load.lose(f"{stream.number} {reader.address}: 404 after {reader.position!r}")
            right = {
                "stop": True,
                "cancelled": stream.cancelled,
                "producer_lost": producer is None or producer in fleet.killed,
                "shutting_down": producer in fleet.drained,
                "unknown_stream": forgets,
                # It had ended, and Redis was gone with that before this reader was told.
                LOST: forgets
                and any(logs.ended_at.get(stream.id, inf) < at < stream.best.heard_at for at in self.died_at),
            }
            if not right.get(stream.ending):
                load.lose(f"{stream.number} {stream.readers[0].address}: ended by {stream.ending!r}")
            counts[f"ended by {stream.ending}"] += 1
        counts["read elsewhere"] = logs.elsewhere
        silence = max(reader.silence for stream in load.streams for reader in stream.readers)
        seconds = time.monotonic() - self._began
        print(f"\n{len(load.streams)} streams in {seconds:.0f} s, seed {SEED}, longest silence {silence:.1f} s:")
        print(", ".join(f"{counts[name]} {name}" for name in sorted({*counts, "lost", "duplicated"})))
        assert not load.faults, "\n".join(load.faults[:10])
        assert not logs.crashes, logs.crashes[0]
        assert logs.elsewhere > 0
        # A stream of a process that was killed may have been paid for before there was time to log it; and one that
        # ended before its first token was not, so that its key may try again.
        unlogged = sum(stream.id not in logs.producer for stream in load.streams)
        assert stats(self._simulator)["requests"] <= len(logs.producer) + unlogged
        assert not keys_kept or len(logs.producer) <= len(load.streams) + logs.unpaid, "somebody paid twice"

    def read_again(self) -> set[str]:
        """Ask every process for the streams that have ended, of which it has what readers were given.

        Return the ids of those that some process does not have.
        """
        gone: set[str] = set()
        with httpx.Client(headers={"Accept": "application/json"}) as client:
            for stream in self.load.streams:
                for server in self.fleet.running if stream.best.ended else ():
                    answer = client.get(f"{server.url}/v1/streams/{stream.id}")
                    if answer.status_code == 404:
                        gone.add(stream.id)
                        continue
                    found, events = answer.json(), stream.best.before + stream.best.events
                    if LOST in ((found.get("error") or {}).get("code"), stream.ending):
                        gone.add(stream.id)  # this process, or the reader's, was not told the end before Redis lost it
                        continue
                    assert found["last_event_id"] == events[-1].id
                    assert found["content"] == text(events)
        return gone


@pytest.fixture
def arrange(
    start_redis: Start, start_simulator: Start, start_nginx: Start, processes: list[Server], tmp_path: Path
) -> Callable[..., Chaos]:
    """Start everything, Redis with the given options."""
    node.install()

    def arranged(*options: str) -> Chaos:
        redis, simulator = start_redis(*options), start_simulator()
        assert isinstance(redis, RedisServer)
        fleet = Fleet(tmp_path, processes, simulator, redis.url)
        return Chaos(fleet, redis, start_nginx(*fleet.running), simulator)

    return arranged


def test_chaos(arrange: Callable[..., Chaos], capsys: pytest.CaptureFixture[str]) -> None:
    """A producer is killed, Redis stalls and is restarted, every process is replaced: no reader loses or hangs.

    Every transcript is whole, or ends in the error that tells what became of its producer, the same for all readers.
    """
    chaos = arrange(*PERSISTENT)
    with capsys.disabled():
        asyncio.run(chaos.run(*STEPS))
        chaos.judge()
    if "kill" in STEPS:
        assert chaos.load.counts["ended by producer_lost"] > 0
    assert chaos.read_again() == set()


def test_redis_forgets(arrange: Callable[..., Chaos], capsys: pytest.CaptureFixture[str]) -> None:
    """When Redis comes back with nothing, live streams go on without a gap; what has ended is gone, or whole."""
    chaos = arrange(*FORGETFUL)
    with capsys.disabled():
        asyncio.run(chaos.run("restart", "restart"))
        chaos.judge(forgets=True, keys_kept=False)
    assert chaos.read_again()


def _events(*pieces: str, end: str = "done", numbers: str = "") -> list[Event]:
    kinds = ["start", *["delta"] * len(pieces), *([end] if end else [])]
    datas = ["{}", *[f'{{"content":"{piece}"}}' for piece in pieces], '{"finish_reason":"stop"}']
    names = numbers or "123456789"
    return [Event(f"{'s' * 22}-{name}", *it) for name, it in zip(names, zip(kinds, datas, strict=False), strict=False)]


@pytest.mark.parametrize(
    ("transcripts", "lost", "doubled"),
    [
        ([_events("Hello", ", world")], 0, 0),
        ([_events("Hello", ", world", numbers="1359")], 0, 0),
        ([_events("Hello", ", world"), _events("Hello, world", numbers="134")], 0, 0),
        ([_events("Hello", "world")], 1, 0),
        ([_events("Hello", ", world"), _events("Hello")], 2, 0),
        ([_events("Hello", "Hello", ", world")], 1, 0),
        ([_events("Hello", ", world", numbers="1223")], 0, 1),
        ([_events("Hello", ", world", end="")], 1, 0),
        ([_events("Hello", ", world"), _events("Hello, world")], 1, 0),
    ],
    ids=["whole", "joined", "two", "gap", "shorter", "again", "same id", "no end", "two ends"],
)
def test_the_judge(transcripts: list[list[Event]], lost: int, doubled: int) -> None:
    """What the chaos test looks for, it sees: gaps, doubles, missing ends and different ones."""
    load = Load("", random.Random(0), 1)
    stream = Stream(0, random.Random(0))
    stream.prompt = "Hello, world"
    for events in transcripts:
        reader = Reader(load, f"http://localhost/v1/streams/{'s' * 22}")
        reader.events = events
        stream.readers.append(reader)
    stream.check(load.lose, load.double)
    assert (load.counts["lost"], load.counts["duplicated"]) == (lost, doubled)
