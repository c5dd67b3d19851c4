"""`sentence`: cut after sentences, and after line ends.

A sentence ends after `.`, `!`, `?` or `…`, closing quotes and brackets included, and the spaces that follow; without
a space ("3.14", "example.com") it goes on. `。！？` and their like need none. A point after a single letter ("J. R.",
"e.g.") ends nothing, nor does a point after the number that begins a list item. A run of line ends closes whatever it
follows, which keeps list items and lines of code whole; indentation belongs to the line it is in.
"""

from __future__ import annotations

import regex

from app.rechunk._clusters import EXTENDER
from app.rechunk._grammar import Cut
from app.rechunk._holding import Holding

# Neighbouring classes are disjoint and quantifiers possessive, so looking behind is linear. It is also tried last: only
# once per run of spaces or closers, at the end of the run.
_WIDE = r"。！？｡؟۔।॥"
_STOP = rf"(?:[!?…‥．{_WIDE}]|(?<!(?<![\p{{L}}\p{{M}}\p{{N}}])[\p{{Lu}}\p{{Ll}}])\.)"
_CLOSER = r"""\"'*_`~\p{Pe}\p{Pf}"""
_SPACE = r"[^\S\r\n]"
_END = regex.compile(
    rf"(?=[^\r\n])(?<=[\r\n])"
    rf"|(?=[^\s{EXTENDER}])(?<={_SPACE})(?<={_STOP}[{_CLOSER}]*+{_SPACE}++)"
    rf"|(?=[^\s{EXTENDER}{_CLOSER}!?.…{_WIDE}])(?<=[{_WIDE}][{_CLOSER}]*+)"
)
_ITEM = regex.compile(rf"[\s>]*+[0-9]++\.{_SPACE}++")


def _find_end(text: str, start: int, at: int) -> int:
    match = _END.search(text, at)
    if match and _ITEM.fullmatch(text, start, match.end()):
        match = _END.search(text, match.end() + 1)
    return match.end() if match else 0


CUT = Cut(lambda number, max_delay: Holding(_find_end, max_delay), bounded=True, merge_after=32)
