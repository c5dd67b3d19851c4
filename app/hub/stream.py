"""One live stream: its producer, and the count of its readers."""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from app.events import Done
from app.relay import Relay
from app.request import Principal, StreamRequest

_CANCELLED = Done("cancelled")
_POLICY = re.compile(r"cancel|continue|grace:(\d{1,6}(?:\.\d{1,3})?)", re.ASCII)


def parse_disconnect_policy(text: str) -> float:
    """Return how many seconds a stream goes on without a reader: `cancel` 0, `grace:S` S, `continue` infinity.

    Raises ValueError, with a sentence.
    """
    match = _POLICY.fullmatch(text)
    if match is None:
        raise ValueError("is one of: cancel; continue; grace:SECONDS")
    return float(match[1]) if match[1] else 0.0 if text == "cancel" else math.inf


@dataclass(slots=True, eq=False, repr=False)
class Stream:
    """One producer of this process, and the count of its readers.

    *readers* are attached now; *readers_total* is how many there were in all, *readers_peak* how many at once.
    *is_known* says whether a client has the stream's id, and so can come back to it. An *adopted* stream was begun by
    a process that is gone.
    """

    id: str
    principal: Principal
    request: StreamRequest
    relay: Relay
    logger: FilteringBoundLogger
    task: asyncio.Task[None] | None = None
    readers: int = 0
    readers_total: int = 0
    readers_peak: int = 0
    is_known: bool = False
    adopted: bool = False
    _grace_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Stream {self.id} {'ended' if self.relay.ended else 'live'}, {self.readers} reading>"

    @property
    def lasting(self) -> bool:
        """Whether it goes on for a while without a reader."""
        return (self.request.grace if self.is_known else self.request.unknown_grace) > 0

    def cancel(self) -> None:
        """End the stream as its client asked, and abort the upstream. Harmless once it has ended."""
        self.relay.stop(_CANCELLED)

    def entered(self) -> None:
        """Count a reader in."""
        self.readers += 1
        self.readers_total += 1
        self.readers_peak = max(self.readers_peak, self.readers)
        self.end_grace()

    def left(self) -> None:
        """Count a reader out. When the last one leaves, the grace starts."""
        self.readers -= 1
        if not self.readers and self.relay.ended is None and not self.relay.left:
            self.end_grace()
            self.start_grace(self.request.grace if self.is_known else self.request.unknown_grace)

    def await_reader(self, seconds: float) -> None:
        """Let the stream go on until its first reader, for *seconds* or its grace, whichever is longer."""
        if not self.readers:
            self.end_grace()
            self.start_grace(max(seconds, self.request.grace))

    def start_grace(self, grace: float) -> None:
        """Let the stream go on for *grace* seconds without a reader, then cancel it."""
        if grace == 0:
            self.cancel()
        elif grace < math.inf:
            self._grace_timer = asyncio.get_running_loop().call_later(grace, self._end_unread, grace)

    def end_grace(self) -> None:
        """Stop counting the grace: a reader has come, or the stream has ended."""
        if self._grace_timer is not None:
            self._grace_timer.cancel()
            self._grace_timer = None

    def _end_unread(self, grace: float) -> None:
        self._grace_timer = None
        self.logger.info("stream.unread", grace=grace)
        self.cancel()
