"""How older records lie in memory: packed, where that saves memory.

A piece of text has about four characters, and takes 80 bytes as an object in a list. So a page of pieces of one kind
becomes one string, and the places where the pieces end: a tenth of the memory, and one object in place of many. The
newest records are not packed, because the readers that keep up read them.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, cast

from app.events import TEXT, Delta, Event, Text, values

PAGE = 64
"""How many records a page has."""

# A page of more characters is left as it is: there is little to save, and a packed page has to go out in one send.
_MOST = 16 * 1024
# Bytes that a record takes besides its values: a reference in the list; the event, with the garbage collector's header.
REFERENCE = 8
_RECORD_OVERHEAD = REFERENCE + 72

_TEXTS: frozenset[type] = frozenset(TEXT)

# A Delta, of which nearly every log is made, is kept as its bare text, which takes half the memory.
Kept = Event | str


class Page:
    """The texts of `PAGE` records of one kind.

    *size* is what it takes in memory, in bytes, and *saved* how much more that was before.
    """

    __slots__ = ("_ends", "_kind", "_text", "saved", "size")

    def __init__(self, kind: type[Text], texts: Sequence[str]) -> None:
        self._kind = kind
        self._text = "".join(texts)
        self._ends = array("H", accumulate(map(len, texts)))
        self.size = _RECORD_OVERHEAD + sys.getsizeof(self._text) + sys.getsizeof(self._ends)
        each = REFERENCE if kind is Delta else _RECORD_OVERHEAD
        self.saved = sum(map(str.__sizeof__, texts)) + each * len(texts) - self.size

    def events(self, start: int, end: int) -> list[Event]:
        """Return the events from index *start* up to *end*."""
        kind = self._kind
        text = self._text
        begin = self._ends[start - 1] if start else 0
        return [kind(text[one:other]) for one, other in pairwise((begin, *self._ends[start:end]))]


def pack(kept: Sequence[Kept]) -> Page | None:
    """Return a page of what was *kept*, or None if it is of several kinds, or long."""
    kinds = set(map(type, kept))
    if kinds == {str}:
        return _packed(Delta, cast("Sequence[str]", kept))  # as the line above says
    if len(kinds) == 1 and kinds <= _TEXTS:
        return _packed(kinds.pop(), [it.text for it in cast("Sequence[Text]", kept)])  # the same
    return None


def _packed(kind: type[Text], texts: Sequence[str]) -> Page | None:
    return Page(kind, texts) if sum(map(len, texts)) <= _MOST else None


def keep(events: Sequence[Event]) -> list[Kept]:
    """Return *events* as they are kept."""
    return [event.text if type(event) is Delta else event for event in events]


def unkept(kept: Sequence[Kept]) -> list[Event]:
    """Return the events that were *kept*."""
    return [Delta(it) if isinstance(it, str) else it for it in kept]


def size_of(it: Kept) -> int:
    """Return about how many bytes a record takes that is not packed."""
    if isinstance(it, str):
        return REFERENCE + it.__sizeof__()
    if isinstance(it, TEXT):
        return _RECORD_OVERHEAD + it.text.__sizeof__()
    return _RECORD_OVERHEAD + _deep_size(values(it))


def _deep_size(found: Any) -> int:
    """Return what JSON takes in memory. A loop, because an upstream decides how deep it is nested."""
    size = 0
    level = [found]
    while level:
        size += sum(map(sys.getsizeof, level))
        inner: list[Any] = []
        for it in level:
            if isinstance(it, dict):
                inner += it
                inner += it.values()
            elif isinstance(it, (list, tuple)):
                inner += it
        level = inner
    return size
