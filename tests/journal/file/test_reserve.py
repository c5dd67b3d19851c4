"""Room that is set aside on the disk."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.journal.file.reserve import NAME, Reserve


def test_it_takes_room_and_gives_it_back(tmp_path: Path) -> None:
    """It has as many bytes on the disk as it says, or none."""
    with closing(Reserve(tmp_path)) as reserve:
        file = tmp_path / NAME
        for _ in range(2):
            reserve.fill()
            assert file.stat().st_size == reserve.size
            assert file.stat().st_blocks * 512 >= reserve.size
            reserve.empty()
            assert (file.stat().st_size, file.stat().st_blocks) == (0, 0)
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("room", "taken"), [(8, 1), (2, 1), (1.5, 0.75), (1, 0.5), (0.1, 0.5)])
def test_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: float, taken: float) -> None:
    """It takes half of the room, but at least half of its size, and at most its size; not more a second time."""
    with closing(Reserve(tmp_path)) as reserve, monkeypatch.context() as patched:
        file = tmp_path / NAME
        disk = os.statvfs(tmp_path)

        def left(_: int) -> SimpleNamespace:
            free = int(room * reserve.size) - file.stat().st_size
            return SimpleNamespace(f_bavail=free // disk.f_frsize, f_frsize=disk.f_frsize)

        patched.setattr("os.fstatvfs", left)
        for _ in range(2):
            reserve.fill()
            assert file.stat().st_size == pytest.approx(taken * reserve.size, rel=0.01)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room, there is less of it, and that is no error."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with closing(Reserve(tmp_path)) as reserve, monkeypatch.context() as patched:
        patched.setattr("os.posix_fallocate", full)
        reserve.fill()
        assert (tmp_path / NAME).stat().st_size == 0
