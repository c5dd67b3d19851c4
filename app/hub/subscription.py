"""One reader of one stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Protocol

from app.events import Batch
from app.hub.stream import Stream
from app.journal import Log
from app.request import Principal


class Readers(Protocol):
    """Who counts readers in and out."""

    def entered(self, reader: Subscription) -> None: ...

    def left(self, reader: Subscription) -> None: ...


class Subscription:
    """One reader of one stream: an async context manager around a cursor over batches of records.

    The cursor is for who has it waited for; whoever follows the log instead has no need of it.

    Whoever sends the batches keeps the last one that went out in *sent*, and sets `on_dismiss` to be told, once, that
    the reader is to be sent away. A *resumable* one will find the rest of its stream in another process.
    """

    __slots__ = (
        "_counted",
        "_cursor",
        "_stream",
        "after",
        "dismissed",
        "log",
        "on_dismiss",
        "principal",
        "resumable",
        "sent",
        "stream_id",
    )

    def __init__(
        self, readers: Readers, stream_id: str, log: Log, stream: Stream | None, after: int, principal: Principal
    ) -> None:
        self.stream_id = stream_id
        self.log = log
        self.after = after
        self.principal = principal
        self.sent = Batch(after + 1, ())
        self.resumable = True
        self.dismissed = False
        self.on_dismiss: Callable[[], object] | None = None
        self._counted = readers
        self._stream = stream
        self._cursor = log.read(after)

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing left to read, now or ever."""
        return self.log.ended and self.after >= self.log.last

    @property
    def elsewhere(self) -> bool:
        """Whether what is still to come is produced by another process."""
        return self._stream is None and not self.log.ended

    def dismiss(self) -> None:
        """Have the reader sent away."""
        self.dismissed = True
        if self.on_dismiss is not None:
            self.on_dismiss()

    @property
    def records_behind(self) -> int:
        """How many records are in the log that were not sent yet."""
        return self.log.last - self.sent.last

    async def __aenter__(self) -> AsyncGenerator[Batch, None]:
        self._counted.entered(self)
        self.log.entered()
        if self._stream is not None:
            self._stream.entered()
        return self._cursor

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._counted.left(self)
        if self._stream is not None:
            self._stream.left()
        await self._cursor.aclose()
        self.log.left()
