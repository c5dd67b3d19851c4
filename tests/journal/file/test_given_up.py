"""What is noted of streams that were given up while the disk refused."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from app.journal.file.given_up import NAME, GivenUp


def left(folder: Path) -> tuple[dict[str, int], bool]:
    """Return what a process finds there, and leave it."""
    with closing(GivenUp(folder, durable=False)) as found:
        return found.found, found.others


@pytest.mark.parametrize("durable", [False, True])
def test_notes(tmp_path: Path, durable: bool) -> None:
    """The next process finds what was noted and not forgotten, in a file whose size does not change."""
    with closing(GivenUp(tmp_path, durable=durable)) as given_up:
        given_up.begin()
        size = (tmp_path / NAME).stat().st_size
        given_up.note([("a", 1), ("b", 20)])
        given_up.note([("c", 3)])
        assert left(tmp_path) == ({"a": 1, "b": 20, "c": 3}, False)
        given_up.forget()
        assert left(tmp_path) == ({}, False)
        given_up.note([("d", 4)])
        assert left(tmp_path) == ({"d": 4}, False)
        given_up.begin()
        assert left(tmp_path) == ({}, False)
        assert (tmp_path / NAME).stat().st_size == size


def test_too_many(tmp_path: Path) -> None:
    """If there are more than the file has room for, it says so until they are forgotten."""
    with closing(GivenUp(tmp_path, durable=False)) as given_up:
        given_up.begin()
        given_up.note([(f"s{number:021}", number) for number in range(10_000)])
        given_up.note([("s", 1)])
        found, others = left(tmp_path)
        assert others and len(found) > 2000 and "s" not in found
        given_up.forget()
        assert left(tmp_path) == ({}, False)


def test_a_damaged_file(tmp_path: Path) -> None:
    """What is no note is passed over."""
    (tmp_path / NAME).write_bytes(b"a 1\n\xff\xfe 2\nb x\n\nc")
    assert left(tmp_path) == ({"a": 1, "\ufffd\ufffd": 2}, False)
