"""Streams that were given up while the disk refused, and whose end it does not have yet.

Readers were told that end, so its number belongs to it, also after a kill. A full disk takes a write where it has room
already: the file is as large from the start as it ever is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

NAME = "given-up"
_SIZE = 64 << 10
_OTHERS = b"*\n"  # there are more streams than the file has room for


class GivenUp:
    """The file in *folder*: what the last process has left there, from `begin` on what this one notes.

    *found* has the streams, and the numbers of their ends. *others* says that there are some that it does not have.
    Raises OSError.
    """

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self._durable = durable
        self._end = 0
        self._full = False
        self.found: dict[str, int] = {}
        self._file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        lines = os.pread(self._file, _SIZE, 0).partition(b"\0")[0].splitlines()
        self.others = _OTHERS.strip() in lines
        for line in lines:
            stream_id, _, number = line.decode(errors="replace").partition(" ")
            if number.isdigit():
                self.found[stream_id] = int(number)

    def begin(self) -> None:
        """Forget what the last process has left."""
        os.pwrite(self._file, bytes(_SIZE), 0)

    def note(self, ends: Iterable[tuple[str, int]]) -> None:
        """Note streams, and the numbers of the ends that their readers are about to be told."""
        for stream_id, number in ends:
            line = b"%s %d\n" % (stream_id.encode(), number)
            self._full = self._full or self._end + len(line) + len(_OTHERS) > _SIZE
            if self._full:
                os.pwrite(self._file, _OTHERS, self._end)
                break
            self._end += os.pwrite(self._file, line, self._end)
        if self._durable:
            os.fsync(self._file)

    def forget(self) -> None:
        """Note that the disk has all those ends."""
        os.pwrite(self._file, bytes(self._end + len(_OTHERS)), 0)
        self._end = 0
        self._full = False

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
