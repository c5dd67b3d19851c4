"""The steps a script is made of.

A script is a generator of steps; the server (`simulator`) writes each step out and keeps the time. So a model is a few
lines, without socket or clock.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple, Protocol


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


class Waiting(Protocol):
    """Who waits for a background response to grow."""

    def wake(self) -> None: ...


class Park(NamedTuple):
    """Nothing until somebody wakes those in *bench*; it may be for nothing."""

    bench: dict[Waiting, None]


class End(enum.Enum):
    """How a script ends."""

    CLEAN = enum.auto()  # the body is ended properly, the connection kept
    CUT = enum.auto()  # closed in the middle of the body
    RESET = enum.auto()  # the same, with a TCP reset
    HANG = enum.auto()  # nothing more, the socket stays open
    LINGER = enum.auto()  # the same, after everything was said


Step = bytes | Sleep | Head | Reply | Now | Alone | Park | End  # bytes: one event, on the beat
Script = Iterator[Step]
