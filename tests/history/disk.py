"""A disk of a history: a folder with a real database, calls to it that are drawn, and what a dead process leaves."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from app.journal.file.folder import DATABASE
from app.journal.file.reserve import NAME as RESERVE

T = TypeVar("T")

_WAL = f"{DATABASE}-wal"
_MARK = "acknowledged"
_GIVEN_UP = "given-up"
# In the mark: where the id of the boot is.
_BOOT = slice(8, 63)


class DrawnDisk:
    """What one process has in *folder*. *durable* is whether it waits for the disk before anything is sent.

    While it *refuses*, it is full. Of a process that is killed, no call is made any more.
    """

    def __init__(self, folder: Path, choose: random.Random, *, durable: bool) -> None:
        self.folder = folder
        self.choose = choose
        self.durable = durable
        self.refuses = False
        self.killed = False
        self.workers: dict[str, DrawnWorker] = {}

    def worker(self, name: str) -> DrawnWorker:
        """Return what stands for a thread of this *name*; see `app.journal.file.store.Worker`."""
        self.workers[name] = DrawnWorker(self, name)
        return self.workers[name]

    def kill(self, folder: Path, *, power: bool) -> DrawnDisk:
        """Kill the process, or the *power* of the machine, and return what the next process finds, in *folder*."""
        choose = self.choose
        self.killed = True
        mark = (self.folder / _MARK).read_bytes()
        whole = self._size()
        if choose.random() < 0.5:
            self.workers["journal writes"].tear()  # it died within a write
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns(RESERVE))
        (folder / _MARK).write_bytes(mark)
        written = self._size()
        if written > whole:
            os.truncate(folder / _WAL, choose.randrange(whole, written))
        if power:
            boot = b"another boot".ljust(_BOOT.stop - _BOOT.start, b"\0")
            number = choose.choice((mark[: _BOOT.start], bytes(_BOOT.start)))  # the last one, or an old one
            (folder / _MARK).write_bytes(number + boot + mark[_BOOT.stop :])
            if not self.durable:
                (folder / _GIVEN_UP).unlink()
                os.truncate(folder / _WAL, choose.randrange(os.stat(folder / _WAL).st_size + 1))
        return DrawnDisk(folder, choose, durable=choose.random() < 0.5)

    def _size(self) -> int:
        return (self.folder / _WAL).stat().st_size


class DrawnWorker:
    """Makes calls one after the other, in the history's own time."""

    def __init__(self, disk: DrawnDisk, name: str) -> None:
        self._disk = disk
        self._writes = name == "journal writes"
        self._calls: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._opened = not self._writes

    async def call(self, call: Callable[[], T]) -> T:
        made: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if not self._opened:
            self._opened = True
            return call()  # the start: nothing happens beside it
        self._calls.append((call, made))
        if len(self._calls) == 1:
            self._wait()
        return await made

    def stop(self, *, wait: bool = True) -> None:
        """Do nothing: there is no thread."""

    def tear(self) -> None:
        """Make the call that was about to be made."""
        if self._calls:
            with suppress(sqlite3.Error, OSError):
                self._calls[0][0]()

    def _wait(self) -> None:
        choose = self._disk.choose
        hangs = self._writes and choose.random() < 0.002
        asyncio.get_running_loop().call_later(
            30 * choose.random() if hangs else 0.02 * choose.random() ** 4, self._make
        )

    def _make(self) -> None:
        if self._disk.killed:
            return  # the caller is dead, too
        call, made = self._calls[0]
        result = error = None
        try:
            if self._writes and self._disk.refuses and getattr(call, "__name__", "") != "_close":
                raise OSError(28, "No space left on device")
            result = call()
        except Exception as raised:  # whatever it is, it is the caller's
            error = raised
        asyncio.get_running_loop().call_later(0.01 * self._disk.choose.random() ** 4, self._answer, made, result, error)

    def _answer(self, made: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        if self._disk.killed:
            return
        self._calls.popleft()
        if self._calls:
            self._wait()
        if made.done():
            return
        if error is None:
            made.set_result(result)
        else:
            made.set_exception(error)
