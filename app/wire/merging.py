"""What a reader that is behind is spared: neighbouring texts of a kind are one text to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import cast

from app.events import TEXT, Event, Text


def joined(seq: int, events: Sequence[Event]) -> Iterator[tuple[int, Event]]:
    """Yield *events*, the first of which is number *seq*, numbered and with neighbouring texts of a kind joined.

    A joined text has the number of the last one in it.
    """
    for kind, run in groupby(events, type):
        same = list(run)
        if issubclass(kind, TEXT):
            seq += len(same)
            yield seq - 1, kind("".join([event.text for event in cast("list[Text]", same)]))
        else:
            yield from enumerate(same, seq)
            seq += len(same)
