"""Notes of the streams that were given up because the disk refused: readers saw an end that the database lacks.

If the process is killed, the next one gives such a stream the same end, with the same number. The notes are a file of
their own, which has its full size from the start: a full disk does not refuse to overwrite it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

NAME = "given-up"
_SIZE = 64 << 10
_OTHERS = b"*\n"  # stands for the streams that the file has no room for


class GivenUp:
    """The notes in *folder*. All methods raise OSError.

    *found* are the streams that the last process has noted, with the numbers of their ends. *others* says that there
    were more than the file has room for. From `begin` on, the file has the notes of this process.
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
        """Remove the notes of the last process."""
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
        """Remove all notes: the database has those ends now."""
        os.pwrite(self._file, bytes(self._end + len(_OTHERS)), 0)
        self._end = 0
        self._full = False

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
