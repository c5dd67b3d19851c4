"""The position of an event that a client names by its number, where records become several events, one, or none."""

from __future__ import annotations

import pytest

from app.events import Delta, Event, EventId, Logprobs, Start
from app.wire.counting import Finder
from tests.wire.answers import STREAM_ID, batches

COUNTS = {Start: 3, Delta: 1, Logprobs: 0}
EVENTS: list[Event] = [Start("m", 7), Delta("a"), Logprobs(), Delta("b"), Start("m", 8)]


@pytest.mark.parametrize(
    ("wanted", "position"),
    [
        *((1, EventId(STREAM_ID, 1, 1)), (2, EventId(STREAM_ID, 1, 2)), (3, EventId(STREAM_ID, 1))),
        *((4, EventId(STREAM_ID, 2)), (5, EventId(STREAM_ID, 4)), (6, EventId(STREAM_ID, 5, 1))),
        *((8, EventId(STREAM_ID, 5)), (9, None)),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 9])
def test_a_number_is_a_position(wanted: int, position: EventId | None, size: int) -> None:
    """The position after so many events is within a record, or after it; past the last event there is none."""
    finder = Finder(STREAM_ID, wanted, lambda event: COUNTS[type(event)])
    found = [finder.feed(batch) for batch in batches(EVENTS, [size])]
    assert next((each for each in found if each), None) == position
    assert finder.fed == len(EVENTS)
