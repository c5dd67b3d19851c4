"""How the simulator plays a request: what is to be said, and the scripts of a healthy stream and a healthy reply."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle, islice

from app.simulator.knobs import Knobs
from app.simulator.request import Asked, text_of
from app.simulator.steps import End, Head, Now, Script, Sleep
from app.simulator.structured import json_text
from app.simulator.text import ANSWERS, answer, choose, encoded
from app.simulator.voice import Counts, Voice

# Deltas in a reply that is no stream.
MOST_PIECES = 100_000


class Play:
    """One request, understood: what is to be said, and in which voice."""

    __slots__ = (
        *("asked", "credentials", "failures", "finish", "knobs", "limit", "prompt", "source", "spoken", "thought"),
        "voice",
    )

    def __init__(self, asked: Asked, voice: Voice, knobs: Knobs, credentials: str, failures: Counter[str]) -> None:
        self.asked = asked
        self.voice = voice
        self.knobs = knobs
        self.credentials = credentials
        self.failures = failures  # shared by all requests: what flaky counts
        self.prompt = asked.prompt
        self.finish = "stop"
        self.spoken = 0
        self.thought = 0
        self.limit = asked.limit
        if asked.model == "sim-echo":
            self.say(self.prompt)
        else:
            name = knobs.answer or choose(self.prompt)
            self.say(ANSWERS[name], name)

    def say(self, text: str, name: str = "") -> None:
        """Make *text* the answer; *name* is its name if it is one of ours."""
        if self.asked.format is not None:
            text, name = json_text(self.asked.format, text), ""
        ends = [text.find(stop) for stop in self.asked.stops if stop]
        end = min((end for end in ends if end >= 0), default=-1)
        whole = answer(name, self.knobs.size) if name and end < 0 else None
        pieces = whole or encoded(text if end < 0 else text[:end], self.knobs.size)
        self.source: Iterator[bytes] = iter(pieces)
        if end < 0 and self.knobs.tokens >= 0 and self.asked.format is None:
            self.source = cycle(pieces) if self.knobs.tokens == 0 else islice(cycle(pieces), self.knobs.tokens)

    def pieces(self) -> Iterator[bytes]:
        """Yield the JSON of each delta."""
        for piece in self.source:
            if self.spoken == self.limit:
                self.finish = "length"
                return
            self.spoken += 1
            yield piece

    def deltas(self) -> Iterator[bytes]:
        """Yield each content delta as an event."""
        return self.voice.text(self.pieces())

    def counts(self) -> Counts:
        """Return the tokens as OpenAI would count them."""
        prompt = sum(3 + len(text_of(message)) // 4 for message in self.asked.messages) + 3
        return Counts(prompt, self.spoken + self.thought, self.thought)


# What a model says between its beginning and its end, as events.
Content = Callable[[Play], Iterator[bytes]]


def plain(play: Play) -> Iterator[bytes]:
    """The answer, as text."""
    return play.deltas()


def clock(play: Play) -> Iterator[bytes]:
    """The usual number of deltas, each of them the time: sixteen digits and a semicolon."""
    play.source = (b'"%016d;"' % time.monotonic_ns() for _ in play.source)
    return play.deltas()


def opening(play: Play) -> Script:
    """Headers and what comes before the text, after the delays asked for."""
    yield Sleep(play.knobs.first)
    yield Head()
    yield Now(play.voice.opening())
    if play.knobs.head:
        yield Sleep(play.knobs.head)


def closing(play: Play, *, usage: bool = True) -> Script:
    """The finish on the beat, then what comes with it."""
    counts = play.counts() if usage else None
    yield play.voice.finish(play.finish, counts)
    yield from map(Now, play.voice.after(counts))


def streamed(content: Content) -> Callable[[Play], Script]:
    """Return the script of a stream of *content* as it should be."""

    def script(play: Play) -> Script:
        yield from opening(play)
        yield from content(play)
        yield from closing(play)
        yield End.CLEAN

    return script


def whole(content: Content) -> Callable[[Play], Script]:
    """Return the script of a reply, which takes as long as the stream would have."""

    def script(play: Play) -> Script:
        yield Sleep(play.knobs.first + play.knobs.head)
        if play.knobs.tokens == 0 and play.asked.limit is None:
            yield End.HANG
        play.voice = play.voice.collecting()
        for _ in islice(content(play), MOST_PIECES):
            pass
        if play.knobs.rate:
            yield Sleep((play.spoken + play.thought) / play.knobs.rate)
        yield play.voice.reply(play.finish, play.counts())

    return script


def asked_for(content: Content) -> Callable[[Play], Script]:
    """Return the script of *content* as it was asked for, streamed or whole."""
    stream, reply = streamed(content), whole(content)
    return lambda play: stream(play) if play.asked.stream else reply(play)


normal = streamed(plain)
completion = whole(plain)
healthy = asked_for(plain)


def begun(play: Play) -> Script:
    """What comes before a fault in mid-stream."""
    yield from opening(play)
    yield from islice(play.deltas(), play.knobs.after)


def resumed(play: Play) -> Script:
    """The rest of what was begun: a background response goes on although its connection did not."""
    yield from play.deltas()
    yield from closing(play)
    yield End.CLEAN
