"""How the cost of some work grows with its size, whatever the machine's speed."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

# Work of sixteen times the size takes about 16 times the processor time if that grows in proportion, and 256 times if
# it grows with the square. The bound is between them, and far enough from both for a machine that changes its speed.
TIMES = 16
LINEAR = 64


def growth(prepare: Callable[[int], Callable[[], object]], size: int, *, repeat: int = 3) -> float:
    """Return how many times more processor time the work of *size* takes than that of a sixteenth.

    *prepare* returns the work of a size. What it does itself is not measured. Each is done *repeat* times, and the best
    time counts.
    """
    small, large = [], []
    for _ in range(repeat):
        small.append(_seconds(prepare(size // TIMES)))
        large.append(_seconds(prepare(size)))
    return min(large) / max(min(small), 1e-6)


def _seconds(work: Callable[[], object]) -> float:
    began = process_time()
    work()
    return process_time() - began
