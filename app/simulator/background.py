"""Background responses: they go on whoever listens, are kept a while, and are streamed again from any number.

A model's script is played into a log instead of a socket, and connections read the log. Where the script breaks a
connection, only that happens: the response goes on, and the connections of the next `GET`s break as often as the knob
`fail` says. So what a relay must survive is one model name: `cut-before-finish?after=5&fail=3`.
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from app.simulator.play import Play, resumed
from app.simulator.refusals import Refused
from app.simulator.responses import ResponsesVoice
from app.simulator.steps import Alone, End, Head, Now, Park, Reply, Script, Sleep, Waiting

if TYPE_CHECKING:
    from app.simulator import Simulator

KEPT = 256  # background responses
KEPT_SECONDS = 600  # after their end
KEPT_BYTES = 64 << 20  # of all their events
BATCH = 64  # steps of one in a turn of the loop

_NUMBER = re.compile(rb'"sequence_number":(\d+)')


class Background:
    """One response that outlives its connections."""

    def __init__(self, shelf: Shelf, play: Play, script: Callable[[Play], Script]) -> None:
        self.shelf = shelf
        self.sim = shelf.sim
        self.play = play
        self.streamed = play.asked.stream
        play.asked.stream = True  # its script is a stream's, whatever the `POST` is answered with
        self.voice = cast(ResponsesVoice, play.voice)  # `models` sees to it
        self.script = script(play)
        self.slot = -1
        self.beat = 0
        self.interval = 1 / play.knobs.rate if play.knobs.rate else 0.0
        self.origin = self.due = self.sim.loop.time()
        self.soon: asyncio.Handle | None = None
        self.log: list[bytes] = []  # events
        self.numbers: list[int] = []  # their sequence numbers; what has none has the last one's
        self.size = 0
        self.head: Head | None = None
        self.refusal: Reply | None = None  # instead of a response
        self.broken: tuple[int, End] | None = None  # after which event the first connection breaks, and how
        self.connections = 0
        self.ended = 0.0  # when, if it is
        self.bench: dict[Waiting, None] = {}

    def step(self, now: float = 0.0) -> None:
        """Play what is due, and see to it that this is called again."""
        now = now or self.sim.loop.time()
        for _ in range(BATCH):
            step = next(self.script, End.CLEAN)
            if isinstance(step, bytes):
                self.append(step)
                self.beat += 1
                self.due = self.origin + self.beat * self.interval
                self.sim.stats.deltas += 1
            elif isinstance(step, Now | Alone):
                self.append(step.data)
            elif isinstance(step, Sleep):
                self.origin = self.due = now + step.seconds
                self.beat = 0
            elif isinstance(step, Head):
                self.head = step
            elif isinstance(step, Reply):
                self.refusal = step
                self.over("background_finished")
            elif isinstance(step, End):
                self.part(step)
            if self.ended or self.due > now:
                break
        self.wake()
        if self.ended:
            return
        if self.due > now:
            self.sim.wheel.add(self, self.due)
        else:
            self.soon = self.sim.loop.call_soon(self.step)

    def append(self, data: bytes) -> None:
        for event in data.split(b"\n\n")[:-1]:
            self.log.append(event + b"\n\n")
            found = _NUMBER.search(event)
            self.numbers.append(int(found[1]) if found else self.numbers[-1] if self.numbers else -1)
        self.size += len(data)
        self.shelf.size += len(data)
        if self.shelf.size > KEPT_BYTES and not self.ended:
            self.shelf.clear()
            if self.shelf.size > KEPT_BYTES:
                self.finish(self.voice.failed(), "background_finished")

    def part(self, end: End) -> None:
        """The script ends a connection, and perhaps the response."""
        if end is not End.CLEAN or not self.voice.ended:
            self.broken = len(self.log), end
        if self.voice.ended or self.head is None:
            self.over("background_finished")
        else:
            self.script = resumed(self.play)

    def cancel(self) -> None:
        """End it, by its owner's wish. Does nothing the second time."""
        if not self.ended:
            self.finish(self.voice.cancelled(), "background_cancelled")

    def finish(self, last: bytes, counter: str) -> None:
        """End it with *last*."""
        self.over(counter)
        self.append(last)
        self.wake()

    def over(self, counter: str | None) -> None:
        """Stop, and count it under *counter*. Does nothing the second time."""
        if self.ended:
            return
        self.ended = self.sim.loop.time()
        self.script = iter(())
        self.sim.wheel.discard(self)
        if self.soon is not None:
            self.soon.cancel()
        stats = self.sim.stats
        stats.background_live -= 1
        if counter:
            setattr(stats, counter, getattr(stats, counter) + 1)

    def wake(self) -> None:
        """Tell the connections that there may be more."""
        bench, self.bench = self.bench, {}
        for reader in bench:
            reader.wake()

    def reply(self) -> Script:
        """The answer to a `POST` that asked for no stream: the response as it begins."""
        yield from self._begun()
        yield self.voice.snapshot()

    def stream(self, after: int = -1) -> Script:
        """One connection's stream: the events after number *after*, live once they are told."""
        first = self.connections == 0
        breaks = self.connections < self.play.knobs.fail
        self.connections += 1
        yield from self._begun()
        if self.head is not None:
            yield self.head
        at = bisect_right(self.numbers, after) if after >= 0 else 0
        began = at
        while True:
            if self.broken is not None and breaks:
                # The first connection breaks where the script said, the others when they have had as much.
                place, end = self.broken if first else (began + self.play.knobs.after, self.broken[1])
                if at == place and (first or at < len(self.log) or not self.ended):
                    yield end
            if at < len(self.log):
                yield Now(self.log[at])
                at += 1
            elif self.ended:
                yield End.CLEAN
            else:
                yield Park(self.bench)

    def _begun(self) -> Script:
        """Nothing, until there is a head or a refusal."""
        while self.head is None and not self.ended:
            yield Park(self.bench)
        if self.refusal is not None:
            yield self.refusal
        if self.head is None:
            yield self.broken[1] if self.broken else End.CUT


class Shelf:
    """The background responses that are kept, oldest first: not too many, not too large, not too long."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.size = 0  # bytes
        self.kept: dict[str, Background] = {}

    def begin(self, play: Play, script: Callable[[Play], Script]) -> Background:
        """Start a response. Raises Refused where there are too many already."""
        self.clear(self.sim.loop.time() - KEPT_SECONDS)
        while len(self.kept) >= KEPT:
            oldest = next((each for each in self.kept.values() if each.ended), None)
            if oldest is None:
                raise Refused(429, f"There are {KEPT} background responses already.")
            self._forget(oldest)
        started = Background(self, play, script)
        self.kept[started.voice.id] = started
        self.sim.stats.background_started += 1
        self.sim.stats.background_live += 1
        started.step()
        return started

    def find(self, response_id: str) -> Background:
        """Return that response. Raises Refused if it is not, or no longer, kept."""
        self.clear(self.sim.loop.time() - KEPT_SECONDS)
        found = self.kept.get(response_id)
        if found is None or found.head is None:
            text = f"Response with id '{response_id[:100]}' not found."
            raise Refused(404, text, code="response_not_found", param="id")
        return found

    def clear(self, before: float = float("inf")) -> None:
        """Forget those that ended *before* that time of the loop."""
        for each in [each for each in self.kept.values() if each.ended and each.ended < before]:
            self._forget(each)

    def close(self) -> None:
        """Forget them all, and stop those that go on."""
        for each in list(self.kept.values()):
            each.over(None)
            self._forget(each)

    def _forget(self, one: Background) -> None:
        del self.kept[one.voice.id]
        self.size -= one.size
