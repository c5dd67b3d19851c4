"""Going on with a stream whose process is gone.

The stream's note has what a process needs for that. A process first claims the stream: of several processes one
succeeds, and only if the former producer has written nothing meanwhile. If that one is alive after all, it can write
nothing more, and leaves the stream (see `committer`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from app.journal import Orphan
from app.journal.memory import MemoryLog
from app.journal.redis import keys, notes
from app.journal.redis.committer import Committer
from app.journal.redis.connection import RedisConnection
from app.journal.redis.entries import Tail
from app.journal.redis.notes import Note
from app.journal.redis.outbox import RedisOutbox
from app.journal.redis.registry import RedisRegistry
from app.journal.redis.timing import Timing
from app.journal.redis.writer import RedisWriter


class Adoption:
    """Makes streams those of *process*. *on_orphan* is handed each, and *on_presence* then told who reads it."""

    def __init__(
        self,
        connection: RedisConnection,
        committer: Committer,
        outbox: RedisOutbox,
        registry: RedisRegistry,
        on_orphan: Callable[[Orphan], Awaitable[None]],
        on_presence: Callable[[str, int], None],
        process: str,
        timing: Timing,
    ) -> None:
        self._connection = connection
        self._committer = committer
        self._outbox = outbox
        self._registry = registry
        self._on_orphan = on_orphan
        self._on_presence = on_presence
        self._process = process
        self._timing = timing

    async def note_of(self, stream_id: str) -> Note | None:
        """Return the note of a live stream, if it has one. Raises RedisError or OSError."""
        [[data]] = await self._connection.execute(notes.find(stream_id))
        return notes.read(data)

    async def is_alive(self, process: str) -> bool:
        """Whether another *process* has its lease. Raises RedisError or OSError."""
        [found] = await self._connection.execute(("EXISTS", keys.lease(process)))
        return bool(found) and process != self._process

    async def claim(self, stream_id: str, tail: Tail, note: Note) -> Note | None:
        """Claim a stream of which the log has this *tail*, and return its note; None if that is gone.

        The note names this process, unless the log has another tail by now. Raises RedisError or OSError.
        """
        ours = note._replace(process=self._process)
        noted = keys.noted(self._process)
        with self._committer.expecting(stream_id):
            *_, reply = await self._connection.pipeline(
                [
                    ("SADD", noted, stream_id),
                    ("EXPIRE", noted, self._timing.live),
                    notes.claim(stream_id, tail, ours, self._timing.live),
                ]
            )
        if isinstance(reply, Exception):
            raise reply
        return ours if notes.claimed(reply) else notes.read(reply)

    async def go_on(self, log: MemoryLog, header: dict[bytes, bytes], tail: Tail, note: Note) -> None:
        """Have the owner go on with a stream that is claimed, of which *log* is the copy here.

        *header* and *tail* are those of the log in Redis, which may have less than the copy. Raises nothing.
        """
        header = {**header, b"process": self._process.encode()}
        writer = RedisWriter(self._outbox, log, header, note.claim, tail.epoch + 2, tail.last + 1)
        writer.acked = log.last
        writer.begun = True
        writer.stored += log.size
        writer.noted = note.text
        self._registry.adopt(log.id, note.claim)
        self._committer.adopt(writer)
        await self._on_orphan(Orphan(log.id, log, writer, note.text))
        # Until now, the owner did not know the stream.
        for follower in writer.followers.values():
            if follower.reading:
                self._on_presence(log.id, 1)
