"""`time:MS`: what came in MS milliseconds leaves together. Nothing is cut here.

Upstream is not read meanwhile: what comes waits in the socket, where the kernel joins it for less than we could, and
leaves with the read that brings it. Only beyond `_LONGEST_PAUSE` text is held here, since an answer's end, and
upstream's, would otherwise be noticed late.
"""

from __future__ import annotations

from app.rechunk._grammar import MS
from app.rechunk._holding import Holding
from app.rechunk._rechunker import Merging, Rechunker

FORM = "time:MS"
PATTERN = f"time:{MS}"
LAG = 2

_LONGEST = 60_000
# Seconds.
_LONGEST_PAUSE = 0.25


class _Pausing(Merging):
    __slots__ = ("pause",)

    def __init__(self, pause: float) -> None:
        self.pause = pause


class _Waiting(Holding):
    __slots__ = ()

    pause = _LONGEST_PAUSE


def _cut(text: str, start: int, at: int) -> int:
    return 0


def create(argument: int | None, max_delay: float | None) -> Rechunker:
    """Return a rechunker that has everything of *argument* milliseconds leave at once."""
    if argument is None or argument > _LONGEST or max_delay is not None:
        raise ValueError("time takes a number of milliseconds and no bound")
    seconds = argument / 1000
    return _Pausing(seconds) if seconds <= _LONGEST_PAUSE else _Waiting(_cut, seconds)
