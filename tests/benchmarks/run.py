"""One run of the load client: streams are opened, looked at for a while, and left or seen to their ends."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from time import monotonic_ns
from typing import Any

from tests.benchmarks import accounts
from tests.benchmarks.client import Stream, attachment, clock, connect, content_of, latencies, start
from tests.benchmarks.counters import Counters, Unavailable, retired
from tests.benchmarks.plan import Plan, Seen

SAMPLED = 20  # streams; at 50 deltas a second 4 s of them are 4,000 latencies
_CALM = 0.3  # seconds for the last first token to come
_WAKING = 0.5  # seconds until all cores can be counted, and for what piled up meanwhile
_ENDING = 0.1  # seconds before the streams' ends
_PATIENCE = 3.0  # seconds without any delta or end, after which nothing more is expected
_HOPELESS = 0.9  # of the deltas that were to come: with less, the ends of all streams are minutes away


class Run:
    """The streams of one scenario, and what is seen of them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.scenario = plan.scenario
        self.seen = Seen()
        self.streams: list[Stream] = []
        self._watch = {**plan.watch, "load": [os.getpid()]}
        self._loop = asyncio.get_running_loop()
        self._origin = 0.0
        self._probes: list[Stream] = []
        self._attaching: set[asyncio.Task[None]] = set()

    async def play(self) -> None:
        """Open the streams, look at the window, probe for first tokens, count instructions, wait for the end."""
        scenario = self.scenario
        await self.open(scenario.rate)
        await self.look()
        if not scenario.patient and self.seen.deltas < _HOPELESS * scenario.streams * scenario.rate * self.seen.seconds:
            self.cut()
            return
        await self._probe()
        await self._count()
        await self._finish()

    async def open(self, rate: float, *, seconds: float = 0.0, receive: int = 0, pausing: bool = False) -> None:
        """Open all streams, of *rate* deltas a second, until the scenario is over or for *seconds*; wait until settled.

        *receive* is `connect`'s. If *pausing*, each is read until its first delta has come and no further.
        """
        scenario, plan = self.scenario, self.plan
        self.seen.idle_rss = self.rss()
        gc.disable()  # a pause here would pass for one of the service
        self._origin = self._loop.time()
        for number in range(scenario.streams):
            offset = number * scenario.ramp / scenario.streams
            await self.until(offset)
            wanted = max(1, int(rate * ((seconds or scenario.duration) - offset)))
            stream = await connect(plan.ask, plan.port, wanted, receive=receive)
            stream.pausing = pausing
            self.streams.append(stream)
            self._ask(stream, clock(rate, wanted))
            for _ in range(plan.ask.readers - 1):
                self._go(self._attach(stream))
        await self.until(scenario.ramp + scenario.settle)

    def _ask(self, stream: Stream, model: str) -> None:
        if self.plan.origin:
            stream.asked = monotonic_ns()
            self._go(self._start_elsewhere(stream, model))
        else:
            stream.ask(content_of(self.plan.ask, model))

    async def _start_elsewhere(self, stream: Stream, model: str) -> None:
        try:
            stream.ask(attachment(await start(self.plan.origin, self.plan.ask, model)))
        except (OSError, EOFError) as error:
            stream.end(f"not started: {error}")

    async def _attach(self, to: Stream) -> None:
        """Have one more reader of a stream."""
        stream_id = await to.stream_id
        stream = await connect(self.plan.ask, self.plan.port, to.wanted)
        self.streams.append(stream)
        stream.ask(attachment(stream_id))

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._attaching.add(task)
        task.add_done_callback(self._attaching.discard)

    async def until(self, offset: float) -> None:
        """Wait until *offset* seconds from the start."""
        await asyncio.sleep(self._origin + offset - self._loop.time())

    async def look(self) -> None:
        """Take everything twice, a window apart."""
        seen, streams, readers = self.seen, self.streams, self.plan.ask.readers
        sampled = streams[:: max(1, len(streams) // SAMPLED)]
        seen.streams = sum(stream.seen > 0 for stream in streams) // readers
        for stream in sampled:
            stream.reads = []
        began, before, idle, deltas = self._loop.time(), self._cpu(), accounts.idle(), self._deltas()
        await self.until(self.scenario.ramp + self.scenario.settle + self.scenario.window)
        ended, after = self._loop.time(), self._cpu()
        seen.seconds = ended - began
        seen.deltas = (self._deltas() - deltas) // readers
        seen.age = self._deltas() / max(1, len(streams))
        seen.cpu = {name: after[name] - before[name] for name in after}
        seen.idle = accounts.idle() - idle
        seen.rss = self.rss()
        reads = [stream.reads or [] for stream in sampled]
        for stream in sampled:
            stream.reads = None
        seen.one_way = [late for each in reads for late in latencies(each)]

    async def _probe(self) -> None:
        """Ask for a single delta again and again, over connections opened before the clock starts."""
        scenario, plan = self.scenario, self.plan
        began = scenario.ramp + scenario.settle + scenario.window
        for number in range(scenario.probes):
            stream = await connect(plan.ask, plan.port, 1)
            await self.until(began + (number + 0.5) * scenario.probing / scenario.probes)
            self._ask(stream, clock(scenario.rate, 1))
            self._probes.append(stream)

    async def _count(self) -> None:
        """Count instructions, if the scenario has time for it: after all else, as counting slows every task switch.

        The load client and the simulator are counted, too, as they run on all cores all the time: a virtual counter
        that is unused is given back to the host, and having it again stops that core for 150 ms.
        """
        scenario, seen, readers = self.scenario, self.seen, self.plan.ask.readers
        if not scenario.counting:
            return
        began = scenario.duration - scenario.counting + _CALM
        await self.until(began)
        # In a thread, as who opens the first one waits for all cores.
        with suppress(Unavailable), await asyncio.to_thread(Counters, self._watch) as counters:
            await self.until(began + _WAKING)
            before, deltas = counters.read(), self._deltas()
            await self.until(scenario.duration - _ENDING)
            seen.instructions = retired(before, counters.read())
            seen.counted = (self._deltas() - deltas) // readers

    async def _finish(self) -> None:
        """Wait for every stream's end, as long as anything moves at all: slow is late, only stuck is lost."""
        seen, everything = self.seen, [*self.streams, *self._probes]
        deadline = self._origin + self.scenario.duration + self.scenario.grace
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

    def cut(self) -> None:
        """Leave all streams that are still open."""
        complaints = [each.complaint for each in self.streams if each.complaint]
        self.seen.lost, self.seen.complaints = len(complaints), complaints[:5]
        for stream in (waiting := _open(self.streams)):
            stream.leave()
        self.seen.cut = len(waiting)

    def rss(self) -> dict[str, int]:
        """Return the resident bytes of all that is watched."""
        return {name: accounts.rss(pids) for name, pids in self._watch.items()}

    def _deltas(self) -> int:
        return sum(stream.seen for stream in self.streams)

    def _cpu(self) -> dict[str, float]:
        return {name: accounts.cpu(pids) for name, pids in self._watch.items()}


def _open(streams: Iterable[Stream]) -> list[Stream]:
    return [stream for stream in streams if not stream.ended]
