"""The load client: a process of its own that opens streams, counts what comes, and looks at the clock for a few.

Run as `python -m tests.benchmarks.load`, with a `Plan` on its standard input; it writes a `Seen` to its output.

Strategy: it must cost little beside what it measures. So no HTTP library: every delta of the simulator's model `clock`
is a number and a semicolon, and a read is one `bytes.count`. Sampled streams keep their reads with the time of arrival,
to be parsed when the run is over.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from time import monotonic_ns
from typing import Any, cast

import uvloop

from tests.benchmarks import accounts
from tests.benchmarks.plan import Plan, Scenario, Seen, Via

SAMPLED = 20  # streams; at 50 deltas a second 4 s of them are 4,000 latencies
_PATIENCE = 3.0  # seconds without any delta or end, after which nothing more is expected
_STAMP = re.compile(rb"(\d{16});")
_STREAM_ID = re.compile(rb"\r\nx-stream-id: ([\w-]+)\r\n", re.IGNORECASE)
_END = b"0\r\n\r\n"


def request(via: Via, model: str, accept: str = "*/*") -> bytes:
    """Return a whole HTTP request for *model*: the service's own, or the one that the service sends upstream."""
    where = b"/v1/chat"
    body: dict[str, Any] = {"prompt": "What time is it?", "model": model}
    if via in ("direct", "nginx"):
        where = b"/v1/chat/completions"
        body = {"model": model, "messages": [{"role": "user", "content": body["prompt"]}], "stream": True}
        body["stream_options"] = {"include_usage": True}
    content = json.dumps(body).encode()
    return (
        b"POST %b HTTP/1.1\r\nhost: localhost\r\naccept: %b\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b"
    ) % (where, accept.encode(), len(content), content)


async def start(port: int, model: str) -> bytes:
    """Start a stream on *port* without reading it there, and return the request that reads it anywhere."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request("elsewhere", model, "application/json"))
        head = await reader.readuntil(b"\r\n\r\n")
        if found := _STREAM_ID.search(head):
            return b"GET /v1/streams/%b HTTP/1.1\r\nhost: localhost\r\n\r\n" % found[1]
        raise ConnectionError(head.partition(b"\r\n")[0].decode("latin-1"))
    finally:
        writer.close()


class Stream(asyncio.Protocol):
    """One stream of *wanted* deltas, over a connection of its own; started on *origin*, if that is given."""

    transport: asyncio.Transport

    def __init__(self, via: Via, rate: float, wanted: int, origin: int = 0) -> None:
        self._model = f"clock?first=0&rate={rate:g}&tokens={wanted}"
        self._via: Via = via
        self._origin = origin
        self._starting: asyncio.Task[None] | None = None
        self._head: bytes | None = b""
        self._ending = b""
        self.wanted = wanted
        self.seen = 0
        self.asked = self.first = 0  # monotonic nanoseconds
        self.reads: list[tuple[int, bytes]] | None = None  # kept where it is sampled
        self.ended = False
        self.complaint = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self) -> None:
        """Send the request."""
        self.asked = monotonic_ns()
        if self._origin:
            self._starting = asyncio.create_task(self._start())
        else:
            self.transport.write(request(self._via, self._model))

    async def _start(self) -> None:
        try:
            self.transport.write(await start(self._origin, self._model))
        except (OSError, EOFError) as error:
            self._end(f"not started: {error}")

    def data_received(self, data: bytes) -> None:
        if self.reads is not None:
            self.reads.append((monotonic_ns(), data))
        if self._head is not None:
            data = self._body_of(self._head + data)
        if new := data.count(b";"):
            if not self.seen:
                self.first = monotonic_ns()
            self.seen += new
        if self.seen >= self.wanted or not new:
            self._ending += data
            if self._ending.endswith(_END):
                self._end()

    def _body_of(self, data: bytes) -> bytes:
        head, blank, body = data.partition(b"\r\n\r\n")
        self._head = None if blank else data
        if blank and not head.startswith(b"HTTP/1.1 200 "):
            self._end(data[:300].decode("latin-1"))
        return body if blank else b""

    def _end(self, complaint: str = "") -> None:
        if not self.ended:
            self.ended = True
            terminal = b"event: done" in self._ending or b"data: [DONE]" in self._ending
            if self.seen != self.wanted or not terminal:
                complaint = complaint or f"{self.seen} of {self.wanted} deltas, then {self._ending[-200:]!r}"
            self.complaint = complaint
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"connection lost: {exc}")


def latencies(reads: Iterable[tuple[int, bytes]]) -> Iterator[float]:
    """Yield the milliseconds that each delta took from the simulator's clock to the read it came with."""
    rest = b""
    for now, data in reads:
        data = rest + data
        for stamp in _STAMP.findall(data):
            if 0 <= (late := now - int(stamp)) < 60_000_000_000:  # else a number that chunk framing fell into
                yield late / 1e6
        rest = data[data.rfind(b";") + 1 :][-64:]


class Run:
    """One scenario, played once."""

    def __init__(self, plan: Plan) -> None:
        self._scenario: Scenario = plan.scenario
        self._via = plan.via
        self._port = plan.port
        self._start_on = plan.origin
        self._watch = {**plan.watch, "load": [os.getpid()]}
        self._loop = asyncio.get_running_loop()
        self._origin = 0.0
        self._streams: list[Stream] = []
        self._probes: list[Stream] = []
        self._seen = Seen()

    async def play(self) -> Seen:
        """Open the streams, look at the window, probe for first tokens, wait for the end."""
        scenario, seen = self._scenario, self._seen
        seen.idle_rss = self._rss()
        gc.disable()  # a pause here would pass for one of the service
        self._origin = self._loop.time()
        for number in range(scenario.streams):
            offset = number * scenario.ramp / scenario.streams
            await self._until(offset)
            stream = await self._open(int(scenario.rate * (scenario.duration - offset)))
            stream.ask()
            self._streams.append(stream)
        await self._until(scenario.ramp + scenario.settle)
        await self._look()
        await self._probe()
        await self._finish()
        return seen

    async def _until(self, offset: float) -> None:
        await asyncio.sleep(self._origin + offset - self._loop.time())

    async def _open(self, wanted: int) -> Stream:
        _, stream = await self._loop.create_connection(
            lambda: Stream(self._via, self._scenario.rate, wanted, self._start_on), "127.0.0.1", self._port
        )
        return stream

    async def _look(self) -> None:
        """Take everything twice, a window apart."""
        scenario, seen, streams = self._scenario, self._seen, self._streams
        sampled = streams[:: max(1, len(streams) // SAMPLED)]
        seen.streams = sum(stream.seen > 0 for stream in streams)
        for stream in sampled:
            stream.reads = []
        began, before, idle, deltas = self._loop.time(), self._cpu(), accounts.idle(), self._deltas()
        await self._until(scenario.ramp + scenario.settle + scenario.window)
        ended, after = self._loop.time(), self._cpu()
        seen.seconds = ended - began
        seen.deltas = self._deltas() - deltas
        seen.age = self._deltas() / len(streams)
        seen.cpu = {name: after[name] - before[name] for name in after}
        seen.idle = accounts.idle() - idle
        seen.rss = self._rss()
        reads = [stream.reads or [] for stream in sampled]
        for stream in sampled:
            stream.reads = None
        seen.one_way = [late for each in reads for late in latencies(each)]

    async def _probe(self) -> None:
        """Ask for a single delta again and again, over connections opened before the clock starts."""
        scenario = self._scenario
        began = scenario.duration - scenario.probing
        for number in range(scenario.probes):
            stream = await self._open(1)
            await self._until(began + (number + 0.5) * scenario.probing / scenario.probes)
            stream.ask()
            self._probes.append(stream)

    async def _finish(self) -> None:
        """Wait for every stream's end, as long as anything moves at all: slow is late, only stuck is lost."""
        seen, everything = self._seen, [*self._streams, *self._probes]
        deadline = self._origin + self._scenario.duration + self._scenario.grace
        while (waiting := _open(everything)) and self._loop.time() < deadline:
            await asyncio.sleep(0.02)
        seen.late = len(waiting)
        patience, moved = deadline + _PATIENCE, 0
        while (waiting := _open(everything)) and (now := self._loop.time()) < patience:
            if (moves := self._deltas() - len(waiting)) != moved:
                patience, moved = now + _PATIENCE, moves
            await asyncio.sleep(0.1)
        lost = [(each, each.complaint) for each in everything if each.complaint or not each.ended]
        seen.lost = len(lost)
        seen.complaints = [complaint or f"stuck at {each.seen} of {each.wanted}" for each, complaint in lost[:5]]
        seen.first_token = [(probe.first - probe.asked) / 1e6 for probe in self._probes if probe.first]

    def _deltas(self) -> int:
        return sum(stream.seen for stream in self._streams)

    def _cpu(self) -> dict[str, float]:
        return {name: accounts.cpu(pids) for name, pids in self._watch.items()}

    def _rss(self) -> dict[str, int]:
        return {name: accounts.rss(pids) for name, pids in self._watch.items()}


def _open(streams: Iterable[Stream]) -> list[Stream]:
    return [stream for stream in streams if not stream.ended]


async def _main() -> None:
    plan = Plan.parse(sys.stdin.read())
    print((await Run(plan).play()).dump())


if __name__ == "__main__":
    uvloop.run(_main())
