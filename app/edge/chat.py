"""Streams over HTTP: opening one, attaching to it, looking at it, stopping it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.edge.requests import Defaults, parse_chat, parse_json, parse_position, parse_smooth, read_body
from app.edge.response import StreamResponse
from app.edge.tickets import Tickets
from app.errors import BadRequest
from app.hub import Hub, Key
from app.journal import Log
from app.model import Principal, StreamRequest
from app.rechunk import lag
from app.wire.events import EventEncoder
from app.wire.snapshot import Snapshot

_JSON = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True, slots=True)
class Options:
    """What the settings say about requests and answers.

    *admit* takes a request and returns what goes upstream instead, or raises ModelNotAllowed or BadRequest. *tickets*,
    if there are any, go into the urls of streams. *hold* is how many seconds an answer's status may wait.
    """

    defaults: Defaults
    admit: Callable[[StreamRequest], StreamRequest]
    tickets: Tickets | None
    hold: float
    max_body: int
    body_seconds: float
    keep_alive: float
    reconnect_ms: int


class Chat:
    """The endpoints of the native dialect."""

    def __init__(self, hub: Hub, options: Options) -> None:
        self._hub = hub
        self._options = options

    async def open(self, request: Request) -> Response:
        """`POST /v1/chat`: start a stream and answer with it, or with where it is.

        Never pays twice: a repeated idempotency key attaches, and a Last-Event-ID makes it a resume, which is what
        fetch-based clients send when they repeat their POST.
        """
        position = request.headers.get("last-event-id")
        if position:
            return await self._resume(request, position)
        body = await read_body(request, self._options.max_body, self._options.body_seconds)
        data = parse_json(body)
        asked = parse_chat(data, self._options.defaults)
        principal: Principal = request.state.principal
        wanted = replace(self._options.admit(asked.stream), traceparent=request.state.traceparent)
        if not (elsewhere := _wants_json(request)):
            self._hub.admit(principal)  # before anything is paid for that it could not read
        stream_id = await self._hub.open(
            wanted, principal, _key(request, data), request.state.log, refusal=request.state.refusal
        )
        if elsewhere:
            url, ticket = f"/v1/streams/{stream_id}", self._ticket(principal, stream_id)
            urls = {"url": f"{url}{ticket}", "cancel_url": f"{url}/cancel{ticket}"}
            headers = {**_JSON, "Location": urls["url"], "X-Stream-Id": stream_id}
            content = orjson.dumps({"stream_id": stream_id, **urls})
            return Response(content, 201, headers, media_type="application/json")
        return await self._read(request, stream_id, 0, asked.smooth, hold=self._options.hold)

    async def stream(self, request: Request) -> Response:
        """`/v1/streams/{id}`: one route for both methods, lest a 405's `Allow` names the first one's only."""
        return await (self.cancel if request.method == "DELETE" else self.attach)(request)

    async def attach(self, request: Request) -> Response:
        """`GET /v1/streams/{id}`: read a stream, from the start or after a position; or a snapshot of it."""
        stream_id: str = request.path_params["stream_id"]
        if _wants_json(request):
            return _snapshot(stream_id, await self._hub.log_of(stream_id, request.state.principal))
        # The header wins: an EventSource that reconnects sends it along with the query that it was made with.
        position = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
        if position:
            return await self._resume(request, position, stream_id)
        return await self._read(request, stream_id, 0, _smooth(request))

    async def cancel(self, request: Request) -> Response:
        """`DELETE /v1/streams/{id}`, and `POST …/cancel` for `sendBeacon`: the stop button. Answers with a snapshot."""
        stream_id: str = request.path_params["stream_id"]
        return _snapshot(stream_id, await self._hub.cancel(stream_id, request.state.principal))

    async def _resume(self, request: Request, position: str, stream_id: str | None = None) -> Response:
        event_id = parse_position(position)
        if stream_id not in (None, event_id.stream_id):
            raise BadRequest("The last event id is another stream's.", param="last_event_id")
        return await self._read(request, event_id.stream_id, event_id.seq, _smooth(request))

    async def _read(
        self, request: Request, stream_id: str, after: int, smooth: float, *, hold: float = 0.0
    ) -> Response:
        principal: Principal = request.state.principal
        subscription = await self._hub.attach(stream_id, principal, after)
        if request.method == "HEAD":  # neither a reader, nor one that leaves
            headers = {"Cache-Control": "no-store, no-transform", "X-Stream-Id": stream_id}
            return Response(headers=headers, media_type="text/event-stream")
        if subscription.exhausted:
            # The one answer that tells an EventSource to stop reconnecting and means no error.
            return Response(status_code=204, headers={"Cache-Control": "no-store", "X-Stream-Id": stream_id})
        # Jitter, lest the readers of a process that went away all come back in the same instant.
        retry_ms = round(self._options.reconnect_ms * random.uniform(0.75, 1.25))  # noqa: S311 - no secret
        ticket = self._ticket(principal, stream_id)
        url = f"/v1/streams/{stream_id}{ticket}" if ticket else ""
        encoder = EventEncoder(stream_id, retry_ms, lag(subscription.log.info.chunk), url)
        return StreamResponse(subscription, encoder, self._options.keep_alive, request, smooth=smooth, hold=hold)

    def _ticket(self, principal: Principal, stream_id: str) -> str:
        """Return the query that opens this stream to who cannot send credentials, or "".

        Whoever came with a ticket gets no other: it ends when it says.
        """
        tickets = self._options.tickets
        return "" if tickets is None or principal.stream_id else f"?ticket={tickets.issue(stream_id, principal)}"


def _snapshot(stream_id: str, log: Log) -> Response:
    snapshot = Snapshot(stream_id)
    snapshot.add(log.records(0, log.last))  # without a cursor: who looks is no reader
    return Response(snapshot.encode(), headers={**_JSON, "X-Stream-Id": stream_id}, media_type="application/json")


def _wants_json(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/event-stream" not in accept


def _smooth(request: Request) -> float:
    text = request.query_params.get("smooth")
    return 0.0 if text is None else parse_smooth(text)


def _key(request: Request, data: object) -> Key | None:
    """Return the request's idempotency key with a fingerprint of its body: of what it says, not how it is spelt."""
    name = request.headers.get("idempotency-key")
    if name is None:
        return None
    if not 1 <= len(name) <= 255:
        raise BadRequest("An Idempotency-Key has from 1 to 255 characters.", param="Idempotency-Key")
    return Key(name, hashlib.sha256(orjson.dumps(data, option=orjson.OPT_SORT_KEYS)).digest())
