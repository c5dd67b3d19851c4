"""Writing: the new records of all streams, in one batch.

A writer takes records without waiting. The committer writes what all writers have, in the thread of the database, and
what comes meanwhile with the next batch. Only what is written becomes readable. An idle process writes at once; a busy
one writes fewer and larger batches.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import orjson

from app.errors import InternalError, JournalDown, StreamError
from app.events import Failure
from app.journal.availability import Availability
from app.journal.encoding import pack
from app.journal.file.budgets import FileBudgets
from app.journal.file.database import RELEASED, REMOVED
from app.journal.file.outbox import FileOutbox
from app.journal.file.store import FAILURES, Store
from app.journal.file.timing import Timing
from app.journal.file.writer import FileWriter
from app.turns import ROOM

# Seconds between two looks whether all was written, at the end of the process.
_LOOK = 0.002


class Committer:
    """Writes what is in *outbox* to the *store*. *on_lost* is told which stream it has ended, and why."""

    def __init__(
        self,
        store: Store,
        outbox: FileOutbox,
        budgets: FileBudgets,
        availability: Availability,
        on_lost: Callable[[str, StreamError], None],
        timing: Timing,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._budgets = budgets
        self._availability = availability
        self._timing = timing
        self._on_lost = on_lost
        self._writers: dict[str, FileWriter] = {}  # of streams that are not all moved
        self._claims: dict[bytes, FileWriter] = {}  # those of them that have an idempotency key
        self._beginning: list[tuple[FileWriter, asyncio.Future[None]]] = []
        self._unmoved: dict[FileWriter, int] = {}  # by the first batch that has records to be moved
        self._finished: list[FileWriter] = []
        self._given_up: set[FileWriter] = set()  # and their ends are not written
        self._writing_since = math.inf
        self.moving = asyncio.Event()  # set when a stream has ended, and is to be moved
        self.last = 0  # the number of the last batch

    def __repr__(self) -> str:
        return f"<Committer {len(self._writers)} writers, {len(self._unmoved)} not moved>"

    @property
    def writers(self) -> list[FileWriter]:
        """The writers of all streams that are not all moved."""
        return [*self._writers.values()]

    def writer(self, stream_id: str) -> FileWriter | None:
        """Return the writer of a stream, unless all of the stream was moved."""
        return self._writers.get(stream_id)

    def claimed(self, claim: bytes) -> FileWriter | None:
        """Return the writer of the stream that has an idempotency key."""
        return self._claims.get(claim)

    def labelled(self, label: bytes) -> tuple[int, str] | None:
        """Return when the newest stream with a label was created, and the stream."""
        found = [writer for writer in self._writers.values() if writer.identity.label == label and not writer.removed]
        return max(((writer.log.info.created, writer.id) for writer in found), default=None)

    @property
    def failing(self) -> bool:
        """Whether the disk refuses what is to be written."""
        return self._availability.away

    @property
    def oldest(self) -> int:
        """The number of the first batch that has records which were not moved."""
        return min(self._unmoved.values(), default=self.last + 1)

    async def create(self, writer: FileWriter) -> None:
        """Begin a stream. Raises JournalDown."""
        if self._availability.away:
            raise JournalDown
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._beginning.append((writer, begun))
        self._outbox.hurry()
        try:
            async with asyncio.timeout(self._timing.slow):
                await begun
        except TimeoutError:
            self.forget(writer)
            raise JournalDown from None
        except asyncio.CancelledError:
            self.forget(writer)
            raise

    def adopt(self, writer: FileWriter) -> None:
        """Go on with a stream of an earlier process, all of which was moved."""
        self._began(writer, self.last + 1)

    def forget(self, writer: FileWriter) -> None:
        """Have a stream removed that is not moved, and may be written all the same."""
        writer.removed = True
        self._outbox.put([writer.id, REMOVED])
        self.retire(writer)

    def release(self, writer: FileWriter) -> None:
        """Let the stream's idempotency key be used again, now, and after a restart once the next batch is written."""
        if writer.identity.claim is not None:
            self._release(writer)
            self._outbox.put([writer.id, RELEASED])

    def _release(self, writer: FileWriter) -> None:
        if writer.identity.claim is not None:
            self._claims.pop(writer.identity.claim, None)
            writer.identity = writer.identity._replace(claim=None, fingerprint=None)

    def retire(self, writer: FileWriter) -> None:
        """Forget a stream of which all was moved, or that was removed."""
        self._unmoved.pop(writer, None)
        if self._writers.pop(writer.id, None) is not None:
            self._release(writer)

    def finished(self) -> list[FileWriter]:
        """Return the writers of streams that have ended, and forget them."""
        finished, self._finished = self._finished, []
        self.moving.clear()
        return finished

    def unfinished(self, writer: FileWriter) -> None:
        """Return a stream to those that are to be moved: it could not be."""
        self._finished.append(writer)
        self.moving.set()

    def behind(self, batch: int) -> list[FileWriter]:
        """Return the writers of which batches before number *batch* have records that were not moved."""
        return [writer for writer, first in self._unmoved.items() if first < batch]

    def moved(self, writer: FileWriter, next_batch: int) -> None:
        """Note that what is not moved of a live stream is in batches from number *next_batch* on."""
        if writer in self._unmoved:
            self._unmoved[writer] = next_batch

    async def check(self, patience: float) -> None:
        """End the live streams that have a record which has waited for *patience* seconds.

        A batch that takes long makes the journal count as away meanwhile.
        """
        now = asyncio.get_running_loop().time()
        if now - self._writing_since >= self._timing.slow:
            self._availability.failed(TimeoutError())
        await self.give_up(now - patience)

    async def give_up(self, since: float | None = None) -> None:
        """End the live streams; with *since*, those that have a record which has waited since then or longer.

        The number of the end is noted before a reader sees it: after a kill, it is given to nothing else.
        """
        lost = [
            writer
            for writer in self.writers
            if not writer.given_up and not writer.log.ended and (since is None or writer.unacknowledged_since <= since)
        ]
        if not lost:
            return
        for writer in lost:
            writer.give_up(Failure.of(JournalDown()))
            self._outbox.mark(writer.id)
        self._given_up.update(lost)
        with ExitStack() as ends:  # all of them are shown, whatever fails: no writer is given up twice
            for writer in lost:
                ends.callback(self._on_lost, writer.id, JournalDown())
                ends.callback(writer.show_end)  # what was added last is called first
            await self._store.note_ends([(writer.id, writer.end) for writer in lost])

    async def flushed(self) -> None:
        """Wait until all that was appended is written; not while the disk refuses."""
        while not self._availability.away and self._busy():  # noqa: ASYNC110 - once in a process's life
            await asyncio.sleep(_LOOK)

    def _busy(self) -> bool:
        waiting = bool(self._outbox.entries) or not self._outbox.empty
        return self._writing_since < math.inf or waiting or self._budgets.changed

    async def run(self) -> None:
        """Write, for ever."""
        clock = asyncio.get_running_loop().time
        began = 0.0
        pause = self._timing.first_pause
        while True:
            await self._outbox.wake.wait()
            # What other streams append in this turn of the loop shares the batch.
            await asyncio.sleep(0)
            await self._outbox.gather(began + self._timing.commit - clock())
            began = clock()
            try:
                await self._commit()
                pause = self._timing.first_pause
            except FAILURES as error:
                self._availability.failed(error)
                self._outbox.wake.set()
                await asyncio.sleep(pause)
                pause = min(2 * pause, self._timing.last_pause)

    async def _commit(self) -> None:
        """Write what waits. Raises one of `FAILURES`: then all of it waits again, and no new stream has begun."""
        beginning, self._beginning = self._beginning, []
        notes, self._outbox.entries = self._outbox.entries, []
        sent, entries = self._taken()
        # A charge is not written before the end that it is for: a stream without one may be gone on with, and charged.
        accounts = self._budgets.take() if self._outbox.empty else []
        entries = [*(writer.identity.entry(writer.id) for writer, _ in beginning), *notes, *entries]
        if not entries and not accounts and not self._availability.away:
            return
        self._writing_since = asyncio.get_running_loop().time()
        try:
            batch = await self._store.write(self._store.database.commit, self._encoded(entries, sent), accounts)
        except BaseException:
            for writer in sent:
                writer.put_back()
                self._outbox.mark(writer.id)
            self._outbox.entries[:0] = notes
            self._budgets.put_back(accounts)
            for _, begun in beginning:
                if not begun.done():
                    begun.set_exception(JournalDown())
            raise
        finally:
            self._writing_since = math.inf
        self._availability.answered()
        self.last = batch
        for writer, begun in beginning:
            if not begun.done():
                self._began(writer, batch)
                begun.set_result(None)
        for writer in sent:
            self._acknowledge(writer, batch)
        if self._given_up:
            self._given_up = {writer for writer in self._given_up if writer.acked < writer.end and not writer.removed}
            if not self._given_up:
                await self._store.forget_ends()

    def _taken(self) -> tuple[list[FileWriter], list[list[Any]]]:
        """Return writers that have records to write, and an entry for each: as many as the loop has time for.

        After an outage, each of many streams has some hundred records. The next batch begins with those that are left.
        """
        sent = []
        entries: list[list[Any]] = []
        room = ROOM
        for stream_id in self._outbox.take_streams():
            if room <= 0:
                self._outbox.mark(stream_id)
                continue
            writer = self._writers.get(stream_id)
            if writer is not None and writer.waiting:
                room -= len(writer.waiting) + writer.waiting_size // 1024
                first, events = writer.take()
                entries.append([stream_id, first, pack(events)])
                sent.append(writer)
        return sent, entries

    def _encoded(self, entries: list[list[Any]], sent: list[FileWriter]) -> bytes:
        """Return a batch. A stream of which a record cannot be written ends, and is taken out of *sent*."""
        try:
            return orjson.dumps(entries)
        except TypeError:  # an upstream's usage may be nested deeper than JSON is written
            possible = [entry for entry in entries if _can_be_written(entry)]
            known = {stream_id for stream_id, number, *_ in possible if number > 0}
            for writer in [writer for writer in sent if writer.id not in known]:
                sent.remove(writer)
                writer.fail(Failure.of(InternalError()))
                self._outbox.mark(writer.id)
                self._on_lost(writer.id, InternalError())
            return orjson.dumps(possible)

    def _began(self, writer: FileWriter, batch: int) -> None:
        self._writers[writer.id] = writer
        self._unmoved[writer] = batch
        if writer.identity.claim is not None:
            self._claims[writer.identity.claim] = writer

    def _acknowledge(self, writer: FileWriter, batch: int) -> None:
        """Make readable what was written."""
        self._unmoved.setdefault(writer, batch)
        writer.acknowledge()
        if writer.waiting:
            self._outbox.mark(writer.id)
        elif writer.log.ended and writer.finished:
            self.unfinished(writer)


def _can_be_written(entry: list[Any]) -> bool:
    try:
        orjson.dumps(entry)
    except TypeError:
        return False
    return True
