"""Hundreds of streams whose readers come, go, come twice, and stop them: nothing is lost, and nothing is left.

`SOAK_SECONDS` makes it shorter or longer, `SOAK_SEED` repeats one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from app.events import EventId
from tests.real.clients.sse import Event, parse, text
from tests.real.conftest import Start
from tests.real.processes import Server, stats
from tests.waiting import wait_until

pytestmark = pytest.mark.real

SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
SEED = int(os.environ.get("SOAK_SEED") or 1)
STREAMS = 500
WARM_UP = 15.0  # seconds of the same before memory is first looked at: what the allocator then has, it keeps
KEPT = 30.0  # seconds; longer than any reader stays away, on a busy machine, too
CHUNKS = ["auto", "none", "word", "sentence", "line", "size:5", "time:30", "word,50ms"]
WORDS = [
    "a",
    "stream",
    "你好，世界。",
    "สวัสดีชาวโลก",
    "مرحبا",
    "👩\u200d👩\u200d👧\u200d👦",
    "e\u0301",
    "Ünïcödé",
    "\u2028",
    "\r\n",
    "data:",
    "end.",
]
# What the allocator may keep over that: holes in its arenas. (What is allocated stays the same to within 0.2 %.)
SLACK = 24 << 20


class Reader:
    """One reader of one stream: what it has so far, and how it got it."""

    def __init__(self, soak: Soak, address: str, after: int = 0) -> None:
        self.soak = soak
        self.address = address
        self.after = after
        self.events: list[Event] = []

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1].event in ("done", "error")

    @property
    def position(self) -> int:
        return self.events[-1].seq if self.events else self.after

    async def read(self, method: str, url: str, leave_after: float | None, **request: Any) -> None:
        """Read one answer, to its end or for *leave_after* seconds, and then hang up."""
        received = bytearray()
        try:
            async with asyncio.timeout(leave_after), self.soak.session.request(method, url, **request) as answer:
                if answer.status == 204:
                    self.soak.fault(f"{self.address}: 204 at {self.position}, before the end")
                    return
                if answer.status != 200:
                    self.soak.fault(f"{self.address}: {answer.status} {await answer.text()}")
                    return
                self.address = f"{self.soak.url}{answer.headers['Content-Location']}"
                async for data in answer.content.iter_any():
                    received += data
        except TimeoutError:
            if leave_after is None:
                raise
        finally:
            self.events += parse(bytes(received))

    async def resume(self, leave_after: float | None) -> None:
        """Go on after the last event, in one of the ways there are."""
        position = f"{self.address[-22:]}-{self.position}"
        self.soak.counts["resumes"] += 1
        match self.soak.chance.randrange(3) if self.position else 3:
            case 0:
                await self.read("GET", self.address, leave_after, headers={"Last-Event-ID": position})
            case 1:
                await self.read("GET", self.address, leave_after, params={"last_event_id": position})
            case 2:
                headers = {"Last-Event-ID": position}
                await self.read("POST", f"{self.soak.url}/v1/chat", leave_after, headers=headers, json={})
            case _:
                await self.read("GET", self.address, leave_after)


class Soak:
    """Five hundred scenarios, and what came of them."""

    def __init__(self, url: str, chance: random.Random, seconds: float) -> None:
        self.url = url
        self.chance = chance
        self.seconds = seconds
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.addresses: list[str] = []
        self.session: aiohttp.ClientSession

    def fault(self, what: str) -> None:
        self.faults.append(what)

    async def run(self) -> None:
        # A connection per request: a reader that leaves closes it, and none idles.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(self.seconds + 60)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as self.session,
            asyncio.TaskGroup() as group,
        ):
            for number in range(STREAMS):
                group.create_task(self.scenario(number, self.chance.uniform(0, self.seconds * 0.75)))

    async def scenario(self, number: int, begin: float) -> None:
        """Start one stream, and let its readers and perhaps a stop button at it."""
        await asyncio.sleep(begin)
        chance = self.chance
        prompt = f"{number}: " + " ".join(chance.choices(WORDS, k=chance.randint(5, 40)))
        lasts = chance.uniform(0.02, 0.22) * self.seconds
        cancelled = chance.random() < 0.15
        body = {
            "prompt": prompt,
            "model": f"sim-echo?first=0.05&size=3&rate={len(prompt) / 3 / lasts:.3f}",
            "chunk": chance.choice(CHUNKS),
            "on_disconnect": chance.choice(["continue", "grace:30"]),
        }
        main = Reader(self, "")
        leaves = [chance.uniform(0.01, 0.5) * lasts for _ in range(chance.choice((0, 1, 1, 2, 3, 5)))]
        self.counts["streams"] += 1
        if chance.random() < 0.3:
            async with self.session.post(
                f"{self.url}/v1/chat", json=body, headers={"Accept": "application/json"}
            ) as answer:
                assert answer.status == 201, await answer.text()
                main.address = f"{self.url}{(await answer.json())['url']}"
        else:
            # It may leave before it knows the address; then the key gives it another chance.
            key = {"Idempotency-Key": f"soak {number}"}
            leave_after = leaves.pop() if leaves else None
            await main.read("POST", f"{self.url}/v1/chat", leave_after, json=body, headers=key)
            if not main.address:
                self.counts["repeated"] += 1
                await main.read("POST", f"{self.url}/v1/chat", None, json=body, headers=key)
        self.addresses.append(main.address)
        others: list[Reader] = []
        async with asyncio.TaskGroup() as group:
            group.create_task(self.follow(main, leaves))
            for _ in range(chance.choice((0, 0, 1, 2))):
                others.append(Reader(self, main.address, 0 if main.ended else chance.choice((0, main.position))))
                self.counts["double attaches"] += 1
                some = [chance.uniform(0.01, 0.3) * lasts for _ in range(chance.choice((0, 0, 1)))]
                group.create_task(self.follow(others[-1], some))
            if cancelled and not main.ended:
                group.create_task(self.cancel(main.address, chance.uniform(0, 0.7) * lasts))
        self.judge(prompt, main, others, cancelled)

    async def follow(self, reader: Reader, leaves: list[float]) -> None:
        """Read to the end, hanging up and coming back in between."""
        for leave_after in [*leaves, None]:
            if not reader.ended:
                await asyncio.sleep(self.chance.uniform(0, 0.5))
                await reader.resume(leave_after)

    async def cancel(self, address: str, after: float) -> None:
        """Press stop, sometimes twice at once."""
        await asyncio.sleep(after)
        self.counts["cancels"] += 1

        async def press(method: str, url: str) -> None:
            async with self.session.request(method, url) as answer:
                if answer.status != 200:
                    self.fault(f"{address}: cancel answered {answer.status}")

        presses = [press("DELETE", address), press("POST", f"{address}/cancel")]
        chosen = self.chance.sample(presses, self.chance.choice((1, 2)))
        for unused in set(presses) - set(chosen):
            unused.close()
        await asyncio.gather(*chosen)

    def judge(self, prompt: str, main: Reader, others: list[Reader], cancelled: bool) -> None:
        """Hold every transcript of one stream to what it must be."""
        said = text(main.events)
        for reader in [main, *others]:
            numbers = [event.seq for event in reader.events]
            streams = {EventId.parse(event.id).stream_id for event in reader.events}
            if numbers != sorted(set(numbers)) or streams != {reader.address[-22:]}:
                self.counts["duplicated"] += 1
                self.fault(f"{reader.address}: ids {numbers}")
            done = reader.events[-1] if reader.events else None
            reason = done.json().get("finish_reason") if done else None
            of_it = prompt if reason == "stop" else said  # a stopped one is what its first reader has
            kept = text(reader.events)
            complete = kept == of_it if not reader.after else of_it.endswith(kept)
            if not complete or not prompt.startswith(said) or reason not in ("stop", "cancelled"):
                self.counts["lost"] += 1
                self.fault(f"{reader.address}: after {reader.after}, {reason}: {kept!r} of {of_it!r}")
            elif reason == "cancelled" and not cancelled:
                self.counts["lost"] += 1
                self.fault(f"{reader.address}: cancelled without a request")
            elif [done] != main.events[-1:]:
                self.counts["lost"] += 1
                self.fault(f"{reader.address}: two ends: {done} and {main.events[-1:]}")
            else:
                self.counts["whole" if reason == "stop" else "whole to their cancel"] += 1


def sockets(server: Server) -> int:
    """Count the sockets that a process has open."""
    count = 0
    for descriptor in Path(f"/proc/{server.popen.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(descriptor.readlink()).startswith("socket:")
    return count


def logged(server: Server) -> Counter[str]:
    return Counter(json.loads(line)["event"] for line in server.text().splitlines() if line.startswith("{"))


def forgets(addresses: list[str]) -> None:
    """Wait until none of these streams is kept any more."""
    with httpx.Client(headers={"Accept": "application/json"}) as client:
        for address in addresses:
            wait_until(lambda address=address: client.get(address).status_code == 404)  # type: ignore[misc]  # mypy infers no default of a lambda


@pytest.mark.timeout(600 + 2 * SECONDS)
def test_soak(start_simulator: Start, start_service: Start, capsys: pytest.CaptureFixture[str]) -> None:
    """Of 500 streams with random disconnects, resumes, double attaches and cancels, every transcript is whole.

    At the end nothing is left running: no request upstream, no socket, no reader, no producer, no memory.
    """
    simulator = start_simulator()
    service = start_service(simulator, keep=KEPT, keep_alive=0.5)
    idle = sockets(service)
    chance = random.Random(SEED)
    warm_up, soak = (Soak(service.url, chance, seconds) for seconds in (WARM_UP, SECONDS))
    asyncio.run(warm_up.run())
    forgets(warm_up.addresses)
    before = service.memory()

    asyncio.run(soak.run())

    for name in ("lost", "duplicated"):
        soak.counts.setdefault(name, 0)
    summary = ", ".join(f"{soak.counts[name]} {name}" for name in sorted(soak.counts))
    wait_until(lambda: stats(simulator)["live"] == 0)
    lines = logged(service)
    streams, readers = lines["stream.opened"], lines["subscriber.attached"]
    with capsys.disabled():
        print(f"\nsoak of {SECONDS:g} s, seed {SEED}: {summary}; {readers} readings in all")
    assert not warm_up.faults + soak.faults, (warm_up.faults + soak.faults)[:5]
    assert soak.counts["lost"] == soak.counts["duplicated"] == 0
    assert streams == 2 * STREAMS
    # A stream that is cancelled at once may never come to ask the upstream.
    assert stats(simulator)["requests"] <= 2 * STREAMS, "somebody paid twice"

    wait_until(lambda: logged(service)["subscriber.detached"] == readers)
    assert logged(service)["stream.finished"] + logged(service)["stream.failed"] == streams
    assert not [line for line in service.text().splitlines() if "crashed" in line or "Traceback" in line]
    # What is open now: the listener and its kind, and idle connections to the upstream, which are closed in 15 to 30 s.
    wait_until(lambda: sockets(service) <= idle + stats(simulator)["connections"] - 1)
    forgets(soak.addresses)
    grown = service.memory() - before
    wait_until(lambda: sockets(service) <= idle, timeout=60)
    with capsys.disabled():
        print(f"memory: {before >> 20} MiB before, {grown / (1 << 20):+.1f} MiB after; sockets: {sockets(service)}")
    assert grown < SLACK
    service.stop()
    assert service.popen.returncode == 0
    drained = next(json.loads(line) for line in service.text().splitlines() if "hub.draining" in line)
    assert drained["live"] == 0
