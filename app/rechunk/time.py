"""`time:MS`: what came in MS milliseconds leaves together. Nothing is cut here; the caller's clock does it."""

from __future__ import annotations

from app.rechunk._holding import Holding
from app.rechunk._rechunker import Rechunker

FORM = "time:MS"
LAG = 2

_LONGEST = 60_000


class _Waiting(Holding):
    __slots__ = ()

    patient = True


def _cut(text: str, start: int, at: int) -> int:
    return 0


def create(argument: int | None, max_delay: float | None) -> Rechunker:
    """Return a rechunker that holds everything for *argument* milliseconds."""
    if argument is None or argument > _LONGEST or max_delay is not None:
        raise ValueError("time takes a number of milliseconds and no bound")
    return _Waiting(_cut, argument / 1000)
