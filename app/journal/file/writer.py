"""The writer of a stream that is kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.events import Event, Failure
from app.journal.file.entries import Identity
from app.journal.file.outbox import FileOutbox
from app.journal.writer import GroupWriter


@dataclass(slots=True, eq=False, repr=False)
class FileWriter(GroupWriter):
    """The writer of one stream, which lives until all of the stream was moved."""

    outbox: FileOutbox
    identity: Identity
    moved: int = field(init=False, default=0)  # the number of the last record that was moved
    removed: bool = field(init=False, default=False)  # whether the stream was removed
    ended_at: float = field(init=False, default=0.0)  # when the stream ended, in seconds since the epoch
    _ending: Failure | None = field(init=False, default=None)  # the end with which it was given up

    @property
    def finished(self) -> bool:
        """Whether the stream has ended, and its end is written."""
        return self.log.ended and self.acked == self.log.last

    def append(self, events: Sequence[Event]) -> None:
        GroupWriter.append(self, events)
        if not self.acked:
            self.outbox.hurry()

    def give_up(self, ending: Failure) -> None:
        GroupWriter.give_up(self, ending)
        self._ending = ending

    def came_late(self, events: Sequence[Event]) -> None:
        # What was under way when the stream was given up was not shown to any reader: the end takes its place.
        self.acked = self.log.last if events[-1] is self._ending else self.log.last - 1
