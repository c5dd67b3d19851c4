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
        self._had = 0  # bytes, before it was emptied
        disk = os.fstatvfs(self._file)
        self.size = min(_MOST, disk.f_blocks * disk.f_frsize // _PART)

    def fill(self) -> None:
        """Take what is missing; where there is little room, half of what it gave back: new streams need the rest."""
        with suppress(OSError):  # the disk is full, or broken: then less is set aside
            self._take(self.size if self._is_roomy() else self._had // 2)

    def restore(self) -> None:
        """Take what is missing, unless there is little room: new streams need that."""
        with suppress(OSError):
            if self._is_roomy():
                self._take(self.size)

    def _is_roomy(self) -> bool:
        disk = os.fstatvfs(self._file)
        return disk.f_bavail * disk.f_frsize >= 2 * self.size

    def _take(self, size: int) -> None:
        for start in range(os.fstat(self._file).st_size, size, _BLOCK):
            if sys.platform == "darwin":
                os.pwrite(self._file, bytes(_BLOCK), start)
            else:
                os.posix_fallocate(self._file, start, _BLOCK)

    def empty(self) -> None:
        """Give the room back."""
        with suppress(OSError):
            self._had = min(self.size, os.fstat(self._file).st_size)
            os.ftruncate(self._file, 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
