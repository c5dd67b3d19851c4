"""`size:N`: at most N characters (code points) an event, never inside an extended grapheme cluster.

As many whole clusters as fit; a cluster longer than N leaves alone and whole. What follows the first text keeps to the
places where it would have been cut without it, so the piece after it may be shorter.

The first text leaves at once, except for a last cluster that may still grow. Its last character settles that by
itself if it is ASCII, a cased letter, punctuation, a space, or a wide letter (Han, Kana, Hangul): a mark after one of
these is rare, and a cluster cut then is the price of not waiting. After anything else (emoji, the letters of scripts
that live on marks, marks, joiners, regional indicators) the next character decides, and the cluster leaves then.
"""

from __future__ import annotations

import regex

from app.rechunk._clusters import after, floor, last
from app.rechunk._grammar import Cut
from app.rechunk._holding import LIMIT, Holding

_SETTLED = regex.compile(r"(?V1)[\p{ASCII}\p{Lu}\p{Ll}\p{P}\p{White_Space}[\p{Lo}&&\p{ea=W}]]")


def _settled(text: str) -> int:
    return len(text) if _SETTLED.match(text, len(text) - 1) else last(text)


def _create(size: int, max_delay: float | None) -> Holding:
    def find_end(text: str, start: int, at: int) -> int:
        end = start + size
        if len(text) <= end:
            return 0
        fit = floor(text[start : end + 1], size)
        if fit:
            return start + fit
        # One cluster, longer than wanted. Sliced, as `after` would count all flags from the beginning of the text.
        rest = text[start:]
        whole = after(rest, max(at - start, size + 1))
        return start + whole if whole < len(rest) else 0

    # A client that asks for pieces longer than the bound on holding has asked to hold more.
    return Holding(find_end, max_delay, settled=_settled, limit=max(size, LIMIT))


CUT = Cut(_create, unit="N", largest=65_536, bounded=True)
