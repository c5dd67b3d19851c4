"""How much is kept of each owner, and who has most."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import NamedTuple

ANYONE = b""
"""The owner that stands for all callers without credentials."""
# Entries of a heap that may be out of date before it is built again.
_STALE = 1000


class Sum(NamedTuple):
    """How many ended streams an owner has, and how many bytes they take."""

    streams: int = 0
    size: int = 0


class _Most:
    """Which owner has most of one thing. An entry of the heap that is out of date is skipped when it is met."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, bytes]] = []
        self._now: dict[bytes, int] = {}

    def set(self, owner: bytes, amount: int) -> None:
        if not amount:
            self._now.pop(owner, None)
            return
        self._now[owner] = amount
        heappush(self._heap, (-amount, owner))
        if len(self._heap) > 2 * len(self._now) + _STALE:
            self._heap = [(-amount, owner) for owner, amount in self._now.items()]
            heapify(self._heap)

    def top(self) -> tuple[int, bytes]:
        """Return the largest amount and its owner; (0, b"") if no owner has anything."""
        while self._heap:
            amount, owner = self._heap[0]
            if self._now.get(owner) == -amount:
                return -amount, owner
            heappop(self._heap)
        return 0, ANYONE


class Sums:
    """What is kept of all owners: *count* streams, *size* bytes. To ask who has most does not go through all owners."""

    def __init__(self) -> None:
        self._by_owner: dict[bytes, Sum] = {}
        self._by_count = _Most()
        self._by_size = _Most()  # without `ANYONE`, who has no bound
        self.count = 0
        self.size = 0

    def __len__(self) -> int:
        """How many owners have something."""
        return len(self._by_owner)

    def add(self, owner: bytes, count: int, size: int) -> None:
        """Count streams of an owner in, or out if the numbers are negative."""
        before = self._by_owner.get(owner, Sum())
        now = self._by_owner[owner] = Sum(before.streams + count, before.size + size)
        self.count += count
        self.size += size
        self._by_count.set(owner, now.streams)
        if owner != ANYONE:
            self._by_size.set(owner, now.size)
        if not now.streams:
            del self._by_owner[owner]

    def most_streams(self) -> bytes:
        """Return the owner that has most streams."""
        return self._by_count.top()[1]

    def most_bytes(self, *, known: bool) -> tuple[int, bytes]:
        """Return most bytes and their owner; if that has to be *known*, among the owners with credentials."""
        top = self._by_size.top()
        anyone = self._by_owner.get(ANYONE, Sum()).size
        return top if known or top[0] >= anyone else (anyone, ANYONE)
