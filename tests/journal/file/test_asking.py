"""What is said of a folder before streams are kept there."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from app.journal.file import ask, asking
from app.journal.file.asking import look
from tests.journal.file.disk import Disk
from tests.waiting import until

pytestmark = pytest.mark.anyio


def test_a_folder_to_be_made(tmp_path: Path) -> None:
    """It is not made now; how much room there is, is said of the disk that it will be on."""
    usable, said = look(tmp_path / "a" / "b")
    assert usable and re.fullmatch(f"{tmp_path}/a/b will be made; [0-9.]+ [GM]B are free", said)
    assert list(tmp_path.iterdir()) == []


async def test_a_journal(disk: Disk) -> None:
    """A journal is said to be used while a process has it; its files stay as they are."""
    async with disk.start():
        usable, said = look(disk.folder)
        assert usable and f"a process uses it, the one with the id {os.getpid()}" in said
    usable, said = look(disk.folder)
    assert usable and "uses" not in said
    async with disk.start() as journal:  # the look has not kept the folder
        assert journal.ready
    disk.folder.chmod(0o755)
    assert "other users may enter it until the next start (mode 0755)" in look(disk.folder)[1]
    assert disk.folder.stat().st_mode & 0o777 == 0o755


async def test_a_newer_file(disk: Disk) -> None:
    """A file that the start would refuse is a failure with the same sentence."""
    async with disk.start():
        pass
    with closing(sqlite3.connect(disk.database)) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert look(disk.folder) == (False, f"{disk.database} was written by a newer version of chat-sse")


def test_other_files(tmp_path: Path) -> None:
    """So is a folder with other files, and a file in place of a folder."""
    (tmp_path / "letter").touch()
    usable, said = look(tmp_path)
    assert not usable and "has other files in it" in said
    assert look(tmp_path / "letter") == (False, f"{tmp_path}/letter is not a folder")
    usable, said = look(tmp_path / "letter" / "folder")
    assert not usable and "is not a folder" in said


def test_no_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a place that this user may not write to, or a disk without room."""
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
        assert look(tmp_path / "j") == (False, f"{tmp_path} cannot be written to by this user")
    monkeypatch.setattr(asking, "_LITTLE", 1 << 62)
    usable, said = look(tmp_path / "j")
    assert not usable and f"the disk of {tmp_path} is full" in said


async def test_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for."""
    go = threading.Event()
    monkeypatch.setattr(asking, "look", lambda path: go.wait(60))
    assert await ask(f"file://{tmp_path}", 0.05) == (False, f"the disk of {tmp_path} does not answer")
    go.set()
    await until(lambda: not any(thread.name == "look" for thread in threading.enumerate()))
