"""What waits for the next commit of a journal that writes for many streams at once."""

from __future__ import annotations

import asyncio


class Outbox:
    """The streams that have records to write. Writers fill it; the committer, which `wake` wakes, empties it.

    Neither side calls the other, which keeps the calls in this room free of circles.
    """

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self._streams: dict[str, None] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._streams

    def mark(self, stream_id: str) -> None:
        """Note that a stream has records to write."""
        self._streams[stream_id] = None
        self.wake.set()

    def take_streams(self) -> list[str]:
        """Return the streams that have records to write, and forget them."""
        streams = [*self._streams]
        self._streams.clear()
        return streams
