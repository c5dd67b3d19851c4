"""A journal on disk whose process is killed again and again, under load, and whose log is damaged in between.

`KILLS` is how often, `KILLS_SEED` repeats one run.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests.ports import free_port
from tests.real.clients.sse import Event, check, parse, text
from tests.real.processes import Server, launch_jumped
from tests.waiting import until

pytestmark = pytest.mark.real

KILLS = int(os.environ.get("KILLS", "3"))
SEED = int(os.environ.get("KILLS_SEED") or 1)
STREAMS = 200
DAY = 86_400.0
# A page of SQLite's log with its header.
FRAME = 4096 + 24


@dataclass
class Stream:
    """What one client has asked for, and what it was sent until the process was killed."""

    prompt: str
    id: str = ""
    data: bytearray = field(default_factory=bytearray)

    @property
    def events(self) -> list[Event]:
        return parse(bytes(self.data))

    @property
    def ended(self) -> bool:
        events = self.events
        return bool(events) and events[-1].event in ("done", "error")


def cut(log: Path, choose: random.Random) -> None:
    """Lose the end of the log, wherever."""
    size = log.stat().st_size
    os.truncate(log, max(0, size - choose.choice((1, 100, FRAME, 3 * FRAME, 50 * FRAME))))


def zeros(log: Path, choose: random.Random) -> None:
    """Have zeros in place of the last blocks."""
    size = log.stat().st_size
    count = min(size, choose.choice((512, FRAME, 8 * FRAME)))
    with log.open("r+b") as file:
        file.seek(size - count)
        file.write(bytes(count))


def double(log: Path, choose: random.Random) -> None:
    """Have the last blocks twice: what is there once more was never acknowledged."""
    data = log.read_bytes()
    log.write_bytes(data + data[-choose.choice((512, FRAME, 8 * FRAME)) :])


def noise(log: Path, choose: random.Random) -> None:
    """Have half a block at the end that the process did not come to finish."""
    with log.open("ab") as file:
        file.write(choose.randbytes(choose.randrange(1, FRAME)))


def nothing(log: Path, choose: random.Random) -> None:
    """Leave the log as it is."""


# What is done to SQLite's log, and whether something may be lost that was acknowledged.
DAMAGE: list[tuple[Callable[[Path, random.Random], None], bool]] = [
    (nothing, False),
    (cut, True),
    (double, False),
    (zeros, True),
    (noise, False),
]


class Kills:
    """Rounds of load, a kill, damage and a start. *counts* is what was found."""

    def __init__(self, folder: Path, choose: random.Random, start: Callable[[str, float], Server]) -> None:
        self.folder = folder
        self.choose = choose
        self.start = start
        self.counts: Counter[str] = Counter()
        self.session: aiohttp.ClientSession
        self.service: Server

    async def run(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as self.session:
            jump = 0.0
            self.service = await asyncio.to_thread(self.start, "kill", jump)
            for number in range(KILLS):
                streams = await self._load(number)
                log = self.folder / "streams.sqlite3-wal"
                damage, loses = DAMAGE[number % len(DAMAGE)] if number < len(DAMAGE) else self.choose.choice(DAMAGE)
                damage(log, self.choose)
                level = self.choose.choice(("kill", "power-loss"))
                jump += self.choose.choice((0.0, 0.0, 3600.0, -DAY))
                self.service = await asyncio.to_thread(self.start, level, jump)
                for start in range(0, len(streams), 20):
                    await asyncio.gather(*(self._judge(stream, loses=loses) for stream in streams[start : start + 20]))

    async def _load(self, number: int) -> list[Stream]:
        """Read many streams, stop the process for a moment at times, and kill it in the midst of them."""
        choose = self.choose
        streams = [Stream(_prompt(f"{number}.{index}", choose)) for index in range(STREAMS)]
        async with asyncio.TaskGroup() as readers:
            for stream in streams:
                readers.create_task(self._read(stream))
            await until(lambda: all(b"event: delta" in stream.data for stream in streams), 60)
            await asyncio.sleep(choose.uniform(0, 1.5))
            if choose.random() < 0.3:
                self.service.send(signal.SIGSTOP)
                await asyncio.sleep(choose.uniform(0.1, 1))
                self.service.send(signal.SIGCONT)
                await asyncio.sleep(choose.uniform(0, 0.3))
            await asyncio.to_thread(self.service.kill)
        return streams

    async def _read(self, stream: Stream) -> None:
        chance = random.Random(stream.prompt)
        body = {
            "prompt": stream.prompt,
            "model": f"sim-echo?first=0&size=4&rate={chance.choice((10, 20, 50))}",
            "chunk": "none",
            "on_disconnect": "continue",
        }
        try:
            async with self.session.post(f"{self.service.url}/v1/chat", json=body) as answer:
                assert answer.status == 200, await answer.text()
                stream.id = answer.headers["X-Stream-Id"]
                async for data in answer.content.iter_any():
                    stream.data += data
        except (aiohttp.ClientError, OSError):
            pass  # it was killed

    async def _judge(self, stream: Stream, *, loses: bool) -> None:
        """Hold what there is now against what was sent."""
        sent = stream.events
        status, body = await self._get(stream, "")
        resumed, rest = await self._get(stream, sent[-1].id)
        if loses and status in (404, 502):
            # All of it is gone, or it is known that some of it is: nothing else is shown, wherever a reader was.
            assert resumed == status, (status, resumed, rest)
            assert status == 404 or (b"journal_lost" in body and b"journal_lost" in rest), (body, rest)
            self.counts["lost where the log was damaged"] += 1
            return
        assert status == 200, (stream.id, status, body)
        found = parse(body)
        check(found)
        end = found[-1]
        assert stream.prompt.startswith(text(found)), stream.id
        if len(found) < len(sent):
            # More was sent than there is: none of the missing numbers is used, and a cursor there is told so.
            assert loses and found[:-1] == sent[: len(found) - 1], stream.id
            assert resumed == 502 and b"journal_lost" in rest, (resumed, rest)
            self.counts["cut where the log was damaged"] += 1
            return
        assert found[: len(sent)] == sent, f"{stream.id}: other events under the same numbers"
        if stream.ended:
            assert (found, resumed) == (sent, 204), stream.id
            self.counts["whole"] += 1
            return
        assert (resumed, sent + parse(rest)) == (200, found), stream.id
        if end.event == "done":
            assert text(found) == stream.prompt
            self.counts["ended unseen"] += 1
        else:
            assert end.json()["error"]["code"] == "producer_lost", end
            self.counts["honestly ended"] += 1

    async def _get(self, stream: Stream, after: str) -> tuple[int, bytes]:
        headers = {"Last-Event-ID": after} if after else {}
        async with self.session.get(f"{self.service.url}/v1/streams/{stream.id}", headers=headers) as answer:
            return answer.status, await answer.read()


def _prompt(name: str, choose: random.Random) -> str:
    """Return a text of which no part is like another."""
    return " ".join(f"{name}:{number}" for number in range(choose.choice((3, 10, 60))))


@pytest.mark.timeout(600 + 20 * KILLS)
def test_kills(processes: list[Server], simulator: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every ended stream is whole after a kill, every live one honestly ended, and none is shown as what it was not.

    Where the log was damaged, too, a reader gets what was sent to it, or is told that it is lost.
    """
    folder = tmp_path / "streams"
    port = free_port()

    def start(level: str, jump: float) -> Server:
        journal = f"file://{folder}?survives={level}"
        service = launch_jumped(tmp_path, simulator, jump, journal=journal, port=port, keep=DAY, max_kept=100_000)
        processes.append(service)
        return service

    kills = Kills(folder, random.Random(SEED), start)
    with capsys.disabled():
        asyncio.run(kills.run())
        counts = ", ".join(f"{kills.counts[name]} {name}" for name in sorted(kills.counts))
        print(f"\n{KILLS} kills, seed {SEED}: {counts}")
    assert kills.counts["whole"] > KILLS
    assert kills.counts["honestly ended"] > KILLS
    assert not [line for line in kills.service.text().splitlines() if "crashed" in line or "Traceback" in line]
