"""The position of an event that a client names by its number, in a dialect whose clients count events."""

from __future__ import annotations

from collections.abc import Callable

from app.events import Batch, Event, EventId

Count = Callable[[Event], int]
"""Takes each record's event in turn, and returns how many events it is in the dialect."""


class Finder:
    """Finds the position after so many events of a stream: *wanted*, which is at least 1, as *count* counts them.

    *fed* is the number of the last record that it was given.
    """

    def __init__(self, stream_id: str, wanted: int, count: Count) -> None:
        self._stream_id = stream_id
        self._left = wanted
        self._count = count
        self.fed = 0

    def feed(self, batch: Batch) -> EventId | None:
        """Take the next records. Return the position, or None if it is not among them."""
        self.fed = batch.last
        for at, event in enumerate(batch.events, batch.first):
            count = self._count(event)
            if count >= self._left:
                return EventId(self._stream_id, at, 0 if count == self._left else self._left)
            self._left -= count
        return None
