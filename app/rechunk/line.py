"""`line`: cut after each line end, be it `\\n`, `\\r\\n` or `\\r`."""

from __future__ import annotations

import re

from app.rechunk._grammar import BOUND
from app.rechunk._holding import Holding
from app.rechunk._rechunker import Rechunker

FORM = "line[,MSms]"
PATTERN = f"line{BOUND}"
LAG = 32

# A `\r` that is the last character so far waits: a `\n` may follow.
_END = re.compile(r"\n|\r\n|\r(?=[^\n])")


def _cut(text: str, start: int, at: int) -> int:
    match = _END.search(text, at - 1)
    return match.end() if match else 0


def create(argument: int | None, max_delay: float | None) -> Rechunker:
    """Return a rechunker that lets whole lines leave."""
    if argument is not None:
        raise ValueError("line takes no argument")
    return Holding(_cut, max_delay)
