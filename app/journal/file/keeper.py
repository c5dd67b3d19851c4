"""What has ended is moved from the batches to where it is read, and goes when its time is up or room is needed.

What was deleted is in SQLite's log for a while yet. A checkpoint empties that; it waits for the disk, so it is made
seldom, and most of it in the thread that does not write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from structlog.typing import FilteringBoundLogger

from app.journal.encoding import encode
from app.journal.file.committer import Committer
from app.journal.file.database import Gone, Move
from app.journal.file.entries import RECORDS_PER_ROW
from app.journal.file.recovery import kept, owner_of
from app.journal.file.store import FAILURES, Store, reason
from app.journal.file.timing import Timing
from app.journal.file.writer import FileWriter
from app.journal.holder import state_after
from app.journal.memory import MemoryJournal
from app.turns import turn

# How many rows are written in one transaction.
_ROWS_AT_ONCE = 32
# How often in a row the file gives back pages: each time, SQLite's log grows by a megabyte.
_SHRINKS_AT_ONCE = 8


class Keeper:
    """Moves the streams of *committer* in the *store*, where ended ones are kept for *seconds*.

    *clock* is in seconds since the epoch. *on_evict* is told the id of each stream that is dropped, and why.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        memory: MemoryJournal,
        seconds: float,
        clock: Callable[[], float],
        on_evict: Callable[[str, str], None],
        timing: Timing,
        log: FilteringBoundLogger,
    ) -> None:
        self._store = store
        self._committer = committer
        self._memory = memory
        self._seconds = seconds
        self._clock = clock
        self._on_evict = on_evict
        self._timing = timing
        self._log = log
        self._moved_at = self._swept_at = self._checked_at = self._forgot_at = 0.0
        self._behind = 0
        self._failing = False

    async def run(self) -> None:
        """Move and delete, for ever."""
        self._moved_at = self._swept_at = self._checked_at = self._forgot_at = asyncio.get_running_loop().time()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timing.sweep):
                    await self._committer.moving.wait()
            try:
                await self.move_finished()
                await self._sweep()
                self._failing = False
            except FAILURES as error:
                if not self._failing:
                    self._log.error("journal.not_moved", error=type(error).__name__, reason=reason(error))
                self._failing = True
            if self._failing or self._committer.failing:
                await self._free()
                await asyncio.sleep(self._timing.sweep)

    async def _free(self) -> None:
        """Make what room there can be on a disk that is full."""
        with suppress(*FAILURES):
            while gone := await self._store.free(self._clock(), self._committer.oldest):
                self.drop(gone)

    async def move_finished(self) -> None:
        """Move the streams that have ended. Raises one of `FAILURES`."""
        finished = self._committer.finished()
        for writer in finished:  # their time counts from now on, also if the disk does not take them
            writer.ended_at = writer.ended_at or self._clock()
        while finished:
            try:
                await self._move(finished[-1])
            except BaseException:
                for writer in finished:
                    self._committer.unfinished(writer)
                raise
            finished.pop()

    async def _move(self, writer: FileWriter) -> None:
        """Write what of a stream was not moved yet; if the stream has ended, as it is kept from now on."""
        next_batch = self._committer.last + 1
        last = writer.acked
        ended = writer.finished
        if ended:
            writer.ended_at = writer.ended_at or self._clock()
            if self._expires(writer) <= self._clock():  # nothing is kept, or the disk has been full for so long
                if writer.stored is not None:  # some of it was moved while it was live
                    await self._store.write(self._store.database.remove, writer.id)
                self._committer.forget(writer)
                self.drop([Gone(writer.id, "time")])
                return
        while writer.moved < last or not (ended or writer.stored == writer.identity):
            rows, end = await _rows(writer, last)
            if writer.removed:  # the disk may have refused to delete it when the client asked for that
                await self._store.write(self._store.database.remove, writer.id)
                await self._memory.remove(writer.id)
                break
            identity = writer.identity
            move = self._as_move(writer, rows, end, ended=ended and end == last)
            self.drop(await self._store.write(self._store.database.move, move))
            writer.moved, writer.stored = end, identity
        if ended:
            self._committer.retire(writer)
        else:
            self._committer.moved(writer, next_batch)

    def _as_move(self, writer: FileWriter, rows: Sequence[tuple[int, bytes]], last: int, *, ended: bool) -> Move:
        info = writer.log.info
        identity = writer.identity.of_ended(writer.log.records(0, min(3, last))) if ended else writer.identity
        move = Move(writer.id, owner_of(info.owner), info.created, *identity, rows, last)
        if not ended:
            return move
        [end] = writer.log.records(last - 1, last)
        return move._replace(state=state_after(end), ended=writer.ended_at, expires=self._expires(writer))

    def _expires(self, writer: FileWriter) -> float:
        return writer.ended_at + kept(writer.log.info, self._seconds)

    def drop(self, gone: Sequence[Gone]) -> None:
        """Forget streams that are no longer on disk."""
        for stream_id, why in gone:
            log = self._memory.get(stream_id)
            if log is not None:
                self._memory.drop(log)
            self._on_evict(stream_id, why)

    async def _sweep(self) -> None:
        """Delete what is not kept any longer, at most once in a while. Raises one of `FAILURES`."""
        clock = asyncio.get_running_loop().time
        database = self._store.database
        if clock() < self._swept_at + self._timing.sweep:
            return
        self._swept_at = clock()
        while gone := await self._store.write(database.expire, self._clock()):
            self.drop(gone)
        if clock() >= self._moved_at + self._timing.moved:
            self._moved_at = clock()
            for writer in self._committer.behind(self._behind):
                if not writer.log.ended:
                    await self._move(writer)
            self._behind = self._committer.last + 1
        while await self._store.write(database.trim, self._committer.oldest):
            pass
        for _ in range(_SHRINKS_AT_ONCE):
            if not await self._store.write(database.shrink):
                break
        if clock() >= self._forgot_at + self._timing.accounts:
            self._forgot_at = clock()
            await self._store.write(database.forget_accounts, self._clock())
        due = database.erased and clock() >= self._checked_at + self._timing.erased
        if due or await self._store.log_is_large():
            self._checked_at = clock()
            await self._store.flush()
            await self._store.write(database.checkpoint)
        await self._store.fill_reserve()


async def _rows(writer: FileWriter, last: int) -> tuple[list[tuple[int, bytes]], int]:
    """Return some of the rows that are not moved yet, up to record number *last*, and the number of their last one."""
    rows: list[tuple[int, bytes]] = []
    end = writer.moved
    while end < last and len(rows) < _ROWS_AT_ONCE:
        start, end = end, min(end + RECORDS_PER_ROW, last)
        await turn(end - start)
        rows.append((start + 1, encode(writer.log.records(start, end))))
    return rows, end
