"""The log of every stream: written by one producer, read by any number of subscribers, kept for a while after its end.

Invariants, whatever the engine: records are numbered from 1 without a gap; the last record of an ended stream is
terminal and nothing follows it; a record that a reader was given can be read again by every process that may resume the
stream ("journal before wire"), for as long as the stream is kept.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from app.model import Batch, Event, StreamInfo


class Writer(Protocol):
    """The one writer of one stream."""

    def append(self, events: Sequence[Event]) -> None:
        """Append *events* as one batch and wake the readers once.

        Synchronous, so that whoever holds text back can release it from a timer. Raises StreamTooLarge or Overloaded,
        appending nothing, if the stream, or all together, would outgrow their bounds; a batch that ends in a terminal
        event is always taken.
        """
        ...

    async def drain(self) -> None:
        """Wait while the journal is behind: asyncio's write/drain idiom."""
        ...


class Log(Protocol):
    """One stream's records, for reading. It stays readable to whoever holds it, though the stream be evicted."""

    @property
    def info(self) -> StreamInfo:
        """What the stream was created with."""
        ...

    @property
    def last(self) -> int:
        """The number of the last record so far; 0 before the first."""
        ...

    @property
    def ended(self) -> bool:
        """Whether that record is terminal."""
        ...

    def read(self, after: int = 0) -> AsyncGenerator[Batch, None]:
        """Return a cursor over the records after number *after*: history first, then live, ending with the terminal.

        Closing the cursor at any point is safe and cheap.
        """
        ...


class Journal(Protocol):
    """Every stream's log."""

    async def create(self, stream_id: str, info: StreamInfo) -> Writer:
        """Begin the log of a new stream. Raises Overloaded if there is no room for it."""
        ...

    async def open(self, stream_id: str) -> Log:
        """Return a stream's log. Raises UnknownStream, also for one that is no longer kept."""
        ...
