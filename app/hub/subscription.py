"""One reader of one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from app.events import TERMINAL, Batch
from app.hub.stream import Stream
from app.journal import Log
from app.request import Principal


class Readers(Protocol):
    """What counts readers in and out."""

    def entered(self, reader: Subscription) -> None: ...

    def left(self, reader: Subscription) -> None: ...


class Subscription:
    """One reader of one stream: an async context manager around a cursor over batches of records.

    A reader that follows the log, as `StreamResponse` does, has no need of the cursor. The one that sends the batches
    keeps the last one that went out in *sent*. *dismissal* is done once the reader is to be sent away; a *resumable*
    one will find the rest of its stream in another process. *knows_id* says whether the client has the stream's id: the
    one whose request opened the stream does not, until it is `told`. A *place* that was kept for the reader is closed
    as the reader is counted.
    """

    __slots__ = (
        "_counted",
        "_cursor",
        "_logger",
        "_place",
        "_stream",
        "after",
        "dismissal",
        "knows_id",
        "log",
        "principal",
        "resumable",
        "sent",
        "stream_id",
    )

    def __init__(
        self,
        readers: Readers,
        stream_id: str,
        log: Log,
        stream: Stream | None,
        after: int,
        principal: Principal,
        logger: FilteringBoundLogger,
        place: ExitStack | None = None,
    ) -> None:
        self.stream_id = stream_id
        self.log = log
        self.after = after
        self.principal = principal
        self.sent = Batch(after + 1, ())
        self.resumable = True
        self.knows_id = True
        self.dismissal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._counted = readers
        self._stream = stream
        self._cursor = log.read(after)
        self._logger = logger
        self._place = place

    @property
    def committed(self) -> asyncio.Future[None] | None:
        """Done when the stream's first record has been waited for long enough; None for what is produced elsewhere."""
        return None if self._stream is None else self._stream.relay.committed

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing left to read, now or ever."""
        return self.log.ended and self.after >= self.log.last

    @property
    def elsewhere(self) -> bool:
        """Whether what is still to come is produced by another process, or will be."""
        return not self.log.ended and (self._stream is None or self._stream.relay.left)

    @property
    def dismissed(self) -> bool:
        """Whether the reader is to be sent away."""
        return self.dismissal.done()

    def dismiss(self) -> None:
        """Have the reader sent away."""
        if not self.dismissed:
            self.dismissal.set_result(None)

    def told(self) -> None:
        """Take note that the client has the stream's id from now on."""
        self.knows_id = True
        if self._stream is not None:
            self._stream.is_known = True

    @property
    def records_behind(self) -> int:
        """How many records are in the log that were not sent yet."""
        return self.log.last - self.sent.last

    async def __aenter__(self) -> AsyncGenerator[Batch, None]:
        if self._place is not None:
            self._place.close()
        self._counted.entered(self)
        self.log.entered()
        if self._stream is not None:
            self._stream.entered()
            self._stream.is_known |= self.knows_id
        self._logger.info("subscriber.attached", stream_id=self.stream_id, after=self.after)
        return self._cursor

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._counted.left(self)
        if self._stream is not None:
            self._stream.left()
        await self._cursor.aclose()
        self.log.left()
        whole = bool(self.sent.events) and isinstance(self.sent.events[-1], TERMINAL)
        facts = {"dismissed": True} if self.dismissed else {}
        self._logger.info(
            "subscriber.detached", stream_id=self.stream_id, last_record=self.sent.last, whole=whole, **facts
        )
