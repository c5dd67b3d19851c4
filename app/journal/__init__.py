"""The log of every stream: written by one producer, read by any number of subscribers.

Invariants, whatever the engine: records are numbered from 1 without a gap; the last record of an ended stream is
terminal and nothing follows it; a record that a reader was given can be read again by every process that may resume the
stream ("journal before wire").
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from app.model import Batch, Event


class Writer(Protocol):
    """The one writer of one stream."""

    def append(self, events: Sequence[Event]) -> None:
        """Append *events* as one batch and wake the readers once.

        Synchronous, so that whoever holds text back can release it from a timer. Raises StreamTooLarge, appending
        nothing, if the stream would outgrow its bound; a batch that ends in a terminal event is always taken.
        """
        ...

    async def drain(self) -> None:
        """Wait while the journal is behind: asyncio's write/drain idiom."""
        ...


class Journal(Protocol):
    """Every stream's log."""

    async def create(self, stream_id: str) -> Writer:
        """Begin the log of a new stream."""
        ...

    async def read(self, stream_id: str, after: int = 0) -> AsyncGenerator[Batch, None]:
        """Return a cursor over the records after number *after*: history first, then live, ending with the terminal.

        Raises UnknownStream at the call, not on the first step. Closing the cursor at any point is safe and cheap.
        """
        ...

    async def discard(self, stream_id: str) -> None:
        """Forget a stream. Cursors that are open on it still read to its end."""
        ...
