"""What can be done with events, and the ids that they have."""

from __future__ import annotations

import pytest

from app.events import (
    Annotation,
    Delta,
    Event,
    EventId,
    Extra,
    Logprobs,
    Media,
    PlainReasoning,
    Reasoning,
    ToolCall,
    merged,
    new_stream_id,
)


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


STREAM = "8c1mB8dJ0SxK9c1vX2yq3A"


@pytest.mark.parametrize(
    ("text", "event_id"),
    [
        (f"{STREAM}-1", EventId(STREAM, 1)),
        (f"{STREAM}-999999999999", EventId(STREAM, 999_999_999_999)),
        (f"{STREAM}-7.2", EventId(STREAM, 7, 2)),
    ],
)
def test_an_event_id(text: str, event_id: EventId) -> None:
    """An event id is the stream's id and a record's number, and the event's place if the record becomes several."""
    assert EventId.parse(text) == event_id
    assert str(event_id) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        STREAM,
        f"{STREAM}-",
        f"{STREAM}-0",
        f"{STREAM}-01",
        f"{STREAM}--1",
        f"{STREAM}-1000000000000",
        f"{STREAM}-1.",
        f"{STREAM}-1.0",
        f"{STREAM}-1.1000000",
        f"{STREAM}-1\n",
        f"{STREAM}-١",
        f"{STREAM[:-1]}-1",
        f"{STREAM}a-1",
    ],
)
def test_no_event_id(text: str) -> None:
    """What this service cannot have printed is refused."""
    with pytest.raises(ValueError, match="not an event id"):
        EventId.parse(text)


def test_stream_ids() -> None:
    """Each stream's id is new, and fits into an event's id."""
    ids = {new_stream_id() for _ in range(100)}
    assert len(ids) == 100
    for stream_id in ids:
        assert EventId.parse(str(EventId(stream_id, 1))).stream_id == stream_id
