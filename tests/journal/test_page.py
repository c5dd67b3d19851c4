"""Packed records read as they were written, and what they are said to take is what they take."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.events import Batch, Delta, Done, Event, Reasoning, Refusal, Start, Text, ToolCall
from app.journal import Bounds
from app.journal.memory import MemoryJournal, MemoryLog
from app.journal.page import PAGE, Page, keep, pack
from app.request import StreamInfo

pytestmark = pytest.mark.anyio

BOUNDS = Bounds(stream=1 << 30, total=1 << 31, ended=10, seconds=60)
CHARACTERS = st.text(st.characters(exclude_categories=()), max_size=9)  # halves of surrogate pairs, too
RUNS = st.lists(
    st.tuples(
        st.sampled_from([Delta, Reasoning, Refusal]), st.lists(CHARACTERS, min_size=1, max_size=4), st.integers(1, 70)
    ),
    max_size=6,
)


async def written(batches: list[list[Event]]) -> tuple[MemoryJournal, MemoryLog]:
    journal = MemoryJournal(BOUNDS)
    log = await journal.create("s", StreamInfo("none"))
    assert isinstance(log, MemoryLog)
    for batch in batches:
        log.append(batch)
    return journal, log


@given(RUNS, st.integers(1, 200), st.lists(st.tuples(st.integers(0, 500), st.integers(0, 200)), max_size=5))
@settings(max_examples=60)
async def test_any_part_reads_as_it_was_written(
    runs: list[tuple[type[Text], list[str], int]], cut: int, parts: list[tuple[int, int]]
) -> None:
    """Whatever came, in whatever batches: each stretch of records is the one that was appended."""
    events: list[Event] = [kind(text) for kind, texts, times in runs for text in texts * times]
    journal, log = await written([events[at : at + cut] for at in range(0, len(events), cut)])
    assert log.last == len(events)
    assert log.records(0, log.last) == events
    for after, count in parts:
        assert log.records(after, min(after + count, log.last)) == events[after : after + count]
        batch = log.pending(after)
        assert (batch is None) == (after >= len(events))
        if batch is not None:
            assert batch.first == after + 1
            assert list(batch.events) == events[after : batch.last]
    journal.close()


async def test_one_by_one() -> None:
    """Deltas that come alone are packed as those in batches are, and a follower is told their numbers."""
    journal, log = await written([])
    seen: list[tuple[int, Event]] = []

    def see(batch: Batch | None) -> None:
        assert batch is not None
        seen.extend(enumerate(batch.events, batch.first))

    log.follow(see)
    events = [Delta(f"{number} é") for number in range(3 * PAGE + 5)]
    for event in events:
        log.append([event])
    assert seen == list(enumerate(events, 1))
    assert log.records(0, log.last) == events
    journal.close()


def test_what_is_packed() -> None:
    """Pieces of one kind are; mixed kinds, other events, and long texts stay as they are."""
    assert isinstance(pack(keep([Delta("a")] * PAGE)), Page)
    assert isinstance(pack(keep([Reasoning("a")] * PAGE)), Page)
    mixed: list[list[Event]] = [
        [Delta("a"), Reasoning("a")],
        [ToolCall(0, "", "", "{")] * PAGE,
        [Delta("a"), Start("m", 1)],
        [Delta("a" * 1000)] * PAGE,
    ]
    for others in mixed:
        assert pack(keep(others)) is None


async def test_the_account_is_what_is_taken() -> None:
    """2,000 pieces of four characters take 20 bytes each, and that is what is counted, by the memory allocator."""
    journal, log = await written([])
    texts = [f"{number:04}" for number in range(2000)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(2000):
            log.append((Delta(texts[number][:3] + "x"),))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.7 * taken < log.size < 1.5 * taken
    assert log.size < 20 * 2000
    log.append((Done("stop"),))
    assert journal.size == log.size
    journal.drop(log)
    assert journal.size == 0
    journal.close()
