"""How much is kept of each owner, and who has most."""

from __future__ import annotations

import random
from collections import Counter

from app.journal.file.sums import ANYONE, Sums


def test_who_has_most() -> None:
    """It is the owner that has most now, whatever was counted in and out before."""
    choose = random.Random(1)
    sums = Sums()
    counts, sizes = Counter[bytes](), Counter[bytes]()
    kept: list[tuple[bytes, int]] = []
    for _ in range(5000):
        if kept and choose.random() < 0.48:
            owner, size = kept.pop(choose.randrange(len(kept)))
            sums.add(owner, -1, -size)
            counts[owner] -= 1
            sizes[owner] -= size
        else:
            owner, size = choose.choice((ANYONE, b"ann", b"bob", b"cleo")), choose.randrange(1, 100)
            kept.append((owner, size))
            sums.add(owner, 1, size)
            counts[owner] += 1
            sizes[owner] += size
        assert (sums.count, sums.size) == (len(kept), sum(sizes.values()))
        if kept:
            assert counts[sums.most_streams()] == max(counts.values())
            assert sums.most_bytes(known=False)[0] == max(sizes.values())
            most, owner = sums.most_bytes(known=True)
            assert owner != ANYONE or not most
            assert most == max(size for owner, size in sizes.items() if owner != ANYONE) or not most
    assert len(sums) == len({owner for owner, _ in kept})
    assert len(sums._by_count._heap) < 1100


def test_nothing() -> None:
    """Where nothing is kept, no owner has most."""
    assert Sums().most_bytes(known=True) == (0, ANYONE)
