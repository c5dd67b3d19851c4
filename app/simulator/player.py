"""Plays scripts: on the beat, and no faster than the client reads.

There is no task and no timer per stream. A `Clock` has one timer for all streams that are due within the same two
milliseconds, so a busy loop wakes once for many deltas. The deltas of a stream are due at fixed times (one `1 / rate`
after the other), so lateness does not add up, and deltas that are overdue share a write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

from app.simulator.script import End, Now, Park, Reply, Script, Sleep, Step

SLOT = 0.002  # seconds
BATCH = 32 << 10  # bytes in one write: below the transport's high-water mark, so that a pause comes in time

GAUGES = ("live", "connections", "background_live")


@dataclass(slots=True)
class Stats:
    """Counters of both APIs, and the gauges, which a reset leaves alone."""

    requests: int = 0  # `POST /v1/chat/completions` and `POST /v1/responses`
    responses: int = 0  # the latter alone
    streams_started: int = 0  # the headers of a stream were sent
    streams_finished: int = 0  # a stream came to its proper end
    streams_aborted: int = 0  # the client closed mid-stream
    aborted_before_headers: int = 0  # the client closed before that
    streams_cut: int = 0  # the simulator closed, as the model or `Simulator.close` demanded
    deltas: int = 0  # events on the beat: the deltas, and one finish event a stream
    background_started: int = 0
    background_finished: int = 0  # came to an end of their own, good or bad
    background_cancelled: int = 0
    background_resumed: int = 0  # streams that a `GET` began
    live: int = 0  # requests that are being answered
    connections: int = 0
    background_live: int = 0  # background responses that have not ended

    def reset(self) -> None:
        """Set the counters to zero."""
        for name in (field.name for field in fields(self)):
            if name not in GAUGES:
                setattr(self, name, 0)


class Clock:
    """Calls many streams back with few timers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.time = loop.time
        self.call_soon = loop.call_soon
        self._call_at = loop.call_at
        self._slots: dict[int, list[Callable[[float], None]]] = {}

    def call_at(self, due: float, step: Callable[[float], None]) -> None:
        """Call *step* with the time, soon after *due*."""
        slot = int(due / SLOT) + 1
        steps = self._slots.get(slot)
        if steps is None:
            steps = self._slots[slot] = []
            self._call_at(slot * SLOT, self._run, slot)
        steps.append(step)

    def _run(self, slot: int) -> None:
        # uvloop may call up to a millisecond early. The slot's own time counts then, so that each step finds its due.
        now = max(self.time(), slot * SLOT)
        for step in self._slots.pop(slot):
            step(now)


class Output(Protocol):
    """Where a script goes: a connection, or a background response."""

    def begin(self, reply: Reply) -> None: ...  # the headers, perhaps with the whole body
    def write(self, events: list[bytes]) -> None: ...  # none of them is empty
    def end(self, end: End) -> None: ...  # unless this stops the player, the script goes on
    def finish(self) -> None: ...  # the script has run out


class Player:
    """Plays one script to its end, `rate` deltas a second; 0 is as fast as the client reads.

    While it plays, exactly one call of `step` is pending: with the clock, with the loop, in the list of a `Park`, or
    in `_missed`, for as long as the player is paused.
    """

    __slots__ = ("_clock", "_due", "_interval", "_missed", "_output", "_paused", "_script", "_stats", "playing")

    def __init__(self, output: Output, script: Script, rate: float, clock: Clock, stats: Stats) -> None:
        self.playing = True
        self._output = output
        self._script = script
        self._interval = 1 / rate if rate else 0.0
        self._clock = clock
        self._stats = stats
        self._due = clock.time()
        self._paused = False
        self._missed = False

    def step(self, now: float = 0.0) -> None:
        """Hand over what is due, and see to it that this is called again."""
        if self._paused:
            self._missed = True
            return
        if not self.playing:
            return
        now = now or self._clock.time()
        events: list[bytes] = []
        size = 0
        deltas = 0
        step: Step | None = b""
        while self._due <= now and size < BATCH:
            step = next(self._script, None)
            if isinstance(step, bytes):
                events.append(step)
                size += len(step)
                deltas += 1
                self._due += self._interval
            elif isinstance(step, Now):
                if step.data:  # an empty HTTP chunk would end the body
                    events.append(step.data)
                    size += len(step.data)
            elif isinstance(step, Reply):
                self._output.begin(step)
            elif isinstance(step, Sleep):
                self._due = now + step.seconds
                break
            else:
                break
        if events:
            self._stats.deltas += deltas
            self._output.write(events)
        if step is None:
            self.playing = False
            self._output.finish()
        elif isinstance(step, End):
            self._output.end(step)
        if not self.playing:
            return
        if isinstance(step, Park):
            step.waiting.append(self.step)
        elif self._due > now:
            self._clock.call_at(self._due, self.step)
        else:
            self._clock.call_soon(self.step)

    def stop(self) -> None:
        """Play no more."""
        self.playing = False

    def pause(self) -> None:
        """Hand over nothing until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Go on. The deltas that were due in the meantime are not made up for."""
        self._paused = False
        if self._missed:
            self._missed = False
            self._due = max(self._due, self._clock.time())
            self._clock.call_soon(self.step)
