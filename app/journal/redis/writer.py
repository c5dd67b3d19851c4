"""One stream's way into Redis: what waits to be sent, what was sent, and what has arrived."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from app.events import TERMINAL, Event, Failure
from app.journal.memory import MemoryLog
from app.journal.redis import keys

# Records of one stream that may wait before its upstream has to.
_BEHIND = 1024


class Claim(NamedTuple):
    """The key under which an idempotency key is claimed, and the value that says for which stream."""

    key: bytes
    value: bytes


class Marks(Protocol):
    """Who sends what writers have."""

    def mark(self, writer: RedisWriter) -> None:
        """Note that *writer* has something to send."""
        ...


class RedisWriter:
    """The writer of one stream. *header* is what its log begins with in Redis, *log* what is read in this process.

    *claim* is kept as long as the log, and *label*, which is of the same kind, until the stream's end.
    """

    __slots__ = (
        "_behind",
        "_committer",
        "_ended",
        "acked",
        "begun",
        "claim",
        "given_up",
        "header",
        "id",
        "key",
        "label",
        "log",
        "taken",
        "waiting",
    )

    def __init__(
        self, committer: Marks, log: MemoryLog, header: Mapping[bytes, bytes], claim: Claim | None = None
    ) -> None:
        self.id = log.id
        self.key = keys.log(log.id)
        self.log = log
        self.header = header
        self.claim = claim
        self.label: Claim | None = None
        self.begun = False  # whether its log was begun in Redis
        self.acked = 0  # the last record that Redis has
        self.given_up = False  # its end is written, by this process or by another: no more is taken
        self.waiting: list[Event] = []  # to be sent
        self.taken: list[Event] = []  # sent, and not acknowledged yet
        self._committer = committer
        self._ended = False
        self._behind: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<RedisWriter {self.acked} records, {len(self.taken)} under way, {len(self.waiting)} waiting>"

    def append(self, events: Sequence[Event]) -> None:
        if self.given_up:
            return
        if self._ended:
            raise RuntimeError("a stream's log ends with its terminal record")
        self.log.reserve(events)
        self._ended = isinstance(events[-1], TERMINAL)
        self.waiting += events
        self._committer.mark(self)

    @property
    def full(self) -> bool:
        return len(self.waiting) + len(self.taken) > _BEHIND and not self.given_up

    async def drain(self) -> None:
        while self.full:
            self._behind = self._behind or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._behind)

    def take(self) -> tuple[int, list[Event]]:
        """Return what is to be sent, and its first record's number."""
        self.taken, self.waiting = self.waiting, []
        return self.acked + 1, self.taken

    def acknowledged(self) -> None:
        """Let readers have what was sent."""
        events, self.taken = self.taken, []
        self.acked += len(events)
        if not self.given_up:
            self.log.publish(events)
        elif isinstance(events[-1], TERMINAL):
            self.waiting = []  # too late for another end
        self._caught_up()

    def refused(self) -> None:
        """Take back what was sent, to be sent again; of a stream that was given up, its end."""
        self.taken, self.waiting = [], self.taken + self.waiting
        if self.given_up:
            del self.waiting[:-1]

    def give_up(self, ending: Failure) -> None:
        """End the log with *ending*: for the readers of this process now, for all others once Redis has it.

        What is under way may arrive yet: then it comes before that, where readers of this process do not see it.
        """
        self.given_up = True
        self.waiting = [ending]
        self.log.publish([ending])
        self._caught_up()

    def lose(self, events: Sequence[Event]) -> None:
        """End the log with what another process wrote, the last of *events* being terminal."""
        if not self.given_up:
            self.given_up = True
            self.log.publish(events)
        self.taken, self.waiting = [], []
        self._caught_up()

    def _caught_up(self) -> None:
        if self._behind is not None:
            self._behind.set_result(None)
            self._behind = None
