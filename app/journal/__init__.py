"""The log of every stream: written by one producer, read by any number of subscribers, kept for a while after its end.

Invariants, whatever the engine: records are numbered from 1 without a gap; the last record of an ended stream is
terminal and nothing follows it; a record that a reader was given can be read again by every process that may resume the
stream ("journal before wire"), for as long as the stream is kept.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from app.events import Batch, Event
from app.journal.registry import Registry
from app.request import StreamInfo

# Takes what was appended, within `append`; may neither raise nor follow or unfollow.
Sink = Callable[[Batch], None]


class Writer(Protocol):
    """The one writer of one stream."""

    @property
    def full(self) -> bool:
        """Whether the journal is behind, and `drain` would wait."""
        ...

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

    def records(self, after: int, last: int) -> Sequence[Event]:
        """Return the records after number *after*, up to *last*."""
        ...

    def pending(self, after: int) -> Batch | None:
        """Return the next records after number *after*, as many as one batch may have; None if there are none yet."""
        ...

    def follow(self, sink: Sink) -> None:
        """Have *sink* given each batch that is appended from now on: a reader at the end needs no task to be woken."""
        ...

    def unfollow(self, sink: Sink) -> None:
        """Undo `follow`."""
        ...

    def entered(self) -> None:
        """Count a reader in: until it has left, the log stays."""
        ...

    def left(self) -> None:
        """Count a reader out."""
        ...

    def read(self, after: int = 0) -> AsyncGenerator[Batch, None]:
        """Return a cursor over the records after number *after*: history first, then live, ending with the terminal.

        Closing the cursor at any point is safe and cheap.
        """
        ...


class Journal(Protocol):
    """Every stream's log, and the registry of what has to be known wherever a stream may be asked for."""

    @property
    def registry(self) -> Registry:
        """The claims, labels and slots of all streams."""
        ...

    @property
    def ready(self) -> bool:
        """Whether new streams can be kept."""
        ...

    async def create(self, stream_id: str, info: StreamInfo) -> Writer:
        """Begin the log of a new stream. Raises Overloaded if there is no room for it, or JournalDown."""
        ...

    async def open(self, stream_id: str, after: int = 0) -> Log:
        """Return a stream's log, with record number *after* if there is one.

        A reader may have been given that record by another process, and come here before it has. Raises UnknownStream,
        also for a log that is no longer kept, or JournalDown.
        """
        ...

    def stop(self, stream_id: str) -> None:
        """Ask for the end of a stream that another process produces."""
        ...
