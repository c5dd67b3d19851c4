"""What waits for the next batch, and whether that may wait."""

from __future__ import annotations

import asyncio
from typing import Any

from app.journal.outbox import Outbox


class FileOutbox(Outbox):
    """An outbox from which the next batch is taken after a pause, unless it is in a hurry."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[list[Any]] = []  # what waits besides records, as a batch has it
        self._hurried = False
        self._pause: asyncio.Future[None] | None = None

    def hurry(self) -> None:
        """Have what waits written at once: a client has seen nothing of the stream yet."""
        self._hurried = True
        self.wake.set()
        if self._pause is not None:
            _end(self._pause)

    def put(self, entry: list[Any]) -> None:
        """Have an *entry* written that is no stream's records."""
        self.entries.append(entry)
        self.wake.set()

    async def gather(self, seconds: float) -> None:
        """Wait for *seconds*, in which more may come, unless what waits is in a hurry; it is to be taken now."""
        if seconds > 0 and not self._hurried:
            loop = asyncio.get_running_loop()
            self._pause = loop.create_future()
            timer = loop.call_later(seconds, _end, self._pause)
            try:
                await self._pause
            finally:
                timer.cancel()
                self._pause = None
        self._hurried = False
        self.wake.clear()


def _end(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)
