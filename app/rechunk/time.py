"""`time:MS`: what came in MS milliseconds leaves together. Nothing is cut here.

The upstream is not read meanwhile. What it sends waits in the socket, where the kernel joins it for less than we could,
and leaves with the read that brings it. If the time is longer than `_LONGEST_PAUSE`, text is held here as well, because
the end of the answer, or of the connection, would otherwise be noticed late.
"""

from __future__ import annotations

from app.rechunk._grammar import LONGEST_MS, Cut
from app.rechunk._holding import Holding
from app.rechunk._rechunker import Merging, Rechunker

_LONGEST_PAUSE = 0.25  # seconds


class _Pausing(Merging):
    __slots__ = ("pause",)

    def __init__(self, pause: float) -> None:
        self.pause = pause


class _Waiting(Holding):
    __slots__ = ()

    pause = _LONGEST_PAUSE


def _find_none(text: str, start: int, at: int) -> int:
    return 0


def _create(milliseconds: int, max_delay: float | None) -> Rechunker:
    seconds = milliseconds / 1000
    return _Pausing(seconds) if seconds <= _LONGEST_PAUSE else _Waiting(_find_none, seconds)


CUT = Cut(_create, unit="MS", largest=LONGEST_MS, merge_after=2)
