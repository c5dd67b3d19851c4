"""Dividing a batch that is too large to be cut, appended and sent to readers in one go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.events import TEXT, Annotation, Event, Extra, Logprobs, ToolCall
from app.rechunk._clusters import floor

SLICE = 4096
"""The most characters of a slice, and so of a piece of a text or of a tool call's arguments in it."""
SLICE_EVENTS = 512
"""The most events of a slice, apart from those that stay with what they are about."""


def slices(events: Sequence[Event]) -> Iterator[tuple[list[Event], bool]]:
    """Yield *events* in slices, in order, and with each whether more of them follow.

    Texts are divided between grapheme clusters. Log probabilities, notes and what there is no word for stay in one
    slice with the event before them, because some clients read the two as one.
    """
    found: list[Event] = []
    room = SLICE
    for event in events:
        rides = isinstance(event, (Logprobs, Annotation, Extra))
        for piece, size in _pieces(event):
            if found and not rides and (size > room or len(found) >= SLICE_EVENTS):
                yield found, True
                found = []
                room = SLICE
            found.append(piece)
            room -= size
    yield found, False


def _pieces(event: Event) -> Iterator[tuple[Event, int]]:
    """Yield *event* in pieces of at most `SLICE` characters, and with each how many these are."""
    if isinstance(event, TEXT):
        text = event.text
        at = 0
        while len(text) - at > SLICE:
            end = at + (floor(text[at : at + SLICE + 1], SLICE) or SLICE)
            yield type(event)(text[at:end]), end - at
            at = end
        yield (type(event)(text[at:]) if at else event), len(text) - at
    elif isinstance(event, ToolCall) and len(event.arguments) > SLICE:
        text = event.arguments
        yield ToolCall(event.index, event.id, event.name, text[:SLICE], event.type, event.extra), SLICE
        for at in range(SLICE, len(text), SLICE):
            piece = text[at : at + SLICE]
            yield ToolCall(event.index, "", "", piece, event.type), len(piece)
    else:
        yield event, len(event.arguments) if isinstance(event, ToolCall) else 0
