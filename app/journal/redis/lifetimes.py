"""How long Redis keeps what belongs to a stream: the commands at its beginning, while it is live, and at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from app.events import Terminal
from app.journal.redis import entries, keys, listing
from app.journal.redis.client import Command
from app.journal.redis.registry import removal
from app.journal.redis.writer import RedisWriter

# Takes a stream off its process's list. Something else at the key is no reason to keep what has ended.
_UNLIST = "redis.pcall('SREM',KEYS[1],ARGV[1]) return 1"


class Lifetimes(NamedTuple):
    """Seconds: *live* is the life of a live stream unless it is renewed, *keep* that of one that has ended.

    *label* is the life of a label, which is not renewed.
    """

    live: int
    keep: int
    label: int

    @property
    def _listed(self) -> int:
        """How long an index stays that has a live stream."""
        return self.live + self.keep

    def begin(self, writer: RedisWriter) -> list[Command]:
        """Return the commands that begin a log, or begin it again, and have its labels stand for it.

        They are one pipeline: while that waits, others may read the stream or stop it, and its owner does not know it.
        """
        commands = entries.begin(writer.key, writer.header, self.live)
        commands += listing.note(writer.id, writer.log.info, self._listed)
        # What lost a log has lost these as well, and they may stand for a newer stream since.
        again = ("NX",) if writer.begun else ()
        if not writer.given_up:
            commands += [("SET", label.key, label.value, *again, "EX", self.label) for label in writer.labels]
        if writer.begun and writer.claim is not None:
            commands.append(("SET", writer.claim.key, writer.claim.value, *again, "EX", self.live))
        writer.begun = True
        return commands

    def renewals(self, writers: Sequence[RedisWriter]) -> list[Command]:
        """Return the commands that keep what belongs to live streams."""
        kept = [writer.key for writer in writers]
        kept += [writer.claim.key for writer in writers if writer.claim is not None]
        noted = [writer for writer in writers if writer.noted is not None]
        kept += [keys.note(writer.id) for writer in noted]
        kept += {keys.noted(writer.process) for writer in noted}
        owners = {writer.log.info.owner for writer in writers} - {""}
        indexes: list[Command] = [("EXPIRE", keys.streams(owner), self._listed) for owner in owners]
        return [("EXPIRE", key, self.live) for key in kept] + indexes

    def end(self, writer: RedisWriter, last: int, end: Terminal) -> list[Command]:
        """Return the commands that let a log go in time that has ended with *end*, its record number *last*."""
        keep = entries.seconds_kept(writer.log.info, self.keep)
        commands: list[Command] = [("EXPIRE", writer.key, keep)]
        if writer.claim is not None:
            commands.append(("EXPIRE", writer.claim.key, keep))
        commands += [removal(label) for label in writer.labels]  # unlike a claim, of no use after the stream's end
        if writer.noted is not None:
            commands += [("DEL", keys.note(writer.id)), ("EVAL", _UNLIST, 1, keys.noted(writer.process), writer.id)]
        return commands + listing.note(writer.id, writer.log.info, self._listed, last, end)
