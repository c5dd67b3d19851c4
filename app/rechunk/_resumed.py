"""Re-chunking for a stream that another process has begun, and of which the log has some already.

The upstream's answer is read again from its start and cut as before, and what the log has is left out of what comes of
that: of each kind of text so many characters, of each tool call so much of its id, its name and its arguments, and
every other event as often as it is there.

To keep with the log how far the upstream was read would be no simpler. That position may be within an event whose text
was cut, would have to agree with the log after any kill, and would not do: what an event means depends on those before
it. Here the log alone says what it has, whatever a kill has taken of its tail. A cut by time is not made again as it
was, and need not be, since only its text counts. The log is in the upstream's order, so what it has of each kind is
what that kind begins with.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from app.errors import ProducerLost
from app.events import TEXT, Event, Start, ToolCall, values
from app.rechunk._rechunker import Rechunker


class _Known:
    """A text that the log has, in pieces, and how far it has come again."""

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

    @property
    def has_come(self) -> bool:
        """Whether all of it has come again."""
        return not self._pieces and self._at == len(self._text)


class Resumed(Rechunker):
    """Cuts as *rechunker* does, and leaves out what it was told is `known`, until all of that has come again.

    `feed`, `flush` and `finish` raise ProducerLost if what comes differs from what is known: it is another answer.
    """

    __slots__ = ("_differs", "_firsts", "_others", "_rechunker", "_texts", "answered", "held", "max_delay", "pause")

    def __init__(self, rechunker: Rechunker) -> None:
        self.held = False
        self.max_delay = rechunker.max_delay
        self.pause = rechunker.pause
        self.answered = False  # whether anything of an answer is known
        self._rechunker = rechunker
        # What has not come again.
        self._texts: dict[object, _Known] = {}
        self._firsts: dict[type[Event], int] = {}  # the length of the first text of each kind
        self._others: Counter[str] = Counter()
        self._differs = False

    def known(self, events: Iterable[Event]) -> None:
        """Take note of *events* that the log has, in their order."""
        for event in events:
            if isinstance(event, Start):
                continue
            self.answered = True
            if isinstance(event, TEXT):
                self._firsts.setdefault(type(event), len(event.text))
            elif not isinstance(event, ToolCall):
                self._others[_written(event)] += 1
            elif event.extra:
                self._others[_written_extra(event)] += 1
            for part, text in _texts_of(event):
                if text:
                    self._texts.setdefault(part, _Known()).add(text)

    def feed(self, events: Sequence[Event], *, more: bool = False) -> Sequence[Event]:
        feed = self._feed_again if self._texts or self._others else self._rechunker.feed
        out = feed(events, more=more)
        self.held = self._rechunker.held
        return out

    def flush(self) -> Sequence[Event]:
        self.held = False
        return self._news(self._rechunker.flush)

    def finish(self) -> None:
        if self._texts:
            raise ProducerLost

    def _feed_again(self, events: Sequence[Event], *, more: bool) -> Sequence[Event]:
        """Feed *events*, of which some are known."""
        for at, event in enumerate(events if self._firsts else ()):
            first = self._firsts.pop(type(event), 0)
            if first and isinstance(event, TEXT):
                # The first text of a kind is not held back. It is what came first then, and not all that comes now.
                begun = [*events[:at], replace(event, text=event.text[:first])]
                rest = [replace(event, text=event.text[first:]), *events[at + 1 :]]
                return [*self._news(partial(self._rechunker.feed, begun)), *self._feed_again(rest, more=more)]
        return self._news(partial(self._rechunker.feed, events, more=more))

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
            text = self._news_in(type(event), event.text)
            return replace(event, text=text) if text else None
        if isinstance(event, ToolCall):
            id, name, arguments = [self._news_in(part, text) for part, text in _texts_of(event)]
            extra = event.extra
            if extra and self._others and self._comes_again(_written_extra(event)):
                extra = None
            if not (id or name or arguments or extra):
                return None
            return replace(event, id=id, name=name, arguments=arguments, extra=extra)
        return None if self._others and self._comes_again(_written(event)) else event

    def _news_in(self, part: object, text: str) -> str:
        """Return what of the next *text* of a *part* is not known. Raises ProducerLost if it differs from what is."""
        known = self._texts.get(part)
        if known is None:
            return text
        news = known.news(text)
        if known.has_come:
            del self._texts[part]
        return news

    def _comes_again(self, written: str) -> bool:
        """Whether what is *written* so is known. It is known as often as the log has it."""
        if written not in self._others:
            return False
        self._others[written] -= 1
        if not self._others[written]:
            del self._others[written]
        return True


def _texts_of(event: Event) -> Iterator[tuple[object, str]]:
    """Yield the texts of *event* that may come in other pieces, each after what it is a piece of."""
    if isinstance(event, TEXT):
        yield type(event), event.text
    elif isinstance(event, ToolCall):
        yield (event.index, "id"), event.id
        yield (event.index, "name"), event.name
        yield (event.index, "arguments"), event.arguments


def _written(event: Event) -> str:
    """Return a text that equal events share; they may have come through JSON."""
    return json.dumps([type(event).__name__, *values(event)])


def _written_extra(call: ToolCall) -> str:
    """Return a text that pieces of a call share if their other fields are equal."""
    return json.dumps([call.index, call.extra])
