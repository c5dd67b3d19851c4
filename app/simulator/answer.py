"""One answer, before an encoder gives it the form of an API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle, islice

import orjson

from app.simulator.chat import ChatEncoder
from app.simulator.knobs import Knobs
from app.simulator.parts import Kind, Part, Usage
from app.simulator.request import Request, text_of
from app.simulator.responses import ResponsesEncoder
from app.simulator.structured import json_text
from app.simulator.text import ANSWERS, REASONING, REFUSAL, choose, cut, encoded, encoded_answer

# Both have the same methods: what comes before any text, the deltas of a part, the finish and what comes after it, an
# error and what comes after that; or else what is collected, and the reply. Bytes are whole events.
Encoder = ChatEncoder | ResponsesEncoder


class Answer:
    """One answer in the making."""

    def __init__(
        self, request: Request, encoder: Encoder, knobs: Knobs, credentials: str, failures: Counter[str]
    ) -> None:
        self.request = request
        self.encoder = encoder
        self.knobs = knobs
        self.credentials = credentials
        self.failures = failures  # how often each flaky model has failed; all answers share it
        self.limit = request.limit
        self.finish_reason = "stop"
        self.spoken = 0  # deltas so far
        self.thought = 0  # deltas of reasoning so far
        self.source = self._source()

    def _source(self) -> Iterator[bytes]:
        """Return the JSON of each delta of the text, as many as the knobs say."""
        name = "" if self.request.model == "sim-echo" else self.knobs.answer or choose(self.request.prompt)
        whole = ANSWERS[name] if name else self.request.prompt
        text = whole
        if self.request.schema is not None:
            text = json_text(self.request.schema, text)
        for stop in filter(None, self.request.stops):
            text = text.partition(stop)[0]
        if text != whole:
            return encoded(text, self.knobs.size)
        pieces = iter(encoded_answer(name, self.knobs.size)) if name else encoded(text, self.knobs.size)
        if self.knobs.tokens < 0:
            return pieces
        return islice(cycle(pieces), self.knobs.tokens or None)

    def pieces(self) -> Iterator[bytes]:
        """Yield the JSON of each delta of the text, up to the limit."""
        for piece in self.source:
            if self.spoken == self.limit:
                self.finish_reason = "length"
                return
            self.spoken += 1
            yield piece

    def deltas(self) -> Iterator[bytes]:
        """Yield each delta of the text as an event. A second call goes on where the first was left."""
        return self.encoder.deltas(Part(Kind.TEXT, self.pieces()))

    def usage(self) -> Usage:
        """Return the tokens so far, a quarter of the code points for the prompt's."""
        prompt = sum(3 + len(text_of(message)) // 4 for message in self.request.messages) + 3
        return Usage(prompt, self.spoken + self.thought, self.thought)


# What an answer consists of.
Content = Callable[[Answer], Iterator[Part]]


def text(answer: Answer) -> Iterator[Part]:
    """Say the text."""
    yield Part(Kind.TEXT, answer.pieces())


def reasoning(answer: Answer, kind: Kind) -> Iterator[Part]:
    """Reason first, in a part of that *kind*, and then say the text."""
    thoughts = list(encoded(REASONING, answer.knobs.size))
    answer.thought = len(thoughts)
    yield Part(kind, iter(thoughts))
    yield from text(answer)


def refusal(answer: Answer) -> Iterator[Part]:
    """Refuse to answer."""
    pieces = list(encoded(REFUSAL, answer.knobs.size))
    answer.spoken = len(pieces)
    yield Part(Kind.REFUSAL, iter(pieces))


def calls(answer: Answer) -> Iterator[Part]:
    """Call up to two of the tools offered, or a weather tool; say the text once a tool has answered."""
    if answer.request.answered:
        yield from text(answer)
        return
    arguments = orjson.dumps({"query": answer.request.prompt[:200], "city": "東京", "unit": "celsius"}).decode()
    for index, tool in enumerate(answer.request.tools[:2] or ["get_weather"]):
        pieces = [orjson.dumps(piece) for piece in cut(arguments, answer.knobs.size or 6)]
        answer.spoken += len(pieces)
        yield Part(Kind.CALL, iter(pieces), tool, index)
    answer.finish_reason = "tool_calls"


def lone_surrogates(answer: Answer) -> Iterator[Part]:
    """Say two halves of a character in deltas of their own, and one half alone (row C16)."""
    pieces = (rb'"A smile, "', rb'"\ud83d"', rb'"\ude00"', rb'", a half one, "', rb'"\ud83d"', rb'", and no more."')
    answer.spoken = len(pieces)
    yield Part(Kind.TEXT, iter(pieces))
