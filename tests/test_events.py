"""What can be done with events, whichever they are."""

from __future__ import annotations

from app.events import Annotation, Delta, Event, Extra, Logprobs, Media, PlainReasoning, Reasoning, ToolCall, merged


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


def test_what_parts_texts() -> None:
    """Reasoning under the one name and under the other stay apart, and so do texts with anything between them."""
    beside: list[Event] = [Annotation([{}]), Media("image", "image/png", "u"), Extra(delta={"a": 1})]
    events: list[Event] = [Reasoning("a"), PlainReasoning("b"), PlainReasoning("c")]
    for event in beside:
        events += (Delta("x"), event)
    found = [event for _, event in merged(events)]
    assert found == [Reasoning("a"), PlainReasoning("bc"), *events[3:]]
