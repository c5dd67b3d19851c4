"""Dividing large batches: nothing is lost, nothing is large, and what belongs together stays together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from app.events import TEXT, Annotation, Delta, Event, Extra, Logprobs, Reasoning, ToolCall
from app.rechunk import SLICE, SLICE_EVENTS, create, slices
from tests.rechunk.test_contract import BATCHES, HOLDING, PASSING, joined

pytestmark = pytest.mark.no_cover  # thousands of texts, through lines that the cuts' own tests cover

LONG: list[Event] = [
    Delta("word " * SLICE),
    Delta("👩‍👧" * SLICE),
    Delta("\u0301" * 3 * SLICE),  # one cluster
    Reasoning("x" * (SLICE + 1)),
    ToolCall(1, "id", "name", '{"a":"' + "b" * 3 * SLICE, "custom", {"signature": "s"}),
]
RIDERS: list[Event] = [Logprobs([{"token": "a"}]), Annotation([{}]), Extra({"a": 1})]


def arguments(events: Sequence[Event]) -> str:
    return "".join([event.arguments for event in events if isinstance(event, ToolCall)])


@given(
    st.lists(st.one_of(st.sampled_from([*LONG, *RIDERS]), st.builds(Delta, st.text(min_size=1))), max_size=8),
    st.integers(1, 3),
)
def test_whole(events: list[Event], times: int) -> None:
    """Put together, the slices are the batch; each is bounded, and all but the last say that more follows."""
    found = list(slices(events * times))
    assert [more for _, more in found] == [True] * (len(found) - 1) + [False]
    flat = [event for batch, _ in found for event in batch]
    plain = [event for event in flat if not isinstance(event, ToolCall)]
    assert joined(plain) == joined([event for event in events * times if not isinstance(event, ToolCall)])
    assert arguments(flat) == arguments(events * times)
    for batch, _ in found:
        assert sum(len(event.text) for event in batch if isinstance(event, TEXT)) <= SLICE
        assert len(arguments(batch)) <= SLICE


def test_many_events() -> None:
    """A slice has a bounded number of events, too."""
    found = [batch for batch, _ in slices([Delta("a")] * (2 * SLICE_EVENTS + 1))]
    assert [len(batch) for batch in found] == [SLICE_EVENTS, SLICE_EVENTS, 1]


def test_riders() -> None:
    """What is about an event is in its slice, however full that is."""
    text = Delta("x" * SLICE)
    batch: list[Event] = [text, *RIDERS]
    assert [found for found, _ in slices(batch * 2)] == [batch] * 2


def test_a_call() -> None:
    """The first piece of a call has its id, its name and its other fields; all have its index and its type."""
    call = LONG[-1]
    assert isinstance(call, ToolCall)
    first, *rest = [event for batch, _ in slices([call]) for event in batch]
    assert first == ToolCall(1, "id", "name", call.arguments[:SLICE], "custom", {"signature": "s"})
    assert {
        (piece.index, piece.id, piece.name, piece.type, piece.extra) for piece in rest if isinstance(piece, ToolCall)
    } == {(1, "", "", "custom", None)}


def test_clusters() -> None:
    """A text is divided between grapheme clusters, unless one is longer than a slice."""
    pieces = [event for batch, _ in slices([Delta("👩‍👧" * SLICE)]) for event in batch]
    assert len(pieces) > 2
    for piece in pieces:
        assert isinstance(piece, Delta)
        assert regex.fullmatch(r"(?:👩‍👧)+", piece.text)


@pytest.mark.parametrize("spec", HOLDING)
@settings(max_examples=60)
@given(batches=BATCHES, size=st.integers(1, 3))
def test_the_cuts_do_not_know(spec: str, batches: list[list[Event]], size: int) -> None:
    """A batch that is fed in slices leaves in the same pieces, wherever the slices end."""
    whole = create(spec)
    sliced = create(spec)
    for batch in batches:
        expected = [*whole.feed(batch)]
        parts = [divided[at : at + size] for divided in [_divided(batch)] for at in range(0, len(divided), size)]
        found: list[Event] = []
        for number, part in enumerate(parts, 1):
            found += sliced.feed(part, more=number < len(parts))
        assert found == expected
        assert sliced.held == whole.held
    assert sliced.flush() == whole.flush()


@pytest.mark.parametrize("spec", PASSING)
@given(batch=BATCHES.map(lambda batches: [event for batch in batches for event in batch]))
def test_what_does_not_cut(spec: str, batch: list[Event]) -> None:
    """Where nothing is cut, a slice leaves as it is: the text is the same."""
    rechunker = create(spec)
    found = [event for part, more in slices(batch) for event in rechunker.feed(part, more=more)]
    assert joined(found) == joined(batch)


def _divided(batch: list[Event]) -> list[Event]:
    """Return *batch* with each text in pieces of one character."""
    found: list[Event] = []
    for event in batch:
        found += [type(event)(letter) for letter in event.text] if isinstance(event, TEXT) else [event]
    return found
