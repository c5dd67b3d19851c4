"""Positions: each event of each dialect has one, and a reader that comes back with it gets what it lacks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events import Delta, Done, Event, EventId, Logprobs
from app.wire import Reading, dialects
from tests.wire.answers import (
    BROKEN,
    ENDS,
    EVERYTHING,
    FOLDS,
    OF_RESPONSES,
    STREAM_ID,
    STREAMS,
    batches,
    blocks_of,
    encoded,
    rest,
)

pytestmark = pytest.mark.no_cover  # thousands of cuts, through lines that the dialects' own tests cover

DIALECTS = sorted(FOLDS)
SIZES = st.lists(st.integers(1, 6), max_size=4)


def reading(merge_after: int = 1000) -> Reading:
    return Reading(STREAM_ID, merge_after=merge_after, include_usage=True)


def resumed(dialect: str, events: Sequence[Event], position: EventId, sizes: Sequence[int] = ()) -> bytes:
    """Return what a reader gets that comes back with *position*, as the endpoints do it."""
    encode = dialects()[dialect](reading(merge_after=3))
    known = position.seq - 1 if position.place else position.seq
    if encode.stateful:
        for batch in batches(events[:known], sizes):
            encode.skip(batch)
    return rest(encode, batches(events[known:], sizes, known + 1), position)


def test_every_dialect_is_tried() -> None:
    """These tests know all dialects."""
    assert set(DIALECTS) == set(dialects())


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_a_cut_at_every_event(dialect: str, end: Event) -> None:
    """What comes before a cut and after it are the uncut bytes, wherever it is; ids only grow, and none comes twice."""
    events = [*EVERYTHING, Delta("a"), *OF_RESPONSES, Delta("b"), *OF_RESPONSES, end]
    whole = encoded(dialects()[dialect](reading()), events)
    blocks = [b"%s\n\n" % block for block in whole.split(b"\n\n")[:-1]]
    ids = [EventId.parse(block["id"]) for block in blocks_of(whole)]
    assert [(one.seq, one.place or 1e9) for one in ids] == sorted({(one.seq, one.place or 1e9) for one in ids})
    assert ids[-1] == EventId(STREAM_ID, len(events))
    retry = b"retry: 2000\n" if dialect == "events" else b""
    for at, position in enumerate(ids, 1):
        rest = b"".join(blocks[at:])
        assert resumed(dialect, events, position) == (rest and retry + rest)


@pytest.mark.parametrize("dialect", DIALECTS)
@given(STREAMS, SIZES, SIZES, st.sampled_from([2, 3, 1000]))
def test_any_cut_of_any_stream(
    dialect: str, events: list[Event], before: list[int], later: list[int], merge_after: int
) -> None:
    """Whatever the stream, and however its records came together for the reader before the cut and after it."""
    fold = FOLDS[dialect]
    whole = fold(blocks_of(encoded(dialects()[dialect](reading()), events)))
    blocks = blocks_of(encoded(dialects()[dialect](reading(merge_after)), events, before))
    assert fold(blocks) == whole
    for at, block in enumerate(blocks, 1):
        rest = blocks_of(resumed(dialect, events, EventId.parse(block["id"]), later))
        assert fold([*blocks[:at], *rest]) == whole


@pytest.mark.parametrize("dialect", ["openai", "ai-sdk"])
def test_a_record_without_an_event(dialect: str) -> None:
    """A record that is no event, or one with others, has no position of its own."""
    events: list[Event] = [*EVERYTHING[:1], Delta("a"), Logprobs([{"token": "a"}]), Delta("b"), Done("stop")]
    ids = [block["id"] for block in blocks_of(encoded(dialects()[dialect](reading()), events, [5]))]
    assert f"{STREAM_ID}-{3 if dialect == 'ai-sdk' else 2}" not in ids


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_place_that_another_dialect_has(dialect: str) -> None:
    """A position within a record that has fewer events here stands before the last of them: nothing is lost."""
    events = [*EVERYTHING, BROKEN]
    for number in range(1, len(events) + 1):
        rest = blocks_of(resumed(dialect, events, EventId(STREAM_ID, number, 999)))
        own = [
            block
            for block in blocks_of(encoded(dialects()[dialect](reading()), events))
            if block["id"] == f"{STREAM_ID}-{number}"
        ]
        assert [block for block in rest if block["id"] == f"{STREAM_ID}-{number}"][:1] == [
            {**block, **({"retry": "2000"} if dialect == "events" else {})} for block in own
        ]


@pytest.mark.parametrize(
    "text", ["S-1", f"{STREAM_ID}-1.0", f"{STREAM_ID}-1.", f"{STREAM_ID}-1.01", f"{STREAM_ID}-1.1.1", f"{STREAM_ID}-.1"]
)
def test_what_is_no_position(text: str) -> None:
    """Only what the service sends is a position."""
    with pytest.raises(ValueError):
        EventId.parse(text)


@pytest.mark.parametrize("position", [EventId(STREAM_ID, 1), EventId(STREAM_ID, 12, 3)])
def test_positions_print_and_parse(position: EventId) -> None:
    """A position is what it prints."""
    assert EventId.parse(str(position)) == position
