"""The steps that a script is made of.

A script is a generator of steps: what one answer sends, and when. It knows no socket and no clock; a `Player` keeps the
time and hands the bytes to a connection, or to a background response. A script that runs out ends the body properly.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Sleep(NamedTuple):
    """Send what came before this, then nothing for *seconds*. The next delta is due right after."""

    seconds: float


class Reply(NamedTuple):
    """The status line and the headers, with the whole *body*, or without one if the next steps are the body.

    *headers* are further lines, each ended by CRLF.
    """

    body: bytes | None
    status: int = 200
    content_type: bytes = b"application/json"
    headers: bytes = b""


STREAM = Reply(None, content_type=b"text/event-stream; charset=utf-8")


class Now(NamedTuple):
    """Bytes that do not wait for the beat."""

    data: bytes


class Park(NamedTuple):
    """Nothing until something happens elsewhere. The player adds its step to *waiting*, to be called then."""

    waiting: list[Callable[[], None]]


class End(enum.Enum):
    """A way in which the connection ends. Only a background response plays what the script yields after it."""

    CLEAN = enum.auto()  # the body is ended properly, the connection is kept
    CUT = enum.auto()  # closed in the middle of the body
    RESET = enum.auto()  # the same, with a TCP reset
    HANG = enum.auto()  # nothing more comes, the socket stays open
    LINGER = enum.auto()  # the same, after everything was sent


Step = bytes | Now | Sleep | Reply | Park | End  # bytes: one delta, on the beat
Script = Iterator[Step]
