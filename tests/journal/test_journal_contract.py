"""What every journal promises, whatever its engine."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from app.errors import StreamTooLarge, UnknownStream
from app.events import (
    Annotation,
    Delta,
    Done,
    Event,
    Extra,
    Failure,
    Logprobs,
    Media,
    PlainReasoning,
    Reasoning,
    Refusal,
    Start,
    ToolCall,
)
from app.journal import Journal, Listed
from app.journal.file.journal import FileJournal
from app.journal.memory import MemoryJournal
from app.journal.redis.journal import RedisJournal
from app.request import StreamInfo
from app.usage import Usage
from tests.journal.processes import DONE, INFO, opened, read
from tests.waiting import until

pytestmark = pytest.mark.anyio

USAGE = Usage({"prompt_tokens": 3, "details": {"cached": 1, "more": [1, 2.5, None, "x"]}}, True)
EVERY: list[Event] = [
    Start("m", 1750000000, "second"),
    Delta("Hallo \u2028 \n\r\t\0 \U0001f600"),
    Reasoning("hm"),
    Refusal("no"),
    PlainReasoning("so"),
    ToolCall(1, "call_1", "f", '{"a":'),
    ToolCall(2, "call_2", "g", "x", "custom", {"extra_content": {"google": {"thought_signature": "c2ln"}}}),
    Annotation([{"type": "url_citation", "url_citation": {"url": "https://a.example"}}], ["https://b.example"], [{}]),
    Media("image", "image/png", "data:image/png;base64,eA==", "images", {"index": 0}),
    Extra({"system_fingerprint": "fp"}, {"stop_reason": 1}, {"reasoning_details": [{"data": "c2ln"}]}),
    Logprobs([{"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}], []),
    Done("other", "odd", USAGE, "m-1", 12, 345),
]


async def test_remove(journal: Journal) -> None:
    """A stream that is removed is not there any more, for its readers apart; once more does no harm."""
    writer = await journal.create("s", INFO)
    writer.append([Delta("a"), DONE])
    log = await journal.open("s")
    await until(lambda: log.ended)
    for _ in range(2):
        await journal.remove("s")
        with pytest.raises(UnknownStream):
            await journal.open("s")
    assert list(log.records(0, 2)) == [Delta("a"), DONE]


async def test_read_live(journal: Journal) -> None:
    """Many readers that wait at the end get every batch, in order, and stop after the terminal record."""
    writer = await journal.create("s", INFO)
    readers = [asyncio.create_task(opened(journal)) for _ in range(20)]
    expected: list[Event] = []
    log = await journal.open("s")
    for number in range(5):
        events: list[Event] = [Delta(f"{number}a"), Delta(f"{number}b")]
        expected += events
        async with aclosing(log.read(log.last)) as cursor:
            writer.append(events)
            assert (await anext(cursor)).events == events
    writer.append([DONE])
    assert await asyncio.gather(*readers) == [[*expected, DONE]] * 20
    assert (log.last, log.ended, log.info) == (11, True, INFO)


async def test_every_event(journal: Journal) -> None:
    """Every kind of event comes out as it went in, from every position, and numbers are dense."""
    writer = await journal.create("s", INFO)
    for event in EVERY:
        writer.append([event])
    assert await opened(journal) == EVERY
    for after in range(len(EVERY) + 1):
        assert await opened(journal, after=after) == EVERY[after:]


async def test_failure(journal: Journal) -> None:
    """A failure is as terminal as an answer, and keeps its fields."""
    failure = Failure("m", "t", "c", True, 502, "p", 1.5, USAGE)
    writer = await journal.create("s", INFO)
    writer.append([Delta("x"), failure])
    assert await opened(journal) == [Delta("x"), failure]


async def test_nothing_follows_the_end(journal: Journal) -> None:
    """Appending to an ended stream is a programming error."""
    writer = await journal.create("s", INFO)
    writer.append([DONE])
    with pytest.raises(RuntimeError):
        writer.append([Delta("x")])
    assert await opened(journal) == [DONE]


async def test_stream_too_large(journal: Journal) -> None:
    """A batch that would outgrow the bound is refused whole; the terminal record is taken all the same."""
    writer = await journal.create("s", INFO)
    writer.append([Delta("x")])
    with pytest.raises(StreamTooLarge):
        writer.append([Delta("y"), Delta("z" * (1 << 20))])
    writer.append([DONE])
    assert await opened(journal) == [Delta("x"), DONE]


async def test_a_long_log(journal: Journal) -> None:
    """Ten thousand records come out as they went in, while they are written and afterwards."""
    writer = await journal.create("s", INFO)
    reader = asyncio.create_task(opened(journal))
    expected: list[Event] = []
    for start in range(0, 10_000, 50):
        events = [Delta(f"{number} ") for number in range(start, start + 50)]
        writer.append(events)
        expected += events
        await writer.drain()
    writer.append([DONE])
    assert await reader == [*expected, DONE]
    assert await opened(journal, after=9_990) == [*expected[9_990:], DONE]


async def test_unknown(journal: Journal) -> None:
    """A stream that never was is refused."""
    with pytest.raises(UnknownStream):
        await journal.open("s")


async def test_a_reader_that_leaves(journal: Journal) -> None:
    """Readers that are cancelled while they wait do not disturb the others."""
    writer = await journal.create("s", INFO)
    log = await journal.open("s")
    leaving = [asyncio.create_task(read(log)) for _ in range(50)]
    staying = asyncio.create_task(read(log))
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    writer.append([Delta("x"), DONE])
    assert await staying == [Delta("x"), DONE]


async def test_a_read_log_is_accounted_for(journal: Journal) -> None:
    """Memory is counted as long as a log is kept or read, and not twice when it is read after its eviction."""
    assert isinstance(journal, MemoryJournal | FileJournal | RedisJournal)
    for number in range(101):
        writer = await journal.create(f"s{number}", INFO)
        if number == 0:
            first = await journal.open("s0")
        writer.append([Delta("x" * 1000), DONE])
        await opened(journal, f"s{number}")
    kept = journal.size
    assert len(await read(first)) == 2
    assert journal.size == kept
    async with aclosing(first.read()) as cursor:
        await anext(cursor)
        assert journal.size > kept


async def test_stop_of_an_unknown_stream(journal: Journal) -> None:
    """Asking for the end of an unknown stream does nothing."""
    journal.stop("s")
    with pytest.raises(UnknownStream):
        await journal.open("s")


async def test_live(journal: Journal) -> None:
    """A live stream is found by its id, with what it was created with; an ended or unknown one is not."""
    assert await journal.live("s") is None
    writer = await journal.create("s", INFO)
    assert await journal.live("s") == INFO
    writer.append([Delta("x")])
    await opened_to(journal, 1)
    assert await journal.live("s") == INFO
    writer.append([DONE])
    assert await opened(journal) == [Delta("x"), DONE]
    assert await journal.live("s") is None


async def opened_to(journal: Journal, last: int) -> None:
    """Wait until record number *last* can be read."""
    async with aclosing((await journal.open("s")).read()) as cursor:
        async for batch in cursor:
            if batch.last >= last:
                return


def made(number: int, owner: str = "ann") -> StreamInfo:
    return StreamInfo(
        "none", owner, model=f"m{number}", created=1_750_000_000_000_000 + number, metadata='{"a":"\u00e9"}'
    )


async def ids(journal: Journal, limit: int = 100, before: int | None = None, *, live: bool = False) -> list[str]:
    """Return which of the streams of "ann" are listed."""
    found = await journal.streams_of("ann", limit, before, live=live)
    return [stream.stream_id for stream in found.streams]


async def test_list(journal: Journal) -> None:
    """An owner's streams are listed, newest first, with what they were created with, their state and last record."""
    a, b, c = [await journal.create(stream_id, made(number)) for number, stream_id in enumerate("abc")]
    await journal.create("other", made(9, "bob"))
    a.append([Delta("x"), DONE])
    b.append([Delta("x"), Delta("y")])
    b.append([Delta("z"), Failure("m", "t", "c", True, 502)])
    c.append([Delta("x"), Delta("y")])
    log = await journal.open("c")
    await until(lambda: log.last == 2)
    for stream_id in "ab":
        await opened(journal, stream_id)
    listing = await journal.streams_of("ann", 100)
    expected = [Listed("c", made(2), "live", 2), Listed("b", made(1), "error", 4), Listed("a", made(0), "done", 2)]
    assert (listing.streams, listing.before) == (expected, None)
    assert await ids(journal, live=True) == ["c"]
    assert [stream.stream_id for stream in (await journal.streams_of("bob", 100)).streams] == ["other"]
    assert await journal.streams_of("eve", 100) == ([], None)


async def test_list_before_the_first_record(journal: Journal) -> None:
    """A stream is listed as soon as it is there."""
    await journal.create("s", made(0))
    assert (await journal.streams_of("ann", 1)).streams == [Listed("s", made(0), "live", 0)]


async def test_list_in_pages(journal: Journal) -> None:
    """As many as are asked for are listed, and after them the older ones; those that are live are counted alone."""
    for number in range(7):
        writer = await journal.create(f"s{number}", made(number))
        if number % 2:
            writer.append([DONE])
            await opened(journal, f"s{number}")
    found, before, pages = [], None, 0
    while pages == 0 or before is not None:
        listing = await journal.streams_of("ann", 3, before)
        found.append([stream.stream_id for stream in listing.streams])
        before = listing.before
        pages += 1
    assert found == [["s6", "s5", "s4"], ["s3", "s2", "s1"], ["s0"]]
    assert await ids(journal, 2, live=True) == ["s6", "s4"]
    before = (await journal.streams_of("ann", 2, live=True)).before
    assert await journal.streams_of("ann", 2, before, live=True) == (
        [Listed("s2", made(2), "live", 0), Listed("s0", made(0), "live", 0)],
        None,
    )


async def test_list_after_a_removal(journal: Journal) -> None:
    """What is no longer kept is not listed, whether it was live or not."""
    for number, stream_id in enumerate("abc"):
        await journal.create(stream_id, made(number))
    (await journal.create("d", made(3))).append([DONE])
    await opened(journal, "d")
    await journal.remove("d")
    await journal.remove("b")
    assert await ids(journal) == ["c", "a"]
    assert await ids(journal) == ["c", "a"]
