"""Background responses: they go on without a reader, are kept for a while, and are streamed from any event.

A model's script is played into a log instead of a socket, and connections read the log. Where the script ends a
connection, only the connection ends, and the response goes on. The connections of the next `GET`s break as well, as
often as the knob `fail` says. So what a relay must survive is one model name: `cut-before-finish?after=5&fail=3`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from app.simulator.answer import Answer
from app.simulator.errors import Refused
from app.simulator.player import Clock, Player, Stats
from app.simulator.responses import ResponsesEncoder
from app.simulator.script import End, Now, Park, Reply, Script, Step

_NUMBER = re.compile(rb'"sequence_number":(\d+)')


class Background:
    """One response that outlives its connections; the `Output` of its script."""

    def __init__(self, answer: Answer, encoder: ResponsesEncoder, script: Script, clock: Clock, stats: Stats) -> None:
        self.encoder = encoder
        self.streamed = answer.request.stream
        self.knobs = answer.knobs
        self.ended: float | None = None  # when
        self._log: list[Step] = []  # the headers, or the whole answer; then events, and ends of connections
        self._break: End | None = None  # how connections end before the response does
        self._connections = 0
        self._waiting: list[Callable[[], None]] = []
        self._clock = clock
        self._stats = stats
        self._player = Player(self, script, answer.knobs.rate, clock, stats)
        stats.background_started += 1
        stats.background_live += 1
        self._player.step()

    @property
    def begun(self) -> bool:
        """Whether there is a response: not if the model answered with an error, or not at all yet."""
        return bool(self._log) and isinstance(self._log[0], Reply) and self._log[0].body is None

    def begin(self, reply: Reply) -> None:
        """Keep the headers."""
        self._log.append(reply)
        self._wake()

    def write(self, events: list[bytes]) -> None:
        """Keep *events*, one by one, as a client may come back after each of them."""
        for event in b"".join(events).split(b"\n\n")[:-1]:
            self._log.append(Now(event + b"\n\n"))
        self._wake()

    def end(self, end: End) -> None:
        """Keep the place where the first connection ends, and go on."""
        self._log.append(end)
        self._break = end
        self._wake()

    def finish(self) -> None:
        """End the response."""
        self.stop()
        self._stats.background_finished += 1
        self._wake()

    def cancel(self) -> None:
        """End the response by its owner's wish. Does nothing if it has ended."""
        if self.ended is None:
            self.stop()
            self._stats.background_cancelled += 1
            self.write([self.encoder.cancelled()])

    def stop(self) -> None:
        """Play no more. Does nothing if the response has ended."""
        if self.ended is None:
            self.ended = self._clock.time()
            self._player.stop()
            self._stats.background_live -= 1

    def reply(self) -> Script:
        """Return the script for a `POST` that asked for no stream: the response as it begins."""
        yield from self._head()
        if self.begun:
            yield Reply(self.encoder.snapshot())

    def stream(self, after: int | None = None) -> Script:
        """Return one connection's script: the events after number *after*, live once those are sent."""
        breaks = self._connections < self.knobs.fail
        first = self._connections == 0
        self._connections += 1
        yield from self._head()
        if not self.begun:
            return
        yield self._log[0]
        at = 1 if after is None else self._position(after)
        sent = 0
        while at < len(self._log) or self.ended is None:
            if at == len(self._log):
                yield Park(self._waiting)
                continue
            step = self._log[at]
            at += 1
            # The first connection breaks where the script says so, the next ones when they have had `after` events.
            if isinstance(step, End):
                if breaks and first:
                    yield step
                continue
            if breaks and not first and self._break is not None and sent == self.knobs.after:
                yield self._break
            sent += 1
            yield step

    def _head(self) -> Script:
        """Yield nothing until the response has begun; if it does not, yield what the model did instead."""
        while not self._log and self.ended is None:
            yield Park(self._waiting)
        if not self.begun:
            yield from self._log[:1]

    def _position(self, after: int) -> int:
        """Return where in the log the events after number *after* begin."""
        for at, step in enumerate(self._log):
            found = _NUMBER.search(step.data) if isinstance(step, Now) else None
            if found and int(found[1]) > after:
                return at
        return len(self._log)

    def _wake(self) -> None:
        """Tell the connections that there may be more."""
        for step in self._waiting:
            self._clock.call_soon(step)
        self._waiting.clear()


class Shelf:
    """The background responses that are kept, oldest first."""

    def __init__(self, clock: Clock, stats: Stats) -> None:
        self.kept: dict[str, Background] = {}
        self.capacity = 64  # responses
        self.seconds = 600.0  # that each is kept after its end
        self._clock = clock
        self._stats = stats

    def start(self, answer: Answer, encoder: ResponsesEncoder, script: Script) -> Background:
        """Start a response. Raises Refused where there are too many that have not ended."""
        self._expire()
        if len(self.kept) >= self.capacity:
            oldest = next((name for name, each in self.kept.items() if each.ended is not None), None)
            if oldest is None:
                raise Refused(429, f"There are {self.capacity} background responses already.")
            del self.kept[oldest]
        started = self.kept[encoder.id] = Background(answer, encoder, script, self._clock, self._stats)
        return started

    def find(self, response_id: str) -> Background:
        """Return that response. Raises Refused if it is not kept, or not yet begun."""
        self._expire()
        found = self.kept.get(response_id)
        if found is None or not found.begun:
            text = f"Response with id '{response_id[:100]}' not found."
            raise Refused(404, text, code="response_not_found", param="id")
        return found

    def close(self) -> None:
        """Stop those that go on, and forget all."""
        for each in self.kept.values():
            each.stop()
        self.kept.clear()

    def _expire(self) -> None:
        since = self._clock.time() - self.seconds
        for name in [name for name, each in self.kept.items() if each.ended is not None and each.ended <= since]:
            del self.kept[name]
