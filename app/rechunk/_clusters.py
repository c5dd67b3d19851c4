"""Extended grapheme clusters (UAX #29): what a reader sees as one character.

Invariant: time is linear in the text looked at. `\\X` itself is not: between two regional indicators it counts all
those before them, so a million flags would take minutes. `_CLUSTER` takes flags in pairs as long as another follows,
which is the same answer.
"""

from __future__ import annotations

import regex

# For use in a set: what never begins a cluster, unless it begins the text or a line.
EXTENDER = r"\p{GCB=EX}\p{GCB=SM}\p{GCB=ZWJ}"

_CLUSTER = r"(?:\p{RI}\p{RI}(?=\p{RI})|\X)"
_LAST = regex.compile(rf"({_CLUSTER})*+")
_NEXT = regex.compile(r"\X")


def floor(text: str, end: int) -> int:
    """Return the last cluster boundary of *text* that is not after *end*; 0 if the first cluster reaches further.

    *text* has a character at *end* and begins with a cluster.
    """
    return end if after(text, end) == end else last(text[: end + 1])


def last(text: str) -> int:
    """Return where the last cluster of *text* begins."""
    match = _LAST.match(text)
    return max(match.start(1), 0) if match else 0


def after(text: str, position: int) -> int:
    """Return the end of the cluster that the character before *position* is in; `len(text)` if that may still grow."""
    match = _NEXT.match(text, position - 1)  # sees what is to the left, so it may start inside a cluster
    return match.end() if match else len(text)
