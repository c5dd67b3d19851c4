"""How a stream looks on the wire. Adding a dialect is adding one file.

A dialect is a module of this package that has a `NAME`, which is its public name (`?dialect=NAME`), and a
`create(reading)`, which returns the `Encoder` of one response. Modules without a `NAME` are what dialects share.

A dialect whose clients take a failure otherwise than as the native dialect's JSON has a `refusal`, too: an `ErrorForm`.

A dialect is plain synchronous code: batches of records in, bytes out. It never splits a block over two returns, so a
keep-alive that is sent between two of them cannot fall into the middle of a block.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import ClassVar, NamedTuple, Protocol

from app.events import Batch, Failure


@dataclass(frozen=True, slots=True)
class Reading:
    """What an encoder is told about the one response that it writes.

    *retry_ms* is how long the client is to wait, in milliseconds, before it reconnects. *url* is where this reader can
    read the stream again, if that is not the stream's plain address, or "". In a batch of *merge_after* records or
    more, which shows that the reader is behind, neighbouring texts of one kind are joined. *include_usage* and *asked*
    are those of `StreamInfo`.
    """

    stream_id: str
    retry_ms: int = 2000
    url: str = ""
    merge_after: int = sys.maxsize
    include_usage: bool = False
    asked: str = ""


class Later(Exception):
    """Raised for a batch that takes long to encode, and is left to `Encoder.pieces`. Nothing has been done with it."""


class Encoder(Protocol):
    """The state of one response in one dialect.

    *headers* go on the response, besides those of every stream. *resumable* says whether the dialect's clients
    reconnect by themselves and read the rest of a stream that was cut off. *stateful* says whether what is returned for
    a record depends on the records before it.

    Each block has a position as its `id`. A record that becomes several blocks gives the last one its own position, the
    others one with their place (`EventId.place`).
    """

    __slots__ = ()

    headers: ClassVar[Mapping[str, str]] = MappingProxyType({})
    resumable: ClassVar[bool] = False
    stateful: ClassVar[bool] = True

    def __call__(self, batch: Batch) -> bytes:
        """Return the bytes that carry *batch*; whole blocks only. Raises Later."""
        ...

    def pieces(self, batch: Batch) -> Iterator[tuple[bytes, bool]]:
        """Yield the bytes that carry *batch*, whole blocks only, each with whether more of them follow.

        There are several where all together would take long to encode. b"" with more to follow is a step on the way to
        a long block. A reader that is behind is sent these.
        """
        yield self(batch), False

    def skip(self, batch: Batch) -> None:
        """Take note of *batch*, which the client has from an earlier response."""
        self(batch)

    def dismissal(self, retry_ms: int) -> bytes:
        """Return the last bytes for a reader that is sent away in mid-stream, because this process is shutting down.

        A resumable dialect tells the client to come back in *retry_ms* milliseconds, in a form that no client library
        takes for an event. Any other dialect sends its terminal event: its clients would take a cut for the end.
        """
        ...


Create = Callable[[Reading], Encoder]


class ErrorAnswer(NamedTuple):
    """An HTTP answer in place of a stream."""

    status: int
    body: bytes
    media_type: str = "application/json"


ErrorForm = Callable[[Failure, str], ErrorAnswer]
"""Returns the answer for a failure, given the request's id."""


@cache
def dialects() -> Mapping[str, Create]:
    """Return the table of all dialects: what creates an encoder, by public name."""
    modules = [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return {module.NAME: module.create for module in modules if hasattr(module, "NAME")}
