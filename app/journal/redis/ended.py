"""Streams that have ended lately: a Redis that crashed, or failed over to a replica, may have lost their ends."""

from __future__ import annotations

from app.journal.redis.writer import RedisWriter

# About how many bytes of such streams are kept.
_MOST = 16 << 20


class Ended:
    """The writers of streams of this process that ended at most *seconds* ago, as far as there is room for them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._writers: dict[str, tuple[RedisWriter, float]] = {}  # and when it ended
        self._size = 0

    @property
    def writers(self) -> list[RedisWriter]:
        """Their writers, the one that ended first first."""
        return [writer for writer, _ in self._writers.values()]

    def get(self, stream_id: str) -> RedisWriter | None:
        """Return the writer of a stream, if it is kept."""
        writer, _ = self._writers.get(stream_id, (None, 0.0))
        return writer

    def add(self, writer: RedisWriter, now: float) -> None:
        """Keep a stream that has ended *now*, and drop older ones to make room. One that is too large is not kept."""
        if writer.stored > _MOST:
            return
        self._writers[writer.id] = writer, now
        self._size += writer.stored
        self.prune(now)

    def prune(self, now: float) -> None:
        """Drop what is too much or too old."""
        while self._writers:
            oldest, ended_at = next(iter(self._writers.values()))
            if self._size <= _MOST and now - ended_at < self._seconds:
                break
            self.remove(oldest.id)

    def remove(self, stream_id: str) -> None:
        """Drop a stream, if it is kept."""
        writer, _ = self._writers.pop(stream_id, (None, 0.0))
        if writer is not None:
            self._size -= writer.stored
