"""Putting an answer together out of a log, in steps: it may have millions of records."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from app.events import Delta, Event, values
from app.journal import Log
from app.turns import turn
from app.wire.counting import Count
from app.wire.responses import Response
from app.wire.transcript import Draft, Transcript

# The most records of a step, which takes a millisecond.
_STEP = 1024


async def transcript_of(log: Log) -> Transcript:
    """Return what the records that *log* has now add up to. This counts as no reader of it."""
    draft = Draft()
    async for events in _steps(log):
        draft.add(events)
    return draft.transcript()


async def response_of(stream_id: str, log: Log) -> dict[str, Any]:
    """Return the response that the records of *log* make up, as OpenAI has it. This counts as no reader."""
    response = Response(stream_id, log.info.asked)
    async for events in _steps(log):
        for event in events:
            response.take(event)
    return response.resource


async def count_of(log: Log, count: Count) -> int:
    """Return how many events the records that *log* has now are, as *count* counts them. This counts as no reader."""
    total = 0
    async for events in _steps(log):
        total += sum(map(count, events))
    return total


async def _steps(log: Log) -> AsyncGenerator[Sequence[Event], None]:
    """Yield the records that *log* has now, as many at once as a step may have."""
    after = 0
    last = log.last
    while after < last:
        step = min(_STEP, last - after)
        await turn(step)
        events = log.records(after, after + step)
        await turn(kilobytes(events))
        yield events
        after += step


def kilobytes(events: Sequence[Event]) -> int:
    """Return how many kilobytes of text *events* have, each of which is as much work as a short record (see `turn`)."""
    characters = 0
    for event in events:
        if type(event) is Delta:
            characters += len(event.text)
        else:
            characters += sum(len(value) for value in values(event) if isinstance(value, str))
    return characters >> 10
