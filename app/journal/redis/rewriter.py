"""Writing again what Redis has lost of a stream."""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from app.journal.encoding import encode
from app.journal.redis import entries
from app.journal.redis.connection import RedisConnection
from app.journal.redis.entries import Tail
from app.journal.redis.lifetimes import Lifetimes
from app.journal.redis.writer import RedisWriter
from app.turns import turn

# Records in one entry of what is written again.
_RECORDS_PER_ENTRY = 512


class Rewriter:
    """Writes the records of this process's streams again, out of its memory."""

    def __init__(self, connection: RedisConnection, lifetimes: Lifetimes, log: FilteringBoundLogger) -> None:
        self._connection = connection
        self._lifetimes = lifetimes
        self._log = log

    async def write_again(self, writer: RedisWriter, tail: Tail | None) -> None:
        """Write the records that come after the *tail* of the log in Redis; if that is None, the whole log.

        The claim of an adopted stream is written again, too, if it is lost. Raises RedisError or OSError.
        """
        kept = 0 if tail is None else tail.last
        commands = self._lifetimes.begin(writer) if tail is None else []
        if (0 if tail is None else tail.epoch) < writer.epoch:
            commands.append(entries.append(writer.key, kept + 1, encode(()), writer.epoch - 1))
            writer.claimed = kept + 1
        if writer.given_up:
            # No copy is left of what was acknowledged after that. The copy's last record is the end, not acknowledged.
            writer.acked = max(kept, min(writer.acked, writer.log.last - 1))
        records = writer.log.records(kept, writer.acked)
        for start in range(0, len(records), _RECORDS_PER_ENTRY):
            part = records[start : start + _RECORDS_PER_ENTRY]
            await turn(len(part))
            commands.append(entries.append(writer.key, kept + 1 + start, encode(part), writer.epoch))
        if commands:
            await self._connection.execute(*commands)
        if records:
            self._log.warning("journal.rewritten", stream_id=writer.id, records=len(records))
