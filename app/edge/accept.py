"""Which form of a stream a client wants: JSON that says where it is or what it holds, or its events, and which."""

from __future__ import annotations

from starlette.requests import Request

from app.errors import BadRequest
from app.wire import dialects

_EVENTS = ("text/event-stream", "text/*", "*/*")


def wants_json(request: Request) -> bool:
    """Return whether the client accepts JSON and would not accept events.

    axios, HTTPie and others send `application/json, text/plain, */*` or the like with every request. A client that
    accepts anything gets the stream, because it is going to read it. What has a weight of 0 is not accepted (RFC 9110,
    12.4.2).
    """
    accepted = {media for line in request.headers.getlist("accept") for media in map(_accepted, line.split(","))}
    return "application/json" in accepted and accepted.isdisjoint(_EVENTS)


def wanted_dialect(request: Request, usual: str) -> str:
    """Return the dialect that a request names in its query, or the *usual* one of its endpoint. Raises BadRequest."""
    dialect = request.query_params.get("dialect", usual)
    if dialect not in dialects():
        raise BadRequest(f"'dialect' is one of: {', '.join(dialects())}.", param="dialect")
    return dialect


def _accepted(media_range: str) -> str:
    """Return a media range without its parameters, in lower case; "" if it is one that the client does not accept."""
    media_type, *parameters = (part.strip().lower() for part in media_range.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q" and not value.strip().strip("0."):
            return ""
    return media_type
