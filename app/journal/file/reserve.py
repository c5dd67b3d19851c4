"""Room that is set aside on the disk. To free what a full disk holds takes some room itself."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

NAME = "reserve"
# Bytes that are set aside at most; of a small disk, a part of it.
_MOST = 16 << 20
_PART = 16
_BLOCK = 64 << 10


class Reserve:
    """A file of zeros in *folder*, which is emptied where its room is needed, and filled again.

    *size* is how many bytes are set aside where there is room. Raises OSError.
    """

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        disk = os.fstatvfs(self._file)
        self.size = min(_MOST, disk.f_blocks * disk.f_frsize // _PART)

    def fill(self) -> None:
        """Set aside half of the room that there is, but at least half of `size`, and at most `size`.

        The rest is for what is written, which goes to SQLite's log first. To move the log into the database takes at
        most as much room as the log has. A log that has filled the other half can be moved with what is set aside.
        """
        with suppress(OSError):  # the disk is full, or broken: then less is set aside
            disk = os.fstatvfs(self._file)
            room = os.fstat(self._file).st_size + disk.f_bavail * disk.f_frsize
            self._take(min(self.size, max(self.size // 2, room // 2)))

    def _take(self, size: int) -> None:
        for start in range(os.fstat(self._file).st_size, size, _BLOCK):
            length = min(_BLOCK, size - start)
            if sys.platform == "darwin":
                os.pwrite(self._file, bytes(length), start)
            else:
                os.posix_fallocate(self._file, start, length)

    def empty(self) -> None:
        """Give the room back."""
        with suppress(OSError):
            os.ftruncate(self._file, 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
