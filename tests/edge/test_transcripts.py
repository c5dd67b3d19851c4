"""Putting answers together out of their logs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from app.edge.transcripts import response_of, transcript_of
from app.events import Delta, Done, Event, Media, Reasoning, Start
from app.journal import Bounds
from app.journal.memory import MemoryJournal, MemoryLog
from app.request import StreamInfo
from app.turns import ROOM
from app.wire.responses import Response
from app.wire.transcript import Transcript
from tests.waiting import counted_turns

pytestmark = pytest.mark.anyio

STOP = Done("stop")


async def log_of(events: Sequence[Event]) -> MemoryLog:
    log = await MemoryJournal(Bounds(1 << 30, 1 << 30, 10, 60)).create("s", StreamInfo("none"))
    if events:
        log.append(events)
    return log


@pytest.mark.parametrize("number", [0, 1, 1023, 1024, 1025, 3000])
async def test_the_same(number: int) -> None:
    """In steps, an answer is what it is in one go."""
    kinds: list[Event] = [Delta("a"), Reasoning("b"), Media("image", "", "u")]
    events: list[Event] = [Start("m", 1), *kinds * number, STOP]
    assert await transcript_of(await log_of(events[:number])) == Transcript.of(events[:number])


async def test_others_go_on() -> None:
    """A long answer takes many turns of the loop."""
    log = await log_of([*[Delta("a")] * 50_000, Media("image", "", "u"), *[Reasoning("b")] * 50_000, STOP])
    turns = asyncio.create_task(counted_turns())
    transcript = await transcript_of(log)
    turns.cancel()
    assert await turns >= 100_000 / ROOM / 2
    assert transcript == Transcript.of(log.records(0, log.last))
    assert (transcript.content, transcript.reasoning, transcript.end) == ("a" * 50_000, "b" * 50_000, STOP)


async def test_what_comes_meanwhile() -> None:
    """An answer is put together of the records that are there when that begins."""
    log = await log_of([Delta("a")] * 20_000)
    putting = asyncio.create_task(transcript_of(log))
    await asyncio.sleep(0)
    log.append([Delta("b")])
    assert (await putting).content == "a" * 20_000


@pytest.mark.parametrize("number", [0, 1, 1024, 3000])
async def test_a_response_is_the_same(number: int) -> None:
    """In steps, a response is what it is in one go."""
    kinds: list[Event] = [Delta("a"), Reasoning("b")]
    events: list[Event] = [Start("m", 1), *kinds * number, STOP]
    whole = Response("s")
    for event in events:
        whole.take(event)
    assert await response_of("s", await log_of(events)) == whole.resource
