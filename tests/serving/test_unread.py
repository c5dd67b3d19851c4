"""Who is dropped when too many bytes wait for clients to read."""

from __future__ import annotations

import pytest

from app.serving.unread import Unread

dropped: list[str] = []


class Named:
    """A connection that notes when it is dropped."""

    def __init__(self, name: str) -> None:
        self.name = name

    def drop(self) -> None:
        dropped.append(self.name)


@pytest.fixture
def unread() -> Unread:
    dropped.clear()
    return Unread(1000)


def test_within_bounds(unread: Unread) -> None:
    """What is read, or closed, counts no longer; what stops again counts again."""
    for number in range(10):
        connection = Named(str(number))
        unread.stopped(connection, "ann", 200)
        unread.stopped(connection, "ann", 100)
        unread.went_on(connection)
        unread.went_on(connection)
    assert (dropped, unread.size) == ([], 0)
    assert repr(unread) == "<Unread 0 connections, 0 bytes>"


def test_a_principal(unread: Unread) -> None:
    """Above a quarter of all, a principal loses the connections that have waited longest, and only that principal."""
    unread.stopped(Named("bob"), "bob", 100)
    for number in range(5):
        unread.stopped(Named(str(number)), "ann", 100)
    assert (dropped, unread.size) == (["0", "1", "2"], 300)
    unread.stopped(Named("large"), "ann", 5000)
    assert dropped == ["0", "1", "2", "3", "4", "large"]
    assert unread.size == 100


def test_all(unread: Unread) -> None:
    """Above the bound of all, the principal that keeps most loses the connection that has waited longest."""
    for name in "abcdef":
        unread.stopped(Named(name), name, 150)
    unread.stopped(Named("g1"), "g", 90)
    assert dropped == []
    unread.stopped(Named("g2"), "g", 90)
    assert dropped == ["g1"]
    assert unread.size == 990
