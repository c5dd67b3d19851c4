"""How the simulator plays a request: the steps a script is made of, the knobs, and the script of a healthy stream.

A script is a generator of steps; the server (`simulator`) writes each step out and keeps the time. So a model is a few
lines, without socket or clock.
"""

from __future__ import annotations

import enum
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import orjson

from app.upstream.simulator.text import ANSWERS, DONE, Chunks, answer, choose, encoded


class Sleep(NamedTuple):
    """Nothing for *seconds*; the beat starts anew after it."""

    seconds: float


class Head(NamedTuple):
    """The head of an answer whose body follows in steps."""

    content_type: bytes = b"text/event-stream; charset=utf-8"
    headers: bytes = b""


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes
    headers: bytes = b""
    content_type: bytes = b"application/json"


class Now(NamedTuple):
    """Bytes that do not wait for the beat."""

    data: bytes


class Alone(NamedTuple):
    """Bytes that share their write with no others."""

    data: bytes


class End(enum.Enum):
    """How a script ends."""

    CLEAN = enum.auto()  # the body is ended properly, the connection kept
    CUT = enum.auto()  # closed in the middle of the body
    RESET = enum.auto()  # the same, with a TCP reset
    HANG = enum.auto()  # nothing more, the socket stays open
    LINGER = enum.auto()  # the same, after everything was said


Step = bytes | Sleep | Head | Reply | Now | Alone | End  # bytes: one event, on the beat
Script = Iterator[Step]


class BadKnob(ValueError):
    """A knob of the model name is unknown, doubled, or out of range."""


@dataclass(frozen=True, slots=True)
class Knobs:
    """What a model name may ask for after its question mark."""

    rate: float = 50  # deltas a second; 0 is as fast as they are read
    tokens: int = -1  # deltas in all; 0 never ends, -1 is the answer as it is
    first: float = 0.3  # seconds before the headers
    head: float = 0  # seconds between headers and first delta
    size: int = 0  # code points in a delta; 0 cuts like a tokenizer
    after: int = 5  # deltas before the fault
    seconds: float = 3  # how late, or how far apart
    retry_after: float = -1  # -1 is 1 for statuses 429 and 503 and absent for the others
    fail: int = 1  # how many requests with the same key fail
    mib: int = 16  # how giant
    status: int = 401  # what leak answers with
    key: str = ""  # what flaky counts by, instead of the prompt
    answer: str = ""  # which text, instead of the prompt's choice


_BOUNDS: dict[str, tuple[type, float, float]] = {
    "rate": (float, 0, 1e6),
    "tokens": (int, 0, 10_000_000),
    "first": (float, 0, 3600),
    "head": (float, 0, 3600),
    "size": (int, 0, 1_000_000),
    "after": (int, 0, 10_000_000),
    "seconds": (float, 0, 3600),
    "retry_after": (float, 0, 1e6),
    "fail": (int, 0, 1_000_000),
    "mib": (int, 1, 1024),
    "status": (int, 400, 599),
}


def tune(knobs: Knobs, query: str) -> Knobs:
    """Return *knobs* changed as *query* says. Raises BadKnob."""
    if not query:
        return knobs
    try:
        fields = parse_qs(query, keep_blank_values=True, strict_parsing=True, max_num_fields=20)
    except ValueError:
        raise BadKnob("The knobs after `?` are not of the form name=value&name=value.") from None
    changes: dict[str, Any] = {}
    for name, values in fields.items():
        value = values[0]
        if len(values) > 1:
            raise BadKnob(f"Knob {name[:20]!r} is given twice.")
        if (name == "key" and len(value) <= 200) or (name == "answer" and value in ANSWERS):
            changes[name] = value
        elif name in _BOUNDS:
            kind, low, high = _BOUNDS[name]
            try:
                number = kind(value)
            except ValueError:
                number = -1
            if not low <= number <= high:
                raise BadKnob(f"Knob {name!r} must be {kind.__name__}, from {low:g} to {high:g}.")
            changes[name] = number
        else:
            raise BadKnob(f"Knob {name[:20]!r} is unknown, or its value is. Knobs: {', '.join(Knobs.__slots__)}.")
    return replace(knobs, **changes)


class Play:
    """One request, understood: what is to be said, and in which chunks."""

    __slots__ = (
        *("body", "chunks", "credentials", "failures", "finish", "include_usage", "knobs", "limit", "messages"),
        *("prompt", "source", "spoken", "thought"),
    )

    def __init__(
        self, model: str, knobs: Knobs, body: Mapping[str, Any], credentials: str, failures: Counter[str]
    ) -> None:
        self.knobs = knobs
        self.body = body
        self.credentials = credentials
        self.failures = failures  # shared by all requests: what flaky counts
        self.messages: list[Any] = body["messages"]
        self.prompt = last_words(self.messages)
        options = body.get("stream_options")
        self.include_usage = isinstance(options, dict) and options.get("include_usage") is True
        self.chunks = Chunks(model, int(time.time()), include_usage=self.include_usage)
        self.finish = "stop"
        self.spoken = 0
        self.thought = 0
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        self.limit: int | None = limit if isinstance(limit, int) else None
        name = knobs.answer or choose(self.prompt)
        self.say(self.prompt if model == "sim-echo" else ANSWERS[name], "" if model == "sim-echo" else name)

    def say(self, text: str, name: str = "") -> None:
        """Make *text* the answer; *name* is its name if it is one of ours."""
        stops = self.body.get("stop")
        ends = [text.find(stop) for stop in ([stops] if isinstance(stops, str) else stops or ()) if stop]
        end = min((end for end in ends if end >= 0), default=-1)
        whole = answer(name, self.knobs.size) if name and end < 0 else None
        pieces = whole or encoded(text if end < 0 else text[:end], self.knobs.size)
        self.source: Iterator[bytes] = iter(pieces)
        if end < 0 and self.knobs.tokens >= 0:
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
        """Yield each content delta as an event. The hot path: per delta, two concatenations."""
        before, after = self.chunks.before, self.chunks.after
        for piece in self.pieces():
            yield before + piece + after

    def usage(self) -> dict[str, Any]:
        """Return the counts as OpenAI would."""
        prompt = sum(3 + len(text_of(message)) // 4 for message in self.messages) + 3
        said = self.spoken + self.thought
        return {
            "prompt_tokens": prompt,
            "completion_tokens": said,
            "total_tokens": prompt + said,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": self.thought},
        }


def text_of(message: Any) -> str:
    """Return the text of one message, whether a string or parts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        return "".join(str(part["text"]) for part in content if isinstance(part, dict) and "text" in part)
    return content if isinstance(content, str) else ""


def last_words(messages: list[Any]) -> str:
    """Return the text of the last user message."""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return text_of(message)
    return ""


def opening(play: Play) -> Script:
    """Headers and the role chunk, after the delays asked for."""
    yield Sleep(play.knobs.first)
    yield Head()
    yield Now(play.chunks.delta({"role": "assistant", "content": "", "refusal": None}))
    if play.knobs.head:
        yield Sleep(play.knobs.head)


def closing(play: Play, *, usage: bool = True) -> Script:
    """The finish chunk on the beat, then what comes with it."""
    yield play.chunks.finish(play.finish)
    if usage and play.include_usage:
        yield Now(play.chunks.usage(play.usage()))
    yield Now(DONE)


def normal(play: Play) -> Script:
    """A stream as it should be."""
    yield from opening(play)
    yield from play.deltas()
    yield from closing(play)
    yield End.CLEAN


def begun(play: Play) -> Script:
    """What comes before a fault in mid-stream."""
    yield from opening(play)
    yield from islice(play.deltas(), play.knobs.after)


def message(play: Play, **fields: Any) -> Reply:
    """A whole `chat.completion` with *fields* in its message."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": None, "refusal": None} | fields,
        "logprobs": None,
        "finish_reason": play.finish,
    }
    body = {
        "id": play.chunks.id,
        "object": "chat.completion",
        "created": play.chunks.created,
        "model": play.chunks.model,
        "choices": [choice],
        "usage": play.usage(),
        "service_tier": "default",
        "system_fingerprint": "fp_simulator",
    }
    return Reply(200, orjson.dumps(body))


def completion(play: Play) -> Script:
    """The answer to `stream: false`: it takes as long as the stream would have."""
    yield Sleep(play.knobs.first + play.knobs.head)
    if play.knobs.tokens == 0 and play.limit is None:
        yield End.HANG
    text = "".join(orjson.loads(piece) for piece in islice(play.pieces(), 100_000))
    if play.knobs.rate:
        yield Sleep(play.spoken / play.knobs.rate)
    yield message(play, content=text)


def healthy(play: Play) -> Script:
    """The answer as it was asked for, streamed or whole."""
    return normal(play) if play.body.get("stream") else completion(play)


def clock(play: Play) -> Script:
    """The usual number of deltas, each of them the time: sixteen digits and a semicolon."""
    play.source = (b'"%016d;"' % time.monotonic_ns() for _ in play.source)
    return healthy(play)


ERRORS = {
    400: ("invalid_request_error", "invalid_value", "Invalid value in the request."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: (
        "invalid_request_error",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported.",
    ),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    408: ("timeout", "request_timeout", "The request timed out."),
    409: ("invalid_request_error", "conflict", "The request conflicts with another one."),
    422: ("invalid_request_error", "unprocessable_entity", "The request could not be processed."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again later."),
    500: ("server_error", None, "The server had an error while processing your request. Sorry about that!"),
    502: ("server_error", "bad_gateway", "Bad gateway."),
    503: ("server_error", "overloaded", "The engine is currently overloaded, please try again later."),
}


def failure(status: int, text: str = "", *, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Return an error the way OpenAI writes one."""
    kind, usual, sentence = ERRORS.get(status, ERRORS[500 if status >= 500 else 400])
    return {"error": {"message": text or sentence, "type": kind, "param": param, "code": code or usual}}


def refused(status: int, text: str = "", **fields: Any) -> Reply:
    """Return that error as an answer."""
    return Reply(status, orjson.dumps(failure(status, text, **fields)))
