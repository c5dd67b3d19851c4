"""One stream's way into Redis: what waits to be sent, what was sent, and what Redis has acknowledged."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from app.events import TERMINAL, Event, Failure
from app.journal.memory import MemoryLog
from app.journal.redis import keys
from app.journal.redis.outbox import Outbox

BEHIND = 1024
"""How many records of one stream may wait before its upstream has to wait too."""


class Pointer(NamedTuple):
    """A key in Redis that stands for a stream (a claim or a label), and the value that says for which."""

    key: bytes
    value: bytes


class Follower(NamedTuple):
    """Another process that follows the stream: when it last said so, and whether it has readers."""

    seen: float
    reading: bool


@dataclass(slots=True, eq=False, repr=False)
class RedisWriter:
    """The writer of one stream. *log* is what this process's readers read, *header* the header of the log in Redis.

    *claim* lives as long as the log, and *label* until the stream's end.
    """

    outbox: Outbox
    log: MemoryLog
    header: Mapping[bytes, bytes]
    claim: Pointer | None = None
    label: Pointer | None = None
    id: str = field(init=False)
    key: bytes = field(init=False)
    followers: dict[str, Follower] = field(default_factory=dict)  # by process
    begun: bool = False  # whether the log was begun in Redis
    ended: bool = False  # whether the producer has appended its last record
    given_up: bool = False  # the end is written, by this process or by another: no more is taken
    stored: int = field(init=False)  # about how many bytes of Redis its header and its entries take
    acked: int = 0  # the number of the last record that Redis has acknowledged
    taken: list[Event] = field(default_factory=list)  # sent, and not acknowledged yet
    waiting: list[Event] = field(default_factory=list)  # to be sent
    taken_size: int = 0  # the bytes of memory of those in `taken`, at most
    waiting_size: int = 0  # the same for `waiting`
    taken_since: float = 0.0  # when the first of the records in `taken` was appended, by the loop's clock
    waiting_since: float = 0.0  # the same for `waiting`
    caught_up: asyncio.Future[None] | None = None  # what `drain` waits for

    def __post_init__(self) -> None:
        self.id = self.log.id
        self.key = keys.log(self.id)
        self.stored = sum(map(len, self.header.values()))

    def __repr__(self) -> str:
        return f"<RedisWriter {self.acked} records, {len(self.taken)} under way, {len(self.waiting)} waiting>"

    def append(self, events: Sequence[Event]) -> None:
        if self.given_up:
            return
        if self.ended:
            raise RuntimeError("a stream's log ends with its terminal record")
        size = self.log.reserve(events)
        self.ended = isinstance(events[-1], TERMINAL)
        if not self.waiting:
            self.waiting_since = asyncio.get_running_loop().time()
        self.waiting += events
        self.waiting_size += size
        self.outbox.mark(self.id)

    @property
    def full(self) -> bool:
        return len(self.waiting) + len(self.taken) > BEHIND and not self.given_up

    async def drain(self) -> None:
        while self.full:
            if self.caught_up is None:
                self.caught_up = asyncio.get_running_loop().create_future()
            await asyncio.shield(self.caught_up)

    @property
    def unacknowledged_since(self) -> float:
        """When the oldest record was appended that Redis has not acknowledged; infinity if there is none."""
        return self.taken_since if self.taken else self.waiting_since if self.waiting else math.inf

    def take(self) -> tuple[int, list[Event]]:
        """Return the number of the first record to be sent, and the records."""
        self.taken = self.waiting
        self.taken_size = self.waiting_size
        self.taken_since = self.waiting_since
        self.waiting = []
        self.waiting_size = 0
        return self.acked + 1, self.taken

    def acknowledge(self) -> None:
        """Make readable what was sent: Redis has it."""
        events = self.taken
        self.taken = []
        self.acked += len(events)
        if not self.given_up:
            self.log.publish(events, self.taken_size)
        elif isinstance(events[-1], TERMINAL):
            self.waiting = []  # it is too late for another end
        self._wake()

    def put_back(self) -> None:
        """Take back what was sent, to send it again; of a stream that was given up, only its end."""
        self.waiting_since = min(self.unacknowledged_since, self.waiting_since)
        self.waiting = self.taken + self.waiting
        self.waiting_size += self.taken_size
        self.taken = []
        if self.given_up:
            del self.waiting[:-1]

    def arrived(self, events: Sequence[Event]) -> None:
        """Take *events*, which Redis has, for sent: they are the first of those that are pending."""
        pending = self.taken + self.waiting
        self.taken = [*events]
        self.waiting = pending[len(events) :]
        self.taken_size = self.waiting_size = self.taken_size + self.waiting_size

    def give_up(self, ending: Failure) -> None:
        """End the log with *ending*: for the readers of this process now, for all others once Redis has it.

        Records under way may arrive yet. They come before the end then, and readers of this process do not see them.
        """
        self.given_up = True
        self.waiting = [ending]
        self.log.publish([ending])
        self._wake()

    def lose(self, events: Sequence[Event]) -> None:
        """End the log with *events*, of which the last is terminal: another process has ended it in Redis."""
        if not self.given_up:
            self.given_up = True
            self.log.publish(events)
        self.taken = []
        self.waiting = []
        self._wake()

    def _wake(self) -> None:
        if self.caught_up is not None:
            self.caught_up.set_result(None)
            self.caught_up = None
