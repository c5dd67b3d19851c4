"""What the streams of one owner take of a process's memory, and which they are."""

from __future__ import annotations

from heapq import nlargest
from typing import Generic, TypeVar

from app.events import Done
from app.journal import Listed, Listing, Log

Kept = TypeVar("Kept", bound=Log)


class Holder(Generic[Kept]):
    """What the streams of one owner take: *size* bytes, of *most*.

    *logs* are those that are kept, by stream, and *ended* those of them that can be dropped, in order.
    """

    __slots__ = ("__weakref__", "ended", "logs", "most", "size")

    def __init__(self, most: float) -> None:
        self.most = most
        self.size = 0
        self.logs: dict[str, Kept] = {}
        self.ended: dict[str, Kept] = {}

    def listing(self, limit: int, before: int | None, *, live: bool) -> Listing:
        """See `app.journal.Journal.streams_of`."""
        asked = [
            (log.info.created, stream_id)
            for stream_id, log in self.logs.items()
            if (before is None or log.info.created < before) and not (live and log.ended)
        ]
        newest = nlargest(limit + 1, asked)
        streams = [listed(stream_id, self.logs[stream_id]) for _, stream_id in newest[:limit]]
        return Listing(streams, streams[-1].info.created if len(newest) > limit else None)


def listed(stream_id: str, log: Log) -> Listed:
    """Return what a list says of a stream."""
    state = "live"
    if log.ended:
        [end] = log.records(log.last - 1, log.last)
        state = state_after(end)
    return Listed(stream_id, log.info, state, log.last)


def state_after(end: object) -> str:
    """Return the state of a stream that has ended with the event *end*."""
    return "done" if isinstance(end, Done) else "error"
