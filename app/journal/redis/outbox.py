"""What waits for the next pipeline to Redis: streams that have records to send, and messages to other processes."""

from __future__ import annotations

import asyncio


class Outbox:
    """Writers and all that tell other processes something fill it; the committer, which `wake` wakes, empties it.

    Neither side calls the other, which keeps the calls in this room free of circles.
    """

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self._streams: dict[str, None] = {}
        self._messages: dict[str, list[bytes]] = {}  # by process

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._streams and not self._messages

    def mark(self, stream_id: str) -> None:
        """Note that a stream has records to send."""
        self._streams[stream_id] = None
        self.wake.set()

    def tell(self, process: str, message: bytes) -> None:
        """Send a packed *message* to *process*. It may be lost."""
        self._messages.setdefault(process, []).append(message)
        self.wake.set()

    def take_streams(self) -> list[str]:
        """Return the streams that have records to send, and forget them."""
        streams = [*self._streams]
        self._streams.clear()
        return streams

    def take_messages(self) -> dict[str, list[bytes]]:
        """Return the messages by process, and forget them."""
        messages = self._messages
        self._messages = {}
        return messages
