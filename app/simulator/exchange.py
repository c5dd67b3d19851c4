"""The simulator's clock: what plays a script to one client, on the beat and no faster than the client reads.

Strategy: no task and no timer per stream. All streams share one wheel of deadlines in slots of two milliseconds, so a
busy loop wakes once a slot, not once a delta. Deadlines are absolute (delta k is due at start + k/rate): lateness does
not add up, and deltas that are overdue share a write. A stream whose client does not read is not asked for anything
until it does, and its clock stands still.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, fields
from heapq import heappop, heappush
from itertools import repeat
from typing import TYPE_CHECKING, Protocol

from app.simulator.steps import Alone, End, Head, Now, Park, Reply, Script, Sleep

if TYPE_CHECKING:
    from app.simulator.connection import Connection

SLOT = 0.002  # seconds; rates above 500 a second share writes, and a wake-up is worth more than one delta
BATCH = 32 << 10  # bytes in one write: below the transport's high-water mark, so a pause comes in time

_NEVER = 1 << 62
_SIZES = [b"%x\r\n" % size for size in range(4096)]
_LAST_CHUNK = b"0\r\n\r\n"


def framed(data: bytes) -> bytes:
    """Return *data* as one HTTP chunk."""
    size = len(data)
    return b"".join((_SIZES[size] if size < 4096 else b"%x\r\n" % size, data, b"\r\n"))


GAUGES = ("live", "connections", "background_live")


@dataclass(slots=True)
class Stats:
    """Counters of both APIs, and the gauges, which a reset leaves alone."""

    requests: int = 0  # for an answer: `POST /v1/chat/completions` and `POST /v1/responses`
    responses: int = 0  # the latter alone
    streams_started: int = 0  # a head with a body in steps went out
    streams_finished: int = 0  # the script came to its proper end
    streams_aborted: int = 0  # the client closed in mid-body
    aborted_before_headers: int = 0  # the client closed before that
    streams_cut: int = 0  # the simulator closed, as the model or `close()` demanded
    deltas: int = 0  # events on the beat: the deltas, and one finish chunk a stream
    background_started: int = 0
    background_finished: int = 0  # came to an end of their own, whichever it was
    background_cancelled: int = 0
    background_resumed: int = 0  # streams of one that `GET` began
    live: int = 0
    connections: int = 0
    background_live: int = 0  # background responses that go on

    def reset(self) -> None:
        """Set the counters to zero."""
        for name in (each.name for each in fields(self)):
            if name not in GAUGES:
                setattr(self, name, 0)


class Timed(Protocol):
    """What a wheel turns."""

    slot: int

    def step(self, now: float = 0.0) -> None: ...


class Wheel:
    """Deadlines of many exchanges behind one timer of the loop."""

    __slots__ = ("_armed", "_due", "_loop", "_next", "_slots", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, dict[Timed, None]] = {}
        self._due: list[int] = []  # heap of the slots' numbers: ints compare in C
        self._next = 0  # the first slot that is still to come
        self._timer: asyncio.TimerHandle | None = None
        self._armed = _NEVER

    def add(self, exchange: Timed, due: float) -> None:
        """Have `exchange.step` called once, at *due*."""
        slot = exchange.slot = max(int(due / SLOT) + 1, self._next)
        entries = self._slots.get(slot)
        if entries is None:
            self._slots[slot] = {exchange: None}
            heappush(self._due, slot)
            if slot < self._armed:
                self._arm()
        else:
            entries[exchange] = None

    def discard(self, exchange: Timed) -> None:
        """Forget *exchange*, if it was added."""
        if entries := self._slots.get(exchange.slot):
            entries.pop(exchange, None)

    def close(self) -> None:
        """Forget them all."""
        self._slots.clear()
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = self._due[0]
        self._timer = self._loop.call_at(self._armed * SLOT, self._run)

    def _run(self) -> None:
        self._timer = None
        self._armed = 0  # what the steps add is armed for once, below
        # A loop may call a little early: go by the slots' time, not the clock's, so that every step makes progress.
        last = max(int(self._loop.time() / SLOT), self._due[0])
        self._next = last + 1
        now = last * SLOT
        while self._due and self._due[0] <= last:
            for exchange in self._slots.pop(heappop(self._due)):
                exchange.step(now)
        while self._due and not self._slots[self._due[0]]:
            del self._slots[heappop(self._due)]
        self._armed = _NEVER
        if self._due:
            self._arm()


class Exchange:
    """One request being answered: plays the script, on the beat, as fast as the client reads."""

    __slots__ = (
        *("beat", "chunked", "connection", "due", "headed", "interval", "live", "origin", "paused", "script"),
        *("sim", "slot", "soon", "transport"),
    )

    def __init__(self, connection: Connection, script: Script, rate: float) -> None:
        self.connection = connection
        self.sim = connection.sim
        self.transport = connection.transport
        self.script = script
        self.interval = 1 / rate if rate else 0.0
        self.chunked = False
        self.headed = False
        self.live = True
        self.paused = 0.0  # when, if it is
        self.slot = -1
        self.soon: asyncio.Handle | None = None
        self.beat = 0
        self.origin = self.due = self.sim.loop.time()

    def step(self, now: float = 0.0) -> None:
        """Write what is due, and see to it that this is called again."""
        now = now or self.sim.loop.time()
        out: list[bytes] = []
        size = spoken = 0
        end = bench = None
        while self.due <= now and size < BATCH:
            step = next(self.script, End.CLEAN)
            if isinstance(step, bytes):
                data = step
                spoken += 1
                self.beat += 1
                self.due = self.origin + self.beat * self.interval
            elif isinstance(step, Now):
                data = step.data
            elif isinstance(step, Alone):
                data = step.data
                size = BATCH
            elif isinstance(step, Sleep):
                self.origin = self.due = now + step.seconds
                self.beat = 0
                continue
            elif isinstance(step, Head):
                out.append(self.head(step))
                continue
            elif isinstance(step, Reply):
                out.append(self.connection.encode(step))
                end = End.CLEAN
                break
            elif isinstance(step, Park):
                bench = step.bench
                break
            else:
                end = step
                break
            size += len(data)
            out.append(framed(data) if self.chunked else data)
        if end is End.CLEAN and self.chunked:
            out.append(_LAST_CHUNK)
        if out:
            self.sim.stats.deltas += spoken
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))
        if end is not None:
            self.end(end)
        elif bench is not None:
            bench[self] = None
        elif self.live and not self.paused:
            self.schedule(now)

    def schedule(self, now: float) -> None:
        if self.due > now:
            self.sim.wheel.add(self, self.due)
        else:
            self.soon = self.sim.loop.call_soon(self.step)

    def wake(self) -> None:
        """What this was parked for may have come."""
        if self.live and not self.paused:
            self.unschedule()
            self.soon = self.sim.loop.call_soon(self.step)

    def head(self, head: Head) -> bytes:
        """Return the bytes of *head*; from here on this is a stream."""
        self.headed = True
        self.sim.stats.streams_started += 1
        self.chunked = self.connection.parser.get_http_version() != "1.0"
        length = b"transfer-encoding: chunked\r\n" if self.chunked else b""
        if not self.chunked:
            self.connection.keep_alive = False
        return self.connection.encode_head(200, head.content_type, head.headers + length)

    def pause(self) -> None:
        self.paused = self.sim.loop.time()
        self.unschedule()

    def resume(self) -> None:
        now = self.sim.loop.time()
        idle = now - self.paused if self.paused else 0.0
        self.paused = 0.0
        self.origin += idle
        self.due += idle
        if self.live:
            self.unschedule()
            self.schedule(now)

    def unschedule(self) -> None:
        self.sim.wheel.discard(self)
        if self.soon is not None:
            self.soon.cancel()
            self.soon = None

    def end(self, end: End) -> None:
        """Do what the script's last step says."""
        if end is End.HANG:
            self.script = repeat(end)  # whatever wakes this up again, a resume for one
            return
        if end is End.CLEAN or end is End.LINGER:
            self.over("streams_finished" if self.headed else None)
        else:
            self.over("streams_cut")
        if end is End.CLEAN:
            self.connection.finished()
        elif end is not End.LINGER:
            if end is End.RESET:
                self.connection.reset_on_close()
            # Not abort(): that would drop what uvloop has not written yet.
            self.transport.close()

    def over(self, counter: str | None) -> None:
        """Stop, and count it under *counter*. Does nothing the second time."""
        if not self.live:
            return
        self.live = False
        self.unschedule()
        stats = self.sim.stats
        stats.live -= 1
        if counter:
            setattr(stats, counter, getattr(stats, counter) + 1)

    def lost(self) -> None:
        """The client is gone."""
        self.over("streams_aborted" if self.headed else "aborted_before_headers")
