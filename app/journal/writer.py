"""One stream's way into a journal that is written behind: what waits, what is under way, and what is acknowledged."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.events import TERMINAL, Event, Failure
from app.journal.memory import MemoryLog
from app.journal.outbox import Outbox

BEHIND = 1024
"""How many records of one stream may wait before its upstream has to wait too."""


@dataclass(slots=True, eq=False, repr=False)
class GroupWriter:
    """The writer of one stream, whose records are written together with those of others.

    *log* is what this process's readers read. A record is in it once it is acknowledged.
    """

    outbox: Outbox
    log: MemoryLog
    id: str = field(init=False)
    ended: bool = field(init=False, default=False)  # whether the producer has appended its last record
    given_up: bool = field(init=False, default=False)  # the end is written, and not by the producer: no more is taken
    acked: int = field(init=False, default=0)  # the number of the last record that is acknowledged
    taken: list[Event] = field(init=False, default_factory=list)  # under way, and not acknowledged yet
    waiting: list[Event] = field(init=False, default_factory=list)
    taken_size: int = field(init=False, default=0)  # the bytes of memory of those in `taken`, at most
    waiting_size: int = field(init=False, default=0)  # the same for `waiting`
    taken_since: float = field(init=False, default=0.0)  # when the first of `taken` was appended, by the loop's clock
    waiting_since: float = field(init=False, default=0.0)  # the same for `waiting`
    caught_up: asyncio.Future[None] | None = field(init=False, default=None)  # what `drain` waits for

    def __post_init__(self) -> None:
        self.id = self.log.id

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"<{name} {self.acked} records, {len(self.taken)} under way, {len(self.waiting)} waiting>"

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
        """When the oldest record was appended that is not acknowledged; infinity if there is none."""
        return self.taken_since if self.taken else self.waiting_since if self.waiting else math.inf

    def take(self) -> tuple[int, list[Event]]:
        """Return the number of the first record to be written, and the records."""
        self.taken = self.waiting
        self.taken_size = self.waiting_size
        self.taken_since = self.waiting_since
        self.waiting = []
        self.waiting_size = 0
        return self.acked + 1, self.taken

    def acknowledge(self) -> None:
        """Make readable what was under way: it is written."""
        events = self.taken
        self.taken = []
        self.acked += len(events)
        if self.given_up:
            self.came_late(events)
        else:
            self.log.publish(events, self.taken_size)
        if self.caught_up is not None:
            self._wake()

    def came_late(self, events: Sequence[Event]) -> None:
        """Take note that *events* were written although the stream has been given up meanwhile."""
        if isinstance(events[-1], TERMINAL):
            self.waiting = []  # it is too late for another end

    def put_back(self) -> None:
        """Take back what was under way, to write it again; of a stream that was given up, only its end."""
        self.waiting_since = min(self.unacknowledged_since, self.waiting_since)
        self.waiting = self.taken + self.waiting
        self.waiting_size += self.taken_size
        self.taken = []
        if self.given_up:
            del self.waiting[:-1]

    def give_up(self, ending: Failure) -> None:
        """End the log with *ending*: for the readers of this process now, for all others once it is written.

        Records under way may arrive yet. They come before the end then, and readers of this process do not see them.
        """
        self.given_up = True
        self.waiting = [ending]
        self.log.publish([ending])
        self._wake()

    def _wake(self) -> None:
        if self.caught_up is not None:
            self.caught_up.set_result(None)
            self.caught_up = None
