"""`line`: cut after each line end, be it `\\n`, `\\r\\n` or `\\r`."""

from __future__ import annotations

import re

from app.rechunk._grammar import Cut
from app.rechunk._holding import Holding

# A `\r` that is the last character so far waits: a `\n` may follow.
_END = re.compile(r"\n|\r\n|\r(?=[^\n])")


def _find_end(text: str, start: int, at: int) -> int:
    match = _END.search(text, at - 1)
    return match.end() if match else 0


CUT = Cut(lambda number, max_delay: Holding(_find_end, max_delay), bounded=True, merge_after=32)
