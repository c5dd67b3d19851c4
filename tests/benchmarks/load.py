"""The load client: a process of its own that opens streams, and does with them what its task is.

Run as `python -m tests.benchmarks.load FILE`, with a `Plan` on its standard input; it writes a `Seen` to FILE, since a
pipe has lost the end of a long one.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic_ns
from typing import Self

import uvloop

from tests.benchmarks.client import Stream, attachment, clock, connect, content_of, start
from tests.benchmarks.plan import Plan, Seen, Task
from tests.benchmarks.requests import Requests
from tests.benchmarks.run import Run

RECORDS = 10_000  # of the stream that is resumed
_LONG = 90.0  # seconds that streams go on which are left in the end
_LEAVES = 20  # readers that leave, one after another
_RESUMES = 15
_AWAITED = 12.0  # seconds for an upstream to hear that its reader is gone
_NARROW = 4096  # bytes the kernel holds for a reader, so that a paused one is the contender's affair


class Simulator:
    """The simulator's counters, over a connection that is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connected(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def counter(self, name: str) -> int:
        """Return the counter of that name."""
        self._writer.write(b"GET /stats HTTP/1.1\r\nhost: localhost\r\n\r\n")
        head = await self._reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        value: int = json.loads(await self._reader.readexactly(size))[name]
        return value

    async def past(self, name: str, value: int, seconds: float) -> bool:
        """Wait until the counter exceeds *value*; say whether it did within *seconds*."""
        deadline = monotonic_ns() + seconds * 1e9
        while await self.counter(name) <= value:
            if monotonic_ns() > deadline:
                return False
            await asyncio.sleep(0.0002)
        return True


async def _load(run: Run) -> None:
    await run.play()


async def _idle(run: Run) -> None:
    """Streams that said one delta and then nothing, for the window."""
    await run.open(0.01, seconds=1000)
    await run.look()
    run.cut()


async def _memory(run: Run, *, pausing: bool = False) -> None:
    """What streams take that are read; *samples* is how many deltas upstream sent of each."""
    simulator = await Simulator.connected(run.plan.simulator)
    before = await simulator.counter("deltas")
    await run.open(run.scenario.rate, seconds=_LONG, receive=_NARROW, pausing=pausing)
    await run.look()
    run.seen.samples = [(await simulator.counter("deltas") - before) / len(run.streams)]
    run.cut()


async def _paused(run: Run) -> None:
    """What streams take whose readers do not read."""
    await _memory(run, pausing=True)


async def _abort(run: Run) -> None:
    """Among the scenario's streams, have one reader after another leave: milliseconds until upstream sees it.

    Ends with the first of which upstream does not see it in time; that one is then `late`.
    """
    plan, seen = run.plan, run.seen
    simulator = await Simulator.connected(plan.simulator)
    await run.open(run.scenario.rate, seconds=_LONG)
    for _ in range(_LEAVES):
        before = await simulator.counter("streams_aborted")
        stream = await connect(plan.ask, plan.port, 1_000_000)
        model = clock(50, 1_000_000)
        if plan.origin:
            stream.ask(attachment(await start(plan.origin, plan.ask, model)))
        else:
            stream.ask(content_of(plan.ask, model))
        await _begun(stream)
        if stream.ended:
            seen.complaints.append(stream.complaint)
            seen.lost += 1
            break
        left = monotonic_ns()
        stream.leave()
        if not await simulator.past("streams_aborted", before, _AWAITED):
            seen.late = 1
            break
        seen.samples.append((monotonic_ns() - left) / 1e6)
    run.cut()


async def _resume(run: Run) -> None:
    """Among the scenario's streams, read 10,000 records of an ended one again and again: milliseconds for all."""
    plan, seen = run.plan, run.seen
    await run.open(run.scenario.rate, seconds=_LONG)
    first = await connect(plan.ask, plan.origin or plan.port, RECORDS)
    first.ask(content_of(plan.ask, clock(0, RECORDS), {"chunk": "none"}))
    stream_id = await first.stream_id
    await asyncio.wait_for(first.over.wait(), 60)
    complaints = [first.complaint]
    for _ in range(_RESUMES):
        again = await connect(plan.ask, plan.port, RECORDS)
        again.ask(attachment(stream_id, after=1))
        await asyncio.wait_for(again.over.wait(), 60)
        seen.samples.append((monotonic_ns() - again.asked) / 1e6)
        complaints.append(again.complaint)
    run.cut()
    seen.complaints += filter(None, complaints)
    seen.lost += len([*filter(None, complaints)])


async def _begun(stream: Stream) -> None:
    """Wait for the stream's first deltas, or its end. Raises TimeoutError."""
    deadline = monotonic_ns() + 20e9
    while stream.seen < 3 and not stream.ended:
        if monotonic_ns() > deadline:
            raise TimeoutError("waited in vain for deltas")
        await asyncio.sleep(0.002)


TASKS: dict[Task, Callable[[Run], Awaitable[None]]] = {
    "load": _load,
    "abort": _abort,
    "resume": _resume,
    "idle": _idle,
    "memory": _memory,
    "paused": _paused,
}


async def play(plan: Plan) -> Seen:
    """Do the task, and say what was seen."""
    run = Requests(plan) if plan.scenario.answers else Run(plan)
    await TASKS[plan.task](run)
    return run.seen


if __name__ == "__main__":
    seen = uvloop.run(play(Plan.parse(sys.stdin.read())))
    Path(sys.argv[1]).write_text(seen.dump())
