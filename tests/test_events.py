"""What can be done with events, whichever they are."""

from __future__ import annotations

from app.events import Delta, Event, Logprobs, Reasoning, ToolCall, merged


def test_neighbours_are_merged() -> None:
    """Neighbouring texts of one kind become one text with the number of the last; everything else stays, in order."""
    call = ToolCall(0, "c", "f", "{}")
    events: list[Event] = [Reasoning("x"), Reasoning("y"), Delta("a"), call, call, Delta("b"), Logprobs(), Delta("c")]
    assert list(merged(events, 3)) == [
        (4, Reasoning("xy")),
        (5, Delta("a")),
        (6, call),
        (7, call),
        (8, Delta("b")),
        (9, Logprobs()),
        (10, Delta("c")),
    ]
