"""`none`: one event per upstream delta."""

from __future__ import annotations

from app.rechunk._rechunker import Rechunker

FORM = "none"
PATTERN = "none"
LAG = None


def create(argument: int | None, max_delay: float | None) -> Rechunker:
    """Return a rechunker that leaves everything as it is."""
    if argument is not None or max_delay is not None:
        raise ValueError("none takes neither an argument nor a bound")
    return Rechunker()
