"""Where a client wants to go on reading: in the header `Last-Event-ID`, or in the query."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from starlette.requests import HTTPConnection

from app.errors import BadRequest
from app.events import EventId
from app.journal import Log
from app.turns import turn
from app.wire.counting import Finder

# How many seconds an event may be late in this process that another process has sent to the client.
_LATE = 2.0


def given_position(request: HTTPConnection) -> str:
    """Return the position that a request names, as it stands there, or "".

    The header wins: an EventSource that reconnects also sends the query that it was made with. `lastEventId` is how
    event-source-polyfill and reconnecting-eventsource spell the query.
    """
    position = request.headers.get("last-event-id")
    if position or not request.scope["query_string"]:
        return position or ""
    query = request.query_params
    return query.get("last_event_id") or query.get("lastEventId") or ""


def parse_position(request: HTTPConnection) -> EventId | None:
    """Return the position that a request names, or None. Raises BadRequest."""
    text = given_position(request)
    if not text:
        return None
    try:
        return EventId.parse(text)
    except ValueError:
        raise BadRequest("The last event id is not one that this service sent.", param="last_event_id") from None


async def find(log: Log, finder: Finder) -> EventId | None:
    """Return the position in *log* that *finder* looks for, or None if the stream has not come that far."""
    deadline = asyncio.get_running_loop().time() + _LATE
    async with aclosing(log.read()) as batches:
        while True:
            try:
                # Until the log has all that was sent elsewhere: what is here already is read in any case.
                async with asyncio.timeout_at(deadline if finder.fed >= log.last else None):
                    batch = await anext(batches)
            except (TimeoutError, StopAsyncIteration):
                return None
            await turn(len(batch.events))  # the event may be far into a long stream
            position = finder.feed(batch)
            if position is not None:
                return position
