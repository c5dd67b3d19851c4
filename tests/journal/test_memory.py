"""The memory journal: one writer, many cursors, nothing lost between history and live."""

from __future__ import annotations

import asyncio
import gc
import math
import sys
import weakref
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from app.errors import Overloaded, StreamTooLarge, UnknownStream
from app.events import Annotation, Batch, Delta, Done, Event, Extra, Failure, Logprobs, Media, ToolCall
from app.journal import Bounds
from app.journal.memory import MemoryJournal, MemoryLog
from app.request import StreamInfo
from tests.waiting import until

pytestmark = pytest.mark.anyio

INFO = StreamInfo("none")
ROOMY = Bounds(stream=1 << 20, total=1 << 30, ended=100, seconds=3600)


async def collected(journal: MemoryJournal, after: int = 0) -> list[Event]:
    found: list[Event] = []
    expected = after + 1
    async for batch in (await journal.open("s")).read(after):
        assert batch.first == expected
        expected = batch.last + 1
        found += batch.events
    return found


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal(ROOMY)


async def test_live_readers(journal: MemoryJournal) -> None:
    """Readers that wait at the end get every batch, all of them, in order, and stop after the terminal record."""
    log = await journal.create("s", INFO)
    readers = [asyncio.create_task(collected(journal)) for _ in range(3)]
    expected: list[Event] = []
    for number in range(5):
        await asyncio.sleep(0)
        events = [Delta(f"{number}a"), Delta(f"{number}b")]
        log.append(events)
        expected += events
    log.append([Done("stop")])
    for reader in readers:
        assert await reader == [*expected, Done("stop")]


async def test_every_position(journal: MemoryJournal) -> None:
    """A cursor opened after record k gives exactly the rest, for every k."""
    log = await journal.create("s", INFO)
    events: list[Event] = [*map(Delta, "abcdef"), Done("stop")]
    log.append(events)
    for after in range(len(events) + 1):
        assert await collected(journal, after) == events[after:]


async def test_replay_comes_in_few_bounded_batches(journal: MemoryJournal) -> None:
    """A long history is read in batches that are large, but bounded in records and in bytes."""
    log = await journal.create("s", INFO)
    log.append([Delta("x")] * 5000)
    log.append([Delta("y" * 40_000)] * 4)
    log.append([Done("stop")])
    batches: list[Batch] = [batch async for batch in (await journal.open("s")).read()]
    assert len(batches) < 20
    assert all(len(batch.events) <= 1024 for batch in batches)
    assert all(sum(len(e.text) for e in batch.events if isinstance(e, Delta)) < 150_000 for batch in batches)


async def test_other_fields_stay_with_what_they_came_with(journal: MemoryJournal) -> None:
    """No batch of a replay begins with an `Extra`: some clients read it as one with the record before it."""
    log = await journal.create("s", INFO)
    log.append([event for number in range(600) for event in (Delta(str(number)), Extra({}, {}, {"a": number}))][1:])
    log.append([Done("stop")])
    batches = [batch async for batch in (await journal.open("s")).read()]
    assert len(batches) > 2
    assert not [batch for batch in batches[1:] if isinstance(batch.events[0], Extra)]
    assert sum(len(batch.events) for batch in batches) == 1200


async def test_a_reader_that_leaves_costs_nothing(journal: MemoryJournal) -> None:
    """A reader that is cancelled while it waits leaves nothing behind in the log."""
    log = await journal.create("s", INFO)
    for _ in range(100):
        async with aclosing(log.read()) as cursor:
            reader = asyncio.ensure_future(anext(cursor))
            await asyncio.sleep(0)
            reader.cancel()
            await asyncio.wait([reader])
    assert repr(log) == "<MemoryLog 0 records, 0 bytes, 0 reading>"


async def test_nothing_follows_the_terminal_record(journal: MemoryJournal) -> None:
    """Appending to an ended stream is a programming error."""
    log = await journal.create("s", INFO)
    log.append([Done("stop")])
    with pytest.raises(RuntimeError):
        log.append([Delta("x")])


async def test_bound(journal: MemoryJournal) -> None:
    """A batch that would outgrow the bound is refused whole; the terminal record is taken all the same."""
    log = await journal.create("s", INFO)
    log.append([Delta("x")])
    with pytest.raises(StreamTooLarge):
        log.append([Delta("y"), Delta("z" * (1 << 20))])
    log.append([Done("stop")])
    assert await collected(journal) == [Delta("x"), Done("stop")]


async def test_unknown(journal: MemoryJournal) -> None:
    """A stream that never was is refused."""
    with pytest.raises(UnknownStream):
        await journal.open("s")


async def ended(journal: MemoryJournal, stream_id: str, text: str = "x") -> None:
    log = await journal.create(stream_id, INFO)
    log.append([Delta(text)])
    log.append([Done("stop")])


async def test_count(evictions: list[tuple[str, str]]) -> None:
    """More ended streams than are kept push out those that ended first; live ones stay."""
    journal = MemoryJournal(roomy_but(ended=2), lambda *eviction: evictions.append(eviction))
    await journal.create("live", INFO)
    for name in "abc":
        await ended(journal, name)
    assert evictions == [("a", "count")]
    with pytest.raises(UnknownStream):
        await journal.open("a")
    for name in ("b", "c", "live"):
        await journal.open(name)


async def test_memory(evictions: list[tuple[str, str]]) -> None:
    """When all logs together outgrow their bound, ended streams go first; then what would still grow is refused."""
    journal = MemoryJournal(roomy_but(total=10_000), lambda *eviction: evictions.append(eviction))
    await ended(journal, "a", "x" * 4000)
    await ended(journal, "b", "x" * 2000)
    live = await journal.create("live", INFO)
    live.append([Delta("y" * 7000)])
    assert evictions == [("a", "memory")]
    with pytest.raises(Overloaded):
        live.append([Delta("y" * 5000)])
    assert evictions == [("a", "memory"), ("b", "memory")]
    live.append([Delta("y" * 2700)])
    live.append([Done("stop")])
    assert journal.size > 9_000
    await journal.create("next", INFO)


async def test_full() -> None:
    """With no ended stream to let go, a new one is refused."""
    journal = MemoryJournal(roomy_but(total=1000))
    (await journal.create("live", INFO)).append([Delta("y" * 500)])
    (await journal.create("too", INFO)).append([Failure("m", "t", "c", False, 500)])
    (await journal.create("live2", INFO)).append([Delta("y" * 200)])
    with pytest.raises(Overloaded):
        (await journal.create("live3", INFO)).append([Delta("y" * 700)])


async def test_time(evictions: list[tuple[str, str]]) -> None:
    """An ended stream is forgotten when its time is up, and its memory accounted for."""
    gone = asyncio.Event()

    def evicted(stream_id: str, reason: str) -> None:
        evictions.append((stream_id, reason))
        if len(evictions) == 2:
            gone.set()

    journal = MemoryJournal(roomy_but(seconds=0.02), evicted)
    await ended(journal, "a")
    await ended(journal, "b")
    await journal.open("a")
    async with asyncio.timeout(30):
        await gone.wait()
    assert evictions == [("a", "time"), ("b", "time")]
    assert repr(journal) == "<MemoryJournal 0 streams, 0 ended, 0 bytes>"


async def test_a_time_of_its_own(evictions: list[tuple[str, str]]) -> None:
    """A stream that is to be kept for less time goes before the others, unless it was dropped already."""
    journal = MemoryJournal(roomy_but(), lambda *eviction: evictions.append(eviction))
    await ended(journal, "usual")
    for stream_id in ("short", "removed"):
        (await journal.create(stream_id, INFO._replace(keep=0.01))).append([Done("stop")])
    await journal.remove("removed")
    await until(lambda: len(evictions) == 1)
    assert (evictions, len(journal)) == ([("short", "time")], 1)
    await ended(journal, "late")
    (await journal.create("closed", INFO._replace(keep=0.01))).append([Done("stop")])
    journal.close()
    await asyncio.sleep(0.03)
    assert len(evictions) == 1


@pytest.mark.parametrize("keep", [60, math.inf])
@pytest.mark.parametrize("way", ["removed", "evicted", "closed"])
async def test_what_is_dropped_takes_no_memory(way: str, keep: float) -> None:
    """Nothing holds a stream that is no longer kept, and no reader reads: no timer either, until its time is up."""
    journal = MemoryJournal(roomy_but(ended=1))
    log = Watched(journal, "s", INFO._replace(keep=keep))
    journal.adopt(log)
    log.append([Done("stop")])
    gone = weakref.ref(log)
    del log
    if way == "removed":
        await journal.remove("s")
    elif way == "evicted":
        await ended(journal, "other")
    else:
        journal.close()
    gc.collect()
    assert gone() is None


async def test_what_is_said_of_the_request_counts() -> None:
    """It takes memory as the records do."""
    journal = MemoryJournal(roomy_but())
    await journal.create("s", INFO._replace(asked="x" * 1000))
    assert journal.size == sys.getsizeof("x" * 1000)
    await journal.remove("s")
    assert journal.size == 0


async def test_an_evicted_stream_is_read_to_its_end() -> None:
    """A reader of an evicted stream reads on, and the stream's memory counts until then."""
    journal = MemoryJournal(roomy_but(ended=0))
    log = await journal.create("s", INFO)
    log.append([Delta("a")])
    cursor = log.read()
    assert (await anext(cursor)).events == [Delta("a")]
    log.append([Done("stop")])
    with pytest.raises(UnknownStream):
        await journal.open("s")
    assert journal.size > 0
    assert (await anext(cursor)).events == [Done("stop")]
    await cursor.aclose()
    assert journal.size == 0


@pytest.fixture
def evictions() -> list[tuple[str, str]]:
    return []


def roomy_but(**bounds: Any) -> Bounds:
    return replace(ROOMY, **bounds)


TOKEN = {"token": "x", "logprob": -0.25, "bytes": [120], "top_logprobs": [{"token": "y" * 100, "logprob": -1.0}]}


@pytest.mark.parametrize(
    "event",
    [
        Logprobs([TOKEN] * 50),
        Annotation([TOKEN] * 50),
        Annotation((), (), [TOKEN] * 50),
        Media("file", "text/plain", "u", "content", {"x": [TOKEN] * 50}),
        Extra({}, {"x": {"y": [TOKEN] * 50}}),
        ToolCall(0, "c", "f", "", "function", {"x": [TOKEN] * 50}),
    ],
)
async def test_the_size_of_objects(event: Event) -> None:
    """What came as objects counts with all that is in them, and is refused beyond the bound of a stream."""
    journal = MemoryJournal(Bounds(1 << 16, 1 << 20, 8, 60.0))
    writer = await journal.create("s", StreamInfo("auto"))
    writer.append((event,))
    assert journal.size > 50 * (sys.getsizeof(TOKEN) + sys.getsizeof("y" * 100))
    with pytest.raises(StreamTooLarge):
        writer.append((event,) * 9)
    journal.close()


def info_of(owner: str) -> StreamInfo:
    return StreamInfo("none", owner)


async def owned(journal: MemoryJournal, owner: str, *names: str, text: str = "x" * 1000) -> None:
    """Keep ended streams of *owner*'s."""
    for name in names:
        log = await journal.create(name, info_of(owner))
        log.append([Delta(text), Done("stop")])


async def test_the_largest_loses_first(evictions: list[tuple[str, str]]) -> None:
    """Where memory is short, the owner that has most loses its stream that ended first, and the others lose none."""
    journal = MemoryJournal(roomy_but(total=30_000), lambda *eviction: evictions.append(eviction))
    await owned(journal, "ann", "a1", "a2")
    await owned(journal, "bob", *(f"b{number}" for number in range(100)))
    await owned(journal, "cid", "c1")
    assert evictions == [(f"b{number}", "memory") for number in range(len(evictions))]
    for name in ("a1", "a2", "c1"):
        await journal.open(name)


async def test_an_owner_with_many_streams(evictions: list[tuple[str, str]]) -> None:
    """Where there are too many streams, the owner that has the most of them loses one, however small they are."""
    journal = MemoryJournal(roomy_but(ended=10), lambda *eviction: evictions.append(eviction))
    await owned(journal, "ann", "a1", "a2", text="x" * 10_000)
    await owned(journal, "bob", *(f"b{number}" for number in range(20)), text="")
    assert evictions == [(f"b{number}", "count") for number in range(12)]


async def test_the_bound_of_an_owner(evictions: list[tuple[str, str]]) -> None:
    """An owner's streams have a bound of their own: ended ones make room, and then what would grow is refused."""
    journal = MemoryJournal(roomy_but(owner=5_000), lambda *eviction: evictions.append(eviction))
    await owned(journal, "ann", "a1", "a2", "a3")
    log = await journal.create("live", info_of("ann"))
    log.append([Delta("x" * 3000)])
    assert evictions == [("a1", "memory"), ("a2", "memory")]
    with pytest.raises(Overloaded):
        log.append([Delta("x" * 3000)])
    log.append([Delta("x" * 1600)])
    with pytest.raises(Overloaded):
        await journal.create("more", info_of("ann"))
    log.append([Done("stop")])
    await journal.create("more", info_of("ann"))
    await owned(journal, "", *map(str, range(50)))
    assert len(evictions) == 4  # callers without credentials are many, and have no such bound


class Watched(MemoryLog):
    """A log of which a test sees when it is gone."""

    __slots__ = ("__weakref__",)


async def test_what_an_owner_has_is_counted() -> None:
    """What each owner has adds up to what there is, also while evicted streams are read; then no owner is known."""
    journal = MemoryJournal(roomy_but(ended=1))
    await owned(journal, "ann", "a1")
    first = await journal.open("a1")
    cursor = first.read()
    await anext(cursor)
    await owned(journal, "ann", "a2")
    await owned(journal, "bob", "b1")
    assert sum(holder.size for holder in journal._holders.values()) == journal.size > 0
    await cursor.aclose()
    assert sum(holder.size for holder in journal._holders.values()) == journal.size > 0
    del cursor, first
    journal.close()
    gc.collect()
    assert not journal._holders
