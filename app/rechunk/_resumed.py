"""Re-chunking for a stream that another process has begun, and of which the log has some already.

The upstream's answer is read again from its start and cut as before, and what the log has is left out of what comes of
that: of each kind of text so many characters, of each tool call so much of its name and its arguments, and every other
event as often as it is there.

To keep with the log how far the upstream was read would be no simpler. That position may be within an event whose text
was cut, would have to agree with the log after any kill, and would not do: what an event means depends on those before
it. Here the log alone says what it has, whatever a kill has taken of its tail. A cut by time is not made again as it
was, and need not be, since only its text counts. The log is in the upstream's order, so what it has of each kind is
what that kind begins with.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from app.errors import ProducerLost
from app.events import TEXT, Event, Start, Text, ToolCall, values
from app.rechunk._rechunker import Rechunker


class _Pieces:
    """A text that came in pieces, and how far it was read again."""

    __slots__ = ("_at", "_pieces", "_text")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._text = ""
        self._at = 0

    def add(self, piece: str) -> None:
        self._pieces.append(piece)

    def news(self, piece: str) -> str:
        """Return what of the next *piece* is not known. Raises ProducerLost if it differs from what is."""
        if self._pieces:
            self._text += "".join(self._pieces)
            self._pieces.clear()
        known = self._text[self._at : self._at + len(piece)]
        if not piece.startswith(known):
            raise ProducerLost
        self._at += len(known)
        return piece[len(known) :]


class _Call:
    """What is known of a tool call."""

    __slots__ = ("arguments", "extra", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = _Pieces()
        self.arguments = _Pieces()
        self.extra: dict[str, object] = {}

    def add(self, piece: ToolCall) -> None:
        self.id = self.id or piece.id
        self.name.add(piece.name)
        self.arguments.add(piece.arguments)
        self.extra |= piece.extra or {}

    def news(self, piece: ToolCall) -> ToolCall | None:
        """Return what of the next *piece* is not known, if there is anything. Raises ProducerLost."""
        if self.id and piece.id and self.id != piece.id:
            raise ProducerLost
        extra = {name: value for name, value in (piece.extra or {}).items() if self.extra.get(name) != value}
        id = "" if self.id else piece.id
        name, arguments = self.name.news(piece.name), self.arguments.news(piece.arguments)
        if not (id or name or arguments or extra):
            return None
        return replace(piece, id=id, name=name, arguments=arguments, extra=extra or None)


class Resumed(Rechunker):
    """Cuts as *rechunker* does, and leaves out what it was told is `known`.

    `feed` and `flush` raise ProducerLost if what comes differs from what is known: it is not the same answer.
    """

    __slots__ = ("_calls", "_differs", "_firsts", "_others", "_rechunker", "_texts", "answered", "max_delay", "pause")

    def __init__(self, rechunker: Rechunker) -> None:
        self.max_delay = rechunker.max_delay
        self.pause = rechunker.pause
        self.answered = False  # whether anything of an answer is known
        self._rechunker = rechunker
        self._texts: dict[type[Text], _Pieces] = {}
        self._firsts: dict[type[Event], int] = {}  # the length of the first text of each kind that did not come again
        self._calls: dict[int, _Call] = {}
        self._others: Counter[str] = Counter()
        self._differs = False

    @property
    def held(self) -> bool:  # type: ignore[override]  # an attribute of the others, which set it
        """See `Rechunker`."""
        return self._rechunker.held

    def known(self, events: Iterable[Event]) -> None:
        """Take note of *events* that the log has, in their order."""
        for event in events:
            if isinstance(event, Start):
                continue
            self.answered = True
            if isinstance(event, TEXT):
                self._texts.setdefault(type(event), _Pieces()).add(event.text)
                self._firsts.setdefault(type(event), len(event.text))
            elif isinstance(event, ToolCall):
                self._calls.setdefault(event.index, _Call()).add(event)
            else:
                self._others[_written(event)] += 1

    def feed(self, events: Sequence[Event], *, more: bool = False) -> Sequence[Event]:
        for at, event in enumerate(events if self._firsts else ()):
            first = self._firsts.pop(type(event), 0)
            if first and isinstance(event, TEXT):
                # The first text of a kind is not held back. It is what came first then, and not all that comes now.
                begun = [*events[:at], replace(event, text=event.text[:first])]
                rest = [replace(event, text=event.text[first:]), *events[at + 1 :]]
                return [*self._news(partial(self._rechunker.feed, begun)), *self.feed(rest, more=more)]
        return self._news(partial(self._rechunker.feed, events, more=more))

    def flush(self) -> Sequence[Event]:
        return self._news(self._rechunker.flush)

    def _news(self, cut: Callable[[], Sequence[Event]]) -> Sequence[Event]:
        if self._differs:
            return ()
        try:
            return [news for event in cut() if (news := self._news_of(event)) is not None]
        except ProducerLost:
            self._differs = True
            raise

    def _news_of(self, event: Event) -> Event | None:
        if isinstance(event, TEXT):
            known = self._texts.get(type(event))
            if known is None:
                return event
            text = known.news(event.text)
            return replace(event, text=text) if text else None
        if isinstance(event, ToolCall):
            call = self._calls.get(event.index)
            return event if call is None else call.news(event)
        if not self._others:
            return event
        written = _written(event)
        if not self._others[written]:
            return event
        self._others[written] -= 1
        return None


def _written(event: Event) -> str:
    """Return a text that equal events share; they may have come through JSON."""
    return json.dumps([type(event).__name__, *values(event)])
