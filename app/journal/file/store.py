"""The threads of a journal on disk: one writes, the other reads. The event loop waits for neither."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, Concatenate, ParamSpec, TypeVar

from structlog.typing import FilteringBoundLogger

from app.errors import JournalDown
from app.journal import Bounds, JournalRefused
from app.journal.file.address import Address
from app.journal.file.database import Database, Gone, connect
from app.journal.file.folder import Folder, Mark
from app.journal.file.given_up import GivenUp
from app.journal.file.recovery import Found, recover
from app.journal.file.reserve import Reserve
from app.journal.file.timing import Timing

P = ParamSpec("P")
T = TypeVar("T")

FAILURES = (sqlite3.Error, OSError)
"""What a call to the database raises when the disk is full or broken."""


class Worker:
    """A thread of this *name* that makes calls, one after the other, from the first call to `stop`.

    An executor of the standard library costs three times as much for each of them.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls = SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None]()
        self._thread: Thread | None = None

    async def call(self, call: Callable[[], T]) -> T:
        """Make a call in the thread, and return or raise what it does. It is made also if the caller is cancelled."""
        if self._thread is None:
            thread = Thread(target=self._run, name=self._name, daemon=True)
            thread.start()
            self._thread = thread  # not before: the system may have no room for one more thread
        made: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.put((call, made))
        return await made

    def stop(self, *, wait: bool = True) -> None:
        """End the thread, after the calls that were asked for, and *wait* for that."""
        if self._thread is not None:
            self._calls.put(None)
            if wait:
                self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while asked := self._calls.get():
            call, made = asked
            result = error = None
            try:
                result = call()
            except Exception as raised:  # whatever it is, it is the caller's
                error = raised
            with suppress(RuntimeError):  # the loop was closed, because this took too long
                made.get_loop().call_soon_threadsafe(_settle, made, result, error)


def _settle(made: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if made.done():
        return  # the caller was cancelled
    if error is None:
        made.set_result(result)
    else:
        made.set_exception(error)


class Store:
    """The database at *address*, within *bounds*, from `open` to `close`."""

    def __init__(self, address: Address, bounds: Bounds, timing: Timing, log: FilteringBoundLogger) -> None:
        self._address = address
        self._bounds = bounds
        self._timing = timing
        self._log = log
        self._folder = Folder(address.folder)
        self._writing = Worker("journal writes")
        self._reading = Worker("journal reads")
        self._noting = Worker("journal notes")
        self._held = ExitStack()
        self._reader: sqlite3.Connection
        self._reserve: Reserve
        self.database: Database
        self.given_up: GivenUp

    async def open(self, now: float) -> Found:
        """Take the folder, and end what the last process left in it. Raises JournalRefused."""
        return await self.write(self._open, now)

    def _open(self, now: float) -> Found:
        self._folder.take()
        self._held.callback(self._folder.release)
        path = self._folder.database
        durable = self._address.durable
        try:
            mark = self._held.enter_context(closing(Mark(self._folder.path)))
            self.given_up = self._held.enter_context(closing(GivenUp(self._folder.path, durable=durable)))
            self._reserve = self._held.enter_context(closing(Reserve(self._folder.path)))
            self._reserve.empty()  # what the last process has left may fill the disk, and to move it takes room
            self.database = Database(path, mark, self._bounds, durable=durable)
            self.database.open()
            self._held.callback(self.database.close)
            found = recover(self.database, mark, self.given_up, now, self._bounds.seconds, durable=durable)
            self.given_up.begin()
            self.database.checkpoint()
            self._reader = self._held.enter_context(closing(connect(path, durable=durable)))
            self._reserve.fill()
        except FAILURES as error:
            raise JournalRefused(f"{path} cannot be used: {reason(error)}") from None
        return found

    async def write(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call a method of the database in its thread. Raises one of `FAILURES`."""
        return await self._writing.call(lambda: call(*arguments, **named))

    async def read(
        self, call: Callable[Concatenate[sqlite3.Connection, P], T], *arguments: P.args, **named: P.kwargs
    ) -> T:
        """Call a function of `reading` in a thread. Raises JournalDown."""
        try:
            return await self._reading.call(lambda: call(self._reader, *arguments, **named))
        except FAILURES as error:
            self._log.error("journal.unreadable", error=type(error).__name__, reason=reason(error))
            raise JournalDown from None

    async def flush(self) -> None:
        """Move SQLite's log into the database, in the other thread, so that a checkpoint has little left to wait for.

        Raises one of `FAILURES`.
        """
        await self._reading.call(lambda: self._reader.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall())

    async def note_ends(self, ends: list[tuple[str, int]]) -> None:
        """Note the numbers of the ends that readers are about to see. Do not wait for a disk that hangs."""
        await self._note(lambda: self.given_up.note(ends))

    async def forget_ends(self) -> None:
        """Remove these notes: the ends are written. If this fails, the notes say the same as the database."""
        await self._note(self.given_up.forget)

    async def _note(self, call: Callable[[], None]) -> None:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._timing.note):
                await self._noting.call(call)

    async def log_is_large(self) -> bool:
        """Whether a checkpoint is due, which moves SQLite's log into the database. Raises OSError.

        On a full disk, what is set aside has to be room enough for that.
        """
        return await self.write(self._log_is_large)

    def _log_is_large(self) -> bool:
        path = self._folder.database
        with suppress(FileNotFoundError):
            return path.with_name(f"{path.name}-wal").stat().st_size > self._reserve.size // 2
        return False

    async def fill_reserve(self) -> None:
        """Set aside what there was no room for before."""
        await self.write(self._reserve.fill)

    async def free(self, now: float, oldest: int) -> list[Gone]:
        """See `Database.free`."""
        return await self.write(self.database.free, self._reserve, now, oldest)

    async def close(self) -> None:
        """Close the file, and let other processes use the folder, unless the disk hangs until the process ends."""
        try:
            async with asyncio.timeout(self._timing.close):
                await self._writing.call(self._close)
        except TimeoutError:
            self._log.error("journal.not_closed", reason="the disk hangs")
        finally:
            self._writing.stop(wait=False)

    def _close(self) -> None:
        self._reading.stop()
        self._noting.stop()
        self._held.close()


def reason(error: Exception) -> str:
    """Return SQLite's or the system's own word for what is wrong, such as SQLITE_FULL, and nothing of the content."""
    return getattr(error, "sqlite_errorname", None) or getattr(error, "strerror", None) or ""
