"""The writer of a stream that is kept in Redis, and what of the stream Redis has besides its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from app.events import Event
from app.journal.redis import keys
from app.journal.writer import GroupWriter

# About how many bytes a log takes in Redis before its first entry: a block of 4 KiB, and its place in the indexes.
_LOG = 4600


class Pointer(NamedTuple):
    """A key in Redis that stands for a stream (a claim or a label), and the value that says for which."""

    key: bytes
    value: bytes


class Follower(NamedTuple):
    """Another process that follows the stream: when it last said so, and whether it has readers."""

    seen: float
    reading: bool


@dataclass(slots=True, eq=False, repr=False)
class RedisWriter(GroupWriter):
    """The writer of one stream. *header* is the header of the log in Redis.

    *claim* lives as long as the log, and *labels* until the stream's end. With an *epoch* other than 0, the stream was
    adopted, and its records from number *claimed* on are this process's (see `entries`).
    """

    header: Mapping[bytes, bytes]
    claim: Pointer | None = None
    epoch: int = 0
    claimed: int = 0
    key: bytes = field(init=False)
    labels: list[Pointer] = field(default_factory=list)
    followers: dict[str, Follower] = field(default_factory=dict)  # by process
    begun: bool = False  # whether the log was begun in Redis
    noted: str | None = None  # the owner's note
    note_due: bool = False  # whether it is to be written
    stored: int = field(init=False)  # about how many bytes of Redis its header and its entries take

    def __post_init__(self) -> None:
        GroupWriter.__post_init__(self)
        self.key = keys.log(self.id)
        info = self.log.info
        if info.label:
            self.labels.append(Pointer(keys.label(info.owner, info.label), self.id.encode()))
        self.stored = _LOG + sum(map(len, self.header.values()))

    @property
    def process(self) -> str:
        """The process that produces the stream."""
        return self.header[b"process"].decode()

    def note(self, text: str) -> bool:
        if self.ended or self.given_up:
            return False
        self.noted = text
        self.note_due = True
        self.outbox.mark(self.id)
        return True

    def arrived(self, events: Sequence[Event]) -> None:
        """Take *events*, which Redis has, for sent: they are the first of those that are pending."""
        pending = self.taken + self.waiting
        self.taken = [*events]
        self.waiting = pending[len(events) :]
        self.taken_size = self.waiting_size = self.taken_size + self.waiting_size

    def lose(self, events: Sequence[Event]) -> None:
        """Take nothing more: the stream is another process's now.

        The log ends with *events*, of which the last is terminal, unless there are none: then it does not end here.
        """
        if not self.given_up and events:
            self.log.publish(events)
        self.given_up = True
        self.taken = []
        self.waiting = []
        self._wake()
