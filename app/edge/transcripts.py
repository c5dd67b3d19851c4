"""Putting an answer together out of a log, in steps: it may have millions of records."""

from __future__ import annotations

from typing import Any

from app.journal import Log
from app.turns import turn
from app.wire.responses import Response
from app.wire.transcript import Draft, Transcript

# The most records of a step, which takes a millisecond.
_STEP = 1024


async def transcript_of(log: Log) -> Transcript:
    """Return what the records that *log* has now add up to. This counts as no reader of it."""
    draft = Draft()
    last = log.last
    while draft.records < last:
        after = draft.records
        step = min(_STEP, last - after)
        await turn(step)
        draft.add(log.records(after, after + step))
    return draft.transcript()


async def response_of(stream_id: str, log: Log) -> dict[str, Any]:
    """Return the response that the records of *log* make up, as OpenAI has it. This counts as no reader."""
    response = Response(stream_id, log.info.asked)
    after = 0
    last = log.last
    while after < last:
        step = min(_STEP, last - after)
        await turn(step)
        for event in log.records(after, after + step):
            response.take(event)
        after += step
    return response.resource
