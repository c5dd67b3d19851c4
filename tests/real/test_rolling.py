"""A rolling restart: three processes behind nginx, replaced one after the other while clients stream and post."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.real.clients.sse import Event, check, parse, text
from tests.real.conftest import Start
from tests.real.processes import Server, launch
from tests.real.redis import PERSISTENT, RedisServer, launch_redis

pytestmark = pytest.mark.real

CLIENTS = 12
PROMPT = "Ünïcödé, 你好，世界。 a stream that outlives the process that it is read from: 👩\u200d👩\u200d👧. " * 3
# Two to four seconds each: a process that is told to stop lets its own finish within its grace. It need not wait for
# readers of another's.
MODELS = [f"sim-echo?first=0.05&size=3&rate={len(PROMPT) / 3 / seconds:.2f}" for seconds in (2, 3, 4)]
GRACE = 10
PATIENCE = 120.0  # seconds for one answer, with all its resumes and refusals


class Load:
    """Clients behind one address, and what came of their answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.counts: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.session: aiohttp.ClientSession
        self.enough = asyncio.Event()

    async def client(self, number: int) -> None:
        """Ask for one answer after the other, and read each from two places."""
        turn = 0
        while not self.enough.is_set():
            turn += 1
            async with asyncio.timeout(PATIENCE):
                await self._answer(f"{number}-{turn}", MODELS[(number + turn) % len(MODELS)])
            self.counts["streams"] += 1

    async def _answer(self, key: str, model: str) -> None:
        """Start a stream, and hold the transcripts of two readers to what they must be."""
        first = Reader(self)
        async with asyncio.TaskGroup() as group:
            group.create_task(first.ask({"prompt": PROMPT, "model": model}, key))
            await first.known.wait()
            second = Reader(self, first.url)
            await second.read("GET", first.url, leave_after=1)
            await second.finish()
        for reader in (first, second):
            check(reader.events, dense=False)
            assert text(reader.events) == PROMPT, "an event was lost"
            assert reader.events[-1].json()["finish_reason"] == "stop"
        assert first.events[-1] == second.events[-1], "two ends"


class Reader:
    """One reader of one stream. It comes back after every cut, as an EventSource does."""

    def __init__(self, load: Load, url: str = "") -> None:
        self.load = load
        self.url = url
        self.known = asyncio.Event()
        self.events: list[Event] = []

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1].event in ("done", "error")

    async def ask(self, body: dict[str, str], key: str) -> None:
        """Start a stream, with as many requests as it takes, and read it to its end."""
        while not self.url:
            await self.read("POST", f"{self.load.url}/v1/chat", json=body, headers={"Idempotency-Key": key})
        await self.finish()

    async def finish(self) -> None:
        """Read on until the end."""
        while not self.ended:
            headers = {"Last-Event-ID": self.events[-1].id} if self.events else {}
            self.load.counts["resumes" if self.events else "attaches"] += 1
            await self.read("GET", self.url, headers=headers)

    async def read(self, method: str, url: str, leave_after: float | None = None, **request: Any) -> None:
        """Read one answer until it ends or is cut, or for *leave_after* seconds.

        Any refusal has to be a 503 that says when to come back.
        """
        received, wait = bytearray(), 0.0
        try:
            async with asyncio.timeout(leave_after), self.load.session.request(method, url, **request) as answer:
                if answer.status != 200:
                    error = json.loads(await answer.read())["error"]
                    assert (answer.status, error["retryable"]) == (503, True), error
                    self.load.refusals[f"{method} {error['code']}"] += 1
                    wait = float(answer.headers["Retry-After"])
                elif "Content-Location" in answer.headers:
                    self.url = f"{self.load.url}{answer.headers['Content-Location']}"
                    self.known.set()
                async for data in answer.content.iter_any():
                    received += data
        except aiohttp.ClientPayloadError:
            self.load.counts["cuts"] += 1
        except TimeoutError:
            if leave_after is None:
                raise
        # A line without an event says when to come back.
        if last := re.fullmatch(rb"(?::\n)*retry: (\d+)\n", received.rpartition(b"\n\n")[2]):
            self.load.counts["sent elsewhere"] += 1
            wait = int(last[1]) / 1000
        self.events += parse(bytes(received))
        if not self.ended:
            await asyncio.sleep(wait or 0.1)


async def _roll(load: Load, services: list[Server], redis: RedisServer, simulator: Server, directory: Path) -> None:
    """Replace each of *services* by a successor on its port, and the next one once nginx has found that."""
    await _busy(load, services)
    for place, service in enumerate(list(services)):
        service.send(signal.SIGTERM)
        assert await asyncio.to_thread(service.ended) == 0
        services[place] = await asyncio.to_thread(_start, directory, simulator, redis, service.port)
        await _busy(load, services)
    load.enough.set()


async def _busy(load: Load, services: list[Server]) -> None:
    """Wait until all have produced streams, and all clients have read some to their ends."""
    until = load.counts["streams"] + CLIENTS
    async with asyncio.timeout(PATIENCE):
        while load.counts["streams"] < until or not all(map(_produced, services)):
            await asyncio.sleep(0.05)


def _start(directory: Path, simulator: Server, redis: RedisServer, port: int = 0) -> Server:
    return launch(directory, simulator, journal=redis.url, shutdown_grace=GRACE, reconnect_ms=200, port=port)


async def _run(load: Load, services: list[Server], redis: RedisServer, simulator: Server, directory: Path) -> None:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as load.session, asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(load.client(number))
        group.create_task(_roll(load, services, redis, simulator, directory))


def _produced(server: Server) -> set[str]:
    """Return the ids of the streams that a process began."""
    lines = (json.loads(line) for line in server.text().splitlines() if '"stream.opened"' in line)
    return {line["stream_id"] for line in lines}


def test_rolling_restart(
    start_simulator: Start,
    start_nginx: Start,
    processes: list[Server],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All three processes are replaced while clients go on: every answer is whole, and no request fails for good."""
    redis = launch_redis(tmp_path, *PERSISTENT)
    processes.append(redis)
    simulator = start_simulator()
    services = [_start(tmp_path, simulator, redis) for _ in range(3)]
    before = list(services)
    processes += services
    load = Load(start_nginx(*services, fail_timeout=1).url)  # a successor is found soon
    try:
        asyncio.run(_run(load, services, redis, simulator, tmp_path))
    finally:
        processes += [service for service in services if service not in before]
    with capsys.disabled():
        counts = {**load.counts, **{f"refused: {what}": number for what, number in load.refusals.items()}}
        print("\nrolling restart: " + ", ".join(f"{number} {what}" for what, number in sorted(counts.items())))
    assert not set(before) & set(services)
    assert load.counts["sent elsewhere"], "no reader of another's stream was told to go"
    produced = [_produced(server) for server in (*before, *services)]
    # A retried POST that had been taken attaches to its stream: nothing is paid for twice.
    assert sum(map(len, produced)) == len(set().union(*produced)) == load.counts["streams"]
    for server in (*before, *services):
        assert "Traceback" not in server.text()
