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

    *claim* lives as long as the log, and *label* until the stream's end.
    """

    header: Mapping[bytes, bytes]
    claim: Pointer | None = None
    label: Pointer | None = None
    key: bytes = field(init=False)
    followers: dict[str, Follower] = field(default_factory=dict)  # by process
    begun: bool = False  # whether the log was begun in Redis
    stored: int = field(init=False)  # about how many bytes of Redis its header and its entries take

    def __post_init__(self) -> None:
        GroupWriter.__post_init__(self)
        self.key = keys.log(self.id)
        self.stored = _LOG + sum(map(len, self.header.values()))

    def note(self, text: str) -> bool:
        """Keep nothing: the streams of a process that is gone are ended by those that read them (see `peers`)."""
        return False

    def arrived(self, events: Sequence[Event]) -> None:
        """Take *events*, which Redis has, for sent: they are the first of those that are pending."""
        pending = self.taken + self.waiting
        self.taken = [*events]
        self.waiting = pending[len(events) :]
        self.taken_size = self.waiting_size = self.taken_size + self.waiting_size

    def lose(self, events: Sequence[Event]) -> None:
        """End the log with *events*, of which the last is terminal: another process has ended it in Redis."""
        if not self.given_up:
            self.given_up = True
            self.log.publish(events)
        self.taken = []
        self.waiting = []
        self._wake()
