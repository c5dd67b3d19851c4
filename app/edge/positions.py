"""Where a client wants to go on reading: in the header `Last-Event-ID`, or in the query."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from app.errors import BadRequest
from app.events import EventId


def given_position(request: HTTPConnection) -> str:
    """Return the position that a request names, as it stands there, or "".

    The header wins: an EventSource that reconnects also sends the query that it was made with. `lastEventId` is how
    event-source-polyfill and reconnecting-eventsource spell the query.
    """
    query = request.query_params
    return request.headers.get("last-event-id") or query.get("last_event_id") or query.get("lastEventId") or ""


def parse_position(request: HTTPConnection) -> EventId | None:
    """Return the position that a request names, or None. Raises BadRequest."""
    text = given_position(request)
    if not text:
        return None
    try:
        return EventId.parse(text)
    except ValueError:
        raise BadRequest("The last event id is not one that this service sent.", param="last_event_id") from None
