"""The folder of a journal: whose it is, and what was acknowledged."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from app.journal import JournalRefused
from app.journal.file.folder import Folder, Mark


def test_one_process_has_it(tmp_path: Path) -> None:
    """A folder that is taken is refused, with the process that has it, and is free again after that."""
    path = tmp_path / "a" / "b"
    one, other = Folder(path), Folder(path)
    one.take()
    assert path.stat().st_mode & 0o777 == 0o700
    with pytest.raises(JournalRefused, match=f"^another process uses {path}, the one with the id {os.getpid()}$"):
        other.take()
    one.release()
    other.take()
    other.release()


def test_a_folder_of_others(tmp_path: Path) -> None:
    """A folder with other files is refused, and keeps its mode; an empty one is taken."""
    (tmp_path / "file").touch()
    tmp_path.chmod(0o755)
    with pytest.raises(JournalRefused, match="has other files in it"):
        Folder(tmp_path).take()
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    (tmp_path / "file").unlink()
    folder = Folder(tmp_path)
    folder.take()
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    folder.release()


def test_no_folder(tmp_path: Path) -> None:
    """What cannot be a folder is refused with the system's reason."""
    (tmp_path / "file").touch()
    with pytest.raises(JournalRefused, match=r"file/folder cannot be used: Not a directory$"):
        Folder(tmp_path / "file" / "folder").take()


def test_the_mark(tmp_path: Path) -> None:
    """It has the number that was set last in this boot, by any process; before the first, there is none."""
    with closing(Mark(tmp_path)) as mark:
        assert (mark.number, mark.whole) == (None, False)
        mark.begin(7, durable=False)
        mark.set(8)
        with closing(Mark(tmp_path)) as next_one:
            assert (next_one.number, next_one.whole) == (8, True)
    file = tmp_path / "acknowledged"
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(file.read_bytes()[:8] + b"another".ljust(56, b"\0"))
    with closing(Mark(tmp_path)) as mark:
        assert (mark.number, mark.whole) == (8, False)
        mark.begin(9, durable=True)
    file.write_bytes(file.read_bytes()[:8] + b"another".ljust(55, b"\0") + file.read_bytes()[-1:])
    with closing(Mark(tmp_path)) as mark:
        assert (mark.number, mark.whole) == (9, True)
    file.write_bytes(b"short")
    with closing(Mark(tmp_path)) as mark:
        assert (mark.number, mark.whole) == (None, False)
