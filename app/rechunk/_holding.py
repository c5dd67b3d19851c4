"""Holding text back until a piece of it is whole.

Strategy: text of one kind is kept from the last cut on, *also what has left already*. So where the cuts fall depends on
the text alone, and never on how it arrived or when it was flushed. Text that leaves early (the first text, a flush)
only moves `_sent` forward; the next piece is then what remains up to the next cut.

Invariant: each position is judged once, and at most `LIMIT` characters are kept, so the cost of a text is linear in its
length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.events import TEXT, Event, Logprobs, Text
from app.rechunk._clusters import after, floor
from app.rechunk._rechunker import Rechunker, merge

# Longer than any paragraph a person would wait for, small enough that ten thousand streams that all hold this much fit
# in a machine's memory, and that copying it for every delta of an endless line costs about a microsecond.
LIMIT = 16_384

FindEnd = Callable[[str, int, int], int]
"""(text, start, at) -> where the piece of *text* that begins at *start* ends, or 0 as long as that is not certain.

Positions before *at* were judged by earlier calls. Whether a piece ends at a position must depend on the text from
*start* up to and including the character at that position, and on nothing else. That makes the pieces independent of
how the upstream split the text.
"""


class Holding(Rechunker):
    """Lets text leave in the pieces whose ends *find_end* finds.

    The first text of each kind leaves at once: all of it, or its first *settled(text)* characters. In that case the
    rest leaves as soon as its last grapheme cluster is whole. A piece longer than *limit* is cut at the last cluster
    boundary before that, or at *limit* if a single cluster is longer.
    """

    __slots__ = (
        "_begun",
        "_find_end",
        "_kind",
        "_known",
        "_limit",
        "_owed",
        "_sent",
        "_settled",
        "_text",
        "held",
        "max_delay",
    )

    def __init__(
        self, find_end: FindEnd, max_delay: float | None, *, settled: Callable[[str], int] = len, limit: int = LIMIT
    ) -> None:
        self.held = False
        self.max_delay = max_delay
        self._find_end = find_end
        self._settled = settled
        self._limit = limit
        self._kind: type[Text] | None = None
        self._begun: frozenset[type[Text]] = frozenset()  # kinds of which the first text has been seen
        self._known = self._begun  # those of earlier reads
        self._text = ""  # since the last cut
        self._sent = 0  # how much of it has left
        self._owed = 0  # where the first text ends, if its last cluster has yet to leave

    def feed(self, events: Sequence[Event], *, more: bool = False) -> Sequence[Event]:
        """Return the pieces that are whole."""
        out: list[Event] = []
        for event in events if len(events) < 2 else merge(events):
            if isinstance(event, TEXT):
                if not event.text:
                    continue
                kind = type(event)
                if kind is not self._kind:
                    self._begin(kind, out)
                if len(event.text) <= LIMIT:
                    self._grow(event.text, kind, out)
                else:
                    for at in range(0, len(event.text), LIMIT):
                        self._grow(event.text[at : at + LIMIT], kind, out)
            elif isinstance(event, Logprobs):
                out.append(event)  # beside the text, which it must not cut
            else:
                self._begin(None, out)
                out.append(event)
        if self._known is not self._begun and not more:
            if self._kind and self._kind not in self._known:
                settled = self._settled(self._text)
                self._leave(settled, self._kind, out)
                self._owed = len(self._text) if settled < len(self._text) else 0
            self._known = self._begun
        self.held = self._sent < len(self._text)
        return out

    def flush(self) -> Sequence[Event]:
        """Return the text that was held back, as one event, or nothing if there is none."""
        out: list[Event] = []
        if self._kind:
            self._leave(len(self._text), self._kind, out)
        self._owed = 0
        self.held = False
        return out

    def _begin(self, kind: type[Text] | None, out: list[Event]) -> None:
        """Begin a text of *kind*; what is held of another one leaves first."""
        out += self.flush()
        self._text = ""
        self._sent = 0
        self._kind = kind
        if kind and kind not in self._begun:
            self._begun |= {kind}

    def _leave(self, end: int, kind: type[Text], out: list[Event]) -> None:
        if end > self._sent:
            out.append(kind(self._text[self._sent : end]))
            self._sent = end

    def _grow(self, added: str, kind: type[Text], out: list[Event]) -> None:
        """Append *added*, at most `LIMIT` characters, and let the pieces leave that are whole now."""
        find_end = self._find_end
        limit = self._limit
        at = len(self._text)
        self._text += added
        if self._owed:
            self._pay(kind, out)
        start = 0
        while True:
            end = find_end(self._text, start, max(at, start + 1))
            if end and end - start <= limit:
                self._leave(end, kind, out)
                start = end
            elif len(self._text) - start > limit:
                end = start + (floor(self._text[start : start + limit + 1], limit) or limit)
                self._leave(end, kind, out)
                self._owed = 0
                # What follows a forced cut is judged as if nothing had been before it.
                self._drop(end)
                start = 0
                at = 0
            else:
                break
        if start:
            self._drop(start)

    def _pay(self, kind: type[Text], out: list[Event]) -> None:
        """Let the last cluster of the first text leave, if it is whole now."""
        end = after(self._text, self._owed)
        if end == len(self._text):
            self._owed = end
        else:
            self._owed = 0
            if end <= self._limit:
                self._leave(end, kind, out)

    def _drop(self, end: int) -> None:
        self._text = self._text[end:]
        self._sent -= end
        if self._owed:
            self._owed -= end
