"""The native dialect over HTTP: opening a stream, attaching to it, looking at it, stopping it."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.edge.bodies import parse_chat, parse_position, parse_smooth
from app.edge.streams import MakeEncoder, Streams
from app.errors import BadRequest
from app.hub import Subscription
from app.journal import Log
from app.rechunk import lag
from app.wire import Reading
from app.wire.native import EventEncoder, snapshot
from app.wire.transcript import Transcript


class Chat:
    """The endpoints of the native dialect. *dialects* are the others that a stream may be read in, by name."""

    def __init__(self, streams: Streams, dialects: Mapping[str, MakeEncoder]) -> None:
        self._streams = streams
        self._dialects = dialects

    async def open(self, request: Request) -> Response:
        """`POST /v1/chat`: start a stream and answer with it, or with where it is.

        Never pays twice: a repeated idempotency key attaches, and a Last-Event-ID makes it a resume, which is what
        fetch-based clients send when they repeat their POST.
        """
        streams = self._streams
        position = request.headers.get("last-event-id")
        if position:
            return await self._resume(request, position)
        data = await streams.body(request)
        asked = parse_chat(data, streams.options.defaults)
        elsewhere = _wants_json(request)
        stream_id = await streams.open(request, asked.stream, data, elsewhere=elsewhere)
        if elsewhere:
            url, ticket = f"/v1/streams/{stream_id}", streams.ticket(request, stream_id)
            urls = {"url": f"{url}{ticket}", "cancel_url": f"{url}/cancel{ticket}"}
            headers = {"Location": urls["url"], "X-Stream-Id": stream_id}
            content = orjson.dumps({"stream_id": stream_id, **urls})
            return Response(content, 201, headers, media_type="application/json")
        return await self._read(request, stream_id, 0, asked.smooth, hold=streams.options.hold)

    async def stream(self, request: Request) -> Response:
        """`/v1/streams/{id}`: one route for both methods, lest a 405's `Allow` names the first one's only."""
        return await (self.cancel if request.method == "DELETE" else self.attach)(request)

    async def attach(self, request: Request) -> Response:
        """`GET /v1/streams/{id}`: read a stream, from the start or after a position; or a snapshot of it."""
        stream_id: str = request.path_params["stream_id"]
        if _wants_json(request):
            return _snapshot(stream_id, await self._streams.log_of(request, stream_id))
        dialect = request.query_params.get("dialect", "events")
        if dialect != "events":
            make_encoder = self._dialects.get(dialect)
            if make_encoder is None:
                names = ", ".join(("events", *self._dialects))
                raise BadRequest(f"'dialect' is one of: {names}.", param="dialect")
            # No positions in these: whoever reads in one reads it from the start.
            return await self._streams.read(request, stream_id, make_encoder, smooth=_smooth(request))
        # The header wins: an EventSource that reconnects sends it along with the query that it was made with.
        position = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
        if position:
            return await self._resume(request, position, stream_id)
        return await self._read(request, stream_id, 0, _smooth(request))

    async def cancel(self, request: Request) -> Response:
        """`DELETE /v1/streams/{id}`, and `POST …/cancel` for `sendBeacon`: the stop button. Answers with a snapshot."""
        stream_id: str = request.path_params["stream_id"]
        return _snapshot(stream_id, await self._streams.cancel(request, stream_id))

    async def _resume(self, request: Request, position: str, stream_id: str | None = None) -> Response:
        event_id = parse_position(position)
        if stream_id not in (None, event_id.stream_id):
            raise BadRequest("The last event id is another stream's.", param="last_event_id")
        return await self._read(request, event_id.stream_id, event_id.seq, _smooth(request))

    async def _read(
        self, request: Request, stream_id: str, after: int, smooth: float, *, hold: float = 0.0
    ) -> Response:
        streams = self._streams

        def encoder(subscription: Subscription) -> EventEncoder:
            ticket = streams.ticket(request, stream_id)
            url = f"/v1/streams/{stream_id}{ticket}" if ticket else ""
            merge_after = lag(subscription.log.info.chunk) or sys.maxsize
            return EventEncoder(Reading(stream_id, streams.retry_ms(), url, merge_after))

        return await streams.read(request, stream_id, encoder, after=after, smooth=smooth, hold=hold)


def _snapshot(stream_id: str, log: Log) -> Response:
    content = snapshot(stream_id, Transcript.of(log.records(0, log.last)))  # without a cursor: this is no reader
    return Response(content, headers={"X-Stream-Id": stream_id}, media_type="application/json")


def _wants_json(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/event-stream" not in accept


def _smooth(request: Request) -> float:
    text = request.query_params.get("smooth")
    return 0.0 if text is None else parse_smooth(text)
