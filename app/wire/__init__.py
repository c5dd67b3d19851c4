"""How records look on the wire. Adding a dialect is adding one file.

Plain synchronous code: batches of records in, bytes out. A dialect never splits a block over two returns, so that a
keep-alive sent between two of them cannot fall into the middle of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

from app.events import Batch


class Encoder(Protocol):
    """The state of one response in one dialect.

    *headers* are what its responses carry besides those of every stream. *resumable* is whether its readers come back
    by themselves for the rest of a stream, and are given it.
    """

    headers: ClassVar[Mapping[str, str]]
    resumable: ClassVar[bool]

    def __call__(self, batch: Batch) -> bytes:
        """Return the bytes that carry *batch*; whole blocks only."""
        ...

    def dismissal(self, retry_ms: int) -> bytes:
        """Return the last bytes for a reader that is sent away in mid-stream, as this process is shutting down.

        A resumable one is told to come back in *retry_ms* milliseconds, in a form that no client library takes for an
        event. Any other gets its terminal event, for it would take a cut for the end.
        """
        ...
