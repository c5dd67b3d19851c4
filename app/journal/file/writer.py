"""The writer of a stream that is kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.events import Event, Failure
from app.journal.file.database import NOTED
from app.journal.file.entries import Identity
from app.journal.file.outbox import FileOutbox
from app.journal.writer import GroupWriter


@dataclass(slots=True, eq=False, repr=False)
class FileWriter(GroupWriter):
    """The writer of one stream, which lives until all of the stream was moved."""

    outbox: FileOutbox
    identity: Identity
    moved: int = field(init=False, default=0)  # the number of the last record that was moved
    stored: Identity | None = field(init=False, default=None)  # what was moved of the identity
    removed: bool = field(init=False, default=False)  # whether the stream was removed
    ended_at: float = field(init=False, default=0.0)  # when the stream ended, in seconds since the epoch
    sealed: bool = field(init=False, default=False)  # whether its end is decided, and nothing else is taken
    end: int = field(init=False, default=0)  # the number of the end with which it was given up
    ending: Failure | None = field(init=False, default=None)  # that end

    @property
    def finished(self) -> bool:
        """Whether the stream has ended, and its end is written."""
        return self.log.ended and self.acked == self.log.last

    def append(self, events: Sequence[Event]) -> None:
        if self.sealed:
            return
        GroupWriter.append(self, events)
        if not self.acked:
            self.outbox.hurry()

    def note(self, text: str) -> bool:
        if self.ended or self.sealed or self.removed:
            return False
        self.identity = self.identity._replace(note=text)
        self.outbox.put([self.id, NOTED, text])
        return True

    def fail(self, ending: Failure) -> None:
        """End the log with *ending* in place of what is under way. Readers see it once it is written."""
        self.sealed = True
        self.taken = []
        self.waiting = [ending]
        self.waiting_size = 0

    def give_up(self, ending: Failure) -> None:
        """End the log with *ending*, which readers see from `show_end` on, written or not."""
        self.sealed = self.given_up = True
        self.end = self.log.last + 1
        self.waiting = [ending]
        self.ending = ending
        self._wake()

    def show_end(self) -> None:
        """Let readers see the end with which the stream was given up, unless they do."""
        if self.ending is not None and not self.log.ended:
            self.log.publish([self.ending])

    def came_late(self, events: Sequence[Event]) -> None:
        # What was under way when the stream was given up was not shown to any reader: the end takes its place.
        if events[-1] is self.ending:
            self.acked = self.end
            self.show_end()
        else:
            self.acked = self.end - 1
