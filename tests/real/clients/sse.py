"""What the tests hold every client's transcript to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from app.events import EventId

# The wire form, to the byte: comments only between blocks, and in each block a name, one line of data and an id.
_BLOCK = re.compile(r"(?::\n)*(?:retry: (\d+)\n)?event: ([a-z_]+)\ndata: (.+)\nid: ([\w-]+)", re.ASCII)


class Event(NamedTuple):
    """One event as a client saw it."""

    id: str
    event: str
    data: str

    @property
    def seq(self) -> int:
        return EventId.parse(self.id).seq

    def json(self) -> Any:
        return json.loads(self.data)


def parse(body: bytes) -> list[Event]:
    """Parse what was read of a stream; a block that a cut left unfinished is no event."""
    events = []
    for block in body.decode(errors="replace").split("\n\n")[:-1]:
        match = _BLOCK.fullmatch(block)
        assert match is not None, block
        events.append(Event(*match.group(4, 2, 3)))
    return events


def text(events: Iterable[Event]) -> str:
    """Return the answer that *events* are pieces of."""
    return "".join(event.json()["content"] for event in events if event.event == "delta")


def check(events: Sequence[Event], *, after: int = 0, dense: bool = True) -> None:
    """Assert what holds for every transcript from number *after* to the end; *dense*: no records were joined."""
    numbers = [event.seq for event in events]
    assert len({EventId.parse(event.id).stream_id for event in events}) == 1
    if dense:
        assert numbers == list(range(after + 1, after + 1 + len(numbers)))
    else:
        assert numbers == sorted(set(numbers)), "an id came twice, or out of order"
        assert numbers[0] > after
    assert [event.event == "start" for event in events] == [after == 0] + [False] * (len(events) - 1)
    assert [event.event in ("done", "error") for event in events] == [False] * (len(events) - 1) + [True]
