"""One live stream: its producer, and the count of those who read it."""

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
    """One producer of this process, and the count of those who read it."""

    __slots__ = (
        "attached",
        "grace",
        "id",
        "limited",
        "log",
        "model",
        "orphaned",
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
        self.orphaned: asyncio.TimerHandle | None = None
        self.subscribers = 0
        self.attached = 0
        self.peak = 0

    def __repr__(self) -> str:
        return f"<Stream {self.id} {'ended' if self.relay.ended else 'live'}, {self.subscribers} reading>"

    def cancel(self) -> None:
        """End it as its clients' wish, and abort upstream. Harmless once it has ended."""
        self.relay.stop(_CANCELLED)

    def entered(self) -> None:
        """Count a subscriber in."""
        self.subscribers += 1
        self.attached += 1
        self.peak = max(self.peak, self.subscribers)
        self.claim()

    def left(self) -> None:
        """Count a subscriber out; the last one's leaving starts the grace."""
        self.subscribers -= 1
        if not self.subscribers and self.relay.ended is None:
            self.abandon(self.grace)

    def abandon(self, grace: float) -> None:
        """Let it go on for *grace* seconds without a reader."""
        if grace == 0:
            self.cancel()
        elif grace < math.inf:
            self.orphaned = asyncio.get_running_loop().call_later(grace, self._orphan)

    def claim(self) -> None:
        """Forget the grace: there is a reader, or an end."""
        if self.orphaned is not None:
            self.orphaned.cancel()
            self.orphaned = None

    def _orphan(self) -> None:
        self.orphaned = None
        self.log.info("stream.orphaned", grace=self.grace)
        self.cancel()
