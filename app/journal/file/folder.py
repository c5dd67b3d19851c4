"""The folder of a journal on disk: who may use it, and what was acknowledged before the process ended.

Only one process uses a folder at a time: it holds a lock on a file there, which ends with the process, however it ends.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from contextlib import suppress
from pathlib import Path

from app.journal import JournalInUse, JournalRefused

DATABASE = "streams.sqlite3"
_LOCK = "lock"
_MARK = "acknowledged"
# The mark: the number of a batch, the id of the boot in which it was written, and whether it was on the disk before it
# was acknowledged.
_NUMBER = struct.Struct("<Q")
_SIZE = 64
_DURABLE = _SIZE - 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Folder:
    """A folder that this process has for itself, from `take` to `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    @property
    def database(self) -> Path:
        """The file that has the streams."""
        return self.path / DATABASE

    def take(self) -> None:
        """Make the folder if there is none, and lock it. Raises JournalRefused, or JournalInUse."""
        try:
            self._make()
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise JournalInUse(f"another process uses {self.path}{self._owner()}") from None
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            self.release()
            raise JournalRefused(f"{self.path} cannot be used: {os.strerror(error.errno or 0)}") from None
        except JournalRefused:
            self.release()
            raise

    def _make(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check_files()
        self.path.chmod(0o700)

    def check_files(self) -> None:
        """Raise JournalRefused if the folder has files that are not a journal's. Raises OSError."""
        if not (self.path / _LOCK).exists() and any(self.path.iterdir()):
            raise JournalRefused(f"{self.path} has other files in it; name a folder that is empty, or does not exist")

    def user(self) -> str:
        """Return a clause with the process that has the folder, or "" if none has. Raises OSError."""
        with suppress(FileNotFoundError):
            self._lock = os.open(self.path / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return f"a process uses it{self._owner()}"
            finally:
                self.release()
        return ""

    def _owner(self) -> str:
        process = os.pread(self._lock, 20, 0).strip()
        return f", the one with the id {process.decode()}" if process.isdigit() else ""

    def release(self) -> None:
        """Let other processes use the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class Mark:
    """The number of the last batch that was acknowledged, and so may have been sent to clients.

    It is written to memory that the kernel writes to the file: this takes no time, and survives the process. A power
    loss it may not survive, so it has the id of the boot, too. *whole* is whether no later batch can have been
    acknowledged: this is the same boot, or the process that wrote them waited for the disk each time.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path / _MARK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            before = os.pread(descriptor, _SIZE, 0)
            # Written, and not only made longer: a full disk would end the process later, at a store to memory.
            os.pwrite(descriptor, before.ljust(_SIZE, b"\0"), 0)
            self._map = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        self.number: int | None = _NUMBER.unpack_from(before)[0] if len(before) == _SIZE else None
        self._boot = _boot_id()
        same_boot = before[_NUMBER.size : _DURABLE].rstrip(b"\0") == self._boot != b""
        self.whole = same_boot or before[_DURABLE:] == b"\1"

    def begin(self, number: int, *, durable: bool) -> None:
        """Have the mark say that batches up to *number* are there, in this boot, and whether the next are *durable*."""
        self._map[_NUMBER.size : _DURABLE] = self._boot.ljust(_DURABLE - _NUMBER.size, b"\0")
        self._map[_DURABLE] = durable
        self.set(number)
        self._map.flush()

    def set(self, number: int) -> None:
        """Note that batch *number* is acknowledged."""
        _NUMBER.pack_into(self._map, 0, number)

    def close(self) -> None:
        """Close the file."""
        self._map.close()


def _boot_id() -> bytes:
    with suppress(OSError):
        return _BOOT_ID.read_bytes().strip()
    return b""
