"""`auto`: texts that arrived together leave together. Nothing waits; the busier things are, the larger the events."""

from __future__ import annotations

from app.rechunk._rechunker import Merging, Rechunker

FORM = "auto"
PATTERN = "auto"
LAG = 2


def create(argument: int | None, max_delay: float | None) -> Rechunker:
    """Return a rechunker that joins the neighbours within a batch."""
    if argument is not None or max_delay is not None:
        raise ValueError("auto takes neither an argument nor a bound")
    return Merging()
