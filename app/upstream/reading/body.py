"""One response body: from bytes to events, which are a name and a JSON value.

Most bodies are event streams. Some are one JSON object in place of a stream, or a page of HTML; the first byte tells,
not the `Content-Type` (rows H4–H7).

Invariant: the events do not depend on how the network cut the bytes, and what is kept is bounded.

Strategy: orjson parses nearly every event. What it refuses (`[DONE]`, heartbeats, NaN, lone surrogates, broken UTF-8,
two values in one event) goes through `payloads`, which is slower and more patient.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import Any, Literal

import orjson

from app.errors import Malformed
from app.upstream.reading.json import DONE, MAX_CONTAINERS, crowding, parse, parse_whole, payloads
from app.upstream.reading.sse import BOM, MAX_EVENT, MAX_STRAY, Splitter

LARGE = 1024 * 1024  # bytes of an event that is read in steps
MAX_BLANK = 4 * 1024  # bytes before the first one that is not blank
_CROWDED = "The upstream service sent more values in one event than this service reads."


class Mark(Enum):
    """What stands in the place of an event's name when there is no event."""

    DONE = auto()
    """`[DONE]`; the value is None."""
    STRAY = auto()
    """JSON on lines that are not fields. Some upstreams put their errors there (rows F16, F17)."""
    WHOLE = auto()
    """The body is this JSON value, not a stream (rows H4, H5)."""
    STEP = auto()
    """There is no event yet: a large one is read in steps, and the loop may have its turn between two of them."""


Event = tuple[bytes | Mark, Any, bytes]
"""The name, b"" if the upstream gave none; the JSON value; and the bytes that orjson took, b"" if it refused them."""
_EXCEPTION = b"exception"  # the other name of an `error` (row E5)
_STEP: Event = (Mark.STEP, None, b"")


class Body:
    """Finds the events in one body.

    *stray* are the lines that are not fields. *replaced_bytes* counts the U+FFFD that took the place of broken UTF-8
    (row F25).
    """

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self.stray = b""
        self.replaced_bytes = 0
        self._max_event = max_event
        self._splitter = Splitter(max_event)
        self._kind: Literal["stream", "json", "page"] | None = None
        self._blank = b""  # the beginning of the body, while its kind is unknown
        self._json = bytearray()
        self._whole: list[Event] | Malformed | None = None  # what a body is that is JSON, once it is parsed

    @property
    def between(self) -> bool:
        """Whether the last event is complete and nothing of another one has come."""
        return self._splitter.between

    @property
    def is_json(self) -> bool:
        """Whether the body is JSON, and not a stream."""
        return self._kind == "json"

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield the events that one network read completes. Raises Malformed, after which nothing more can be read."""
        if self._kind != "stream":
            data = self._sniff(data)
        for name, payload in self._splitter.feed(data):
            if name is None:
                yield from self._read_stray(payload)
                continue
            if name == _EXCEPTION:
                name = b"error"
            if len(payload) > MAX_CONTAINERS:
                for crowded in crowding(payload):
                    if crowded:
                        raise Malformed(_CROWDED)
                    if len(payload) > LARGE:
                        yield _STEP
            try:
                value = orjson.loads(payload)
            except ValueError:
                yield from self._read_odd(name, payload, complete=True)
            else:
                yield name, value, payload
        if self._splitter.error is not None:
            raise self._splitter.error

    def parse(self) -> Iterator[None]:
        """Parse a body that is one JSON value, before its `end`, in steps: it yields before each, and after the last.

        For any other body there is nothing to do.
        """
        if self._kind == "json" and self._whole is None:
            yield
            body = bytes(self._json)
            self._json.clear()
            for crowded in crowding(body):
                yield
                if crowded:
                    self._whole = Malformed(_CROWDED)
                    return
            self._whole = [*_values_in(body)]
            yield

    def end(self) -> Iterator[Event]:
        """Yield what the end of the body leaves behind. Raises Malformed after a body that was not a stream."""
        if self._kind == "json":
            for _ in self.parse():
                pass
            if isinstance(self._whole, Malformed):
                raise self._whole
            yield from self._whole or ()
            raise Malformed
        for name, payload in self._splitter.eof():
            if name is None:
                yield from self._read_stray(payload)
            else:
                yield from self._read_odd(b"error" if name == _EXCEPTION else name, payload, complete=False)
        yield from _parsed(Mark.STRAY, self.stray)  # row F17: one error, pretty-printed over many lines

    def _sniff(self, data: bytes) -> bytes:
        """Return the part of *data* that belongs to an event stream."""
        if self._kind is None:
            data = self._blank + data
            self._kind = kind_of(data)
            self._blank = data if self._kind is None else b""
        if self._kind == "stream":
            return data
        if self._kind == "page":
            raise Malformed("The upstream service sent a page, not a stream.")
        if self._kind == "json":
            self._json += data
            if len(self._json) > self._max_event:
                raise Malformed(f"The upstream service sent an answer of more than {self._max_event} bytes.")
        return b""

    def _read_odd(self, name: bytes, payload: bytes, complete: bool) -> Iterator[Event]:
        """Yield the events in a payload that orjson refused, or that may not be *complete*."""
        try:
            values = payloads(payload)
        except ValueError:
            if name == b"error":
                yield name, None, b""
            elif complete:
                raise Malformed from None  # rows F18, F28: the message quotes nothing of the payload
            return
        self.replaced_bytes += payload.decode("utf-8", "replace").count("\ufffd") - payload.count("\ufffd".encode())
        for value in values:
            if value is DONE and name != b"error":
                yield from _parsed(Mark.STRAY, self.stray)
                yield Mark.DONE, None, b""
            else:
                yield name, value, b""

    def _read_stray(self, line: bytes) -> Iterator[Event]:
        self.stray += line + b"\n"  # the splitter bounds the sum
        yield from _parsed(Mark.STRAY, line.removeprefix(b"error:"))


def kind_of(beginning: bytes) -> Literal["stream", "json", "page"] | None:
    """Return what a body is by its first byte that is not blank; None if that has not come yet (rows H4–H7)."""
    start = beginning.removeprefix(BOM).lstrip()
    if len(beginning) - len(start) > MAX_BLANK:
        return "stream"
    if not start or BOM.startswith(beginning):
        return None
    if start[:1] in (b"{", b"["):
        return "json"
    return "page" if start[:1] == b"<" else "stream"


def _values_in(body: bytes) -> Iterator[Event]:
    """Yield the event that a *body* of JSON is; of one that is no JSON as a whole, those in its lines."""
    try:
        value = parse_whole(body.removeprefix(BOM))
    except ValueError:
        for line in body[:MAX_STRAY].splitlines():  # row F17: an error, and then something else
            yield from _parsed(Mark.STRAY, line)
    else:
        yield Mark.WHOLE, value, b""


def _parsed(mark: Mark, text: bytes) -> Iterator[Event]:
    if not text:  # as it nearly always is
        return
    try:
        value = parse(text)
    except ValueError:
        return
    yield mark, value, b""
