"""One live stream: its producer, and the count of its readers."""

from __future__ import annotations

import asyncio
import math
import re

from structlog.typing import FilteringBoundLogger

from app.events import Done
from app.relay import Relay
from app.request import Principal, StreamRequest

_CANCELLED = Done("cancelled")
_POLICY = re.compile(r"cancel|continue|grace:(\d{1,6}(?:\.\d{1,3})?)", re.ASCII)


def parse_policy(text: str) -> float:
    """Return how many seconds a stream goes on without a reader: `cancel` 0, `grace:S` S, `continue` infinity.

    Raises ValueError, with a sentence.
    """
    match = _POLICY.fullmatch(text)
    if match is None:
        raise ValueError("is one of: cancel; continue; grace:SECONDS")
    return float(match[1]) if match[1] else 0.0 if text == "cancel" else math.inf


class Stream:
    """One producer of this process, and the count of its readers.

    *attached* is how many readers there were in all, *peak* how many at once.
    """

    __slots__ = (
        "_grace_timer",
        "attached",
        "grace",
        "id",
        "limited",
        "log",
        "model",
        "owner",
        "peak",
        "relay",
        "subscribers",
        "task",
    )

    def __init__(
        self, stream_id: str, principal: Principal, request: StreamRequest, relay: Relay, log: FilteringBoundLogger
    ) -> None:
        self.id = stream_id
        self.owner = principal.name
        self.limited = principal.allowance.streams > 0
        self.model = request.model
        self.grace = request.grace
        self.relay = relay
        self.log = log
        self.task: asyncio.Task[None] | None = None
        self._grace_timer: asyncio.TimerHandle | None = None
        self.subscribers = 0
        self.attached = 0
        self.peak = 0

    def __repr__(self) -> str:
        return f"<Stream {self.id} {'ended' if self.relay.ended else 'live'}, {self.subscribers} reading>"

    def cancel(self) -> None:
        """End the stream as its client asked, and abort the upstream. Harmless once it has ended."""
        self.relay.stop(_CANCELLED)

    def entered(self) -> None:
        """Count a subscriber in."""
        self.subscribers += 1
        self.attached += 1
        self.peak = max(self.peak, self.subscribers)
        self.end_grace()

    def left(self) -> None:
        """Count a subscriber out. When the last one leaves, the grace starts."""
        self.subscribers -= 1
        if not self.subscribers and self.relay.ended is None:
            self.start_grace(self.grace)

    def start_grace(self, grace: float) -> None:
        """Let the stream go on for *grace* seconds without a reader, then cancel it."""
        if grace == 0:
            self.cancel()
        elif grace < math.inf:
            self._grace_timer = asyncio.get_running_loop().call_later(grace, self._orphan)

    def end_grace(self) -> None:
        """Stop counting the grace: a reader has come, or the stream has ended."""
        if self._grace_timer is not None:
            self._grace_timer.cancel()
            self._grace_timer = None

    def _orphan(self) -> None:
        self._grace_timer = None
        self.log.info("stream.orphaned", grace=self.grace)
        self.cancel()
