"""Opening, reading and stopping streams: what the endpoints of all dialects share."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.edge.access.tickets import Tickets
from app.edge.bodies import Defaults, parse_json, read_body
from app.edge.context import request_context
from app.edge.event_stream import StreamResponse, read_whole
from app.errors import BadRequest
from app.events import Event
from app.hub import Hub, Key, Subscription
from app.journal import Log
from app.request import StreamRequest
from app.wire import Encoder

MakeEncoder = Callable[[Subscription], Encoder]


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


class Streams:
    """The hub, as endpoints use it."""

    def __init__(self, hub: Hub, options: Options) -> None:
        self._hub = hub
        self.options = options

    async def body(self, request: Request) -> Any:
        """Return the request's JSON. Raises BadRequest, TooLarge, RequestTimeout or UnsupportedMedia."""
        return parse_json(await read_body(request, self.options.max_body, self.options.body_seconds))

    async def open(
        self, request: Request, asked: StreamRequest, data: object, *, elsewhere: bool = False, label: str = ""
    ) -> str:
        """Start the stream that was *asked* for with the body *data*, and return its id.

        Or the id of the one that was started with the same idempotency key. *elsewhere* says that it is not read with
        this request's answer. See `Hub.open` for the *label*, and for what it raises.
        """
        context = request_context(request.scope)
        principal = context.principal
        wanted = replace(self.options.admit(asked), traceparent=context.traceparent)
        if not elsewhere:
            self._hub.admit(principal)  # before anything is paid for that it could not read
        key = _key(request, data)
        if context.refusal is not None:  # nothing may be spent; a repeated key spends nothing
            known = None if key is None else await self._hub.opened_with(key, principal)
            if known is None:
                raise context.refusal
            return known
        return await self._hub.open(wanted, principal, key, context.log, label)

    async def read(
        self,
        request: Request,
        stream_id: str,
        make_encoder: MakeEncoder,
        *,
        after: int = 0,
        smooth: float = 0.0,
        hold: float = 0.0,
    ) -> Response:
        """Return an answer that reads the stream after record number *after*. Raises what `Hub.attach` does.

        204 says that nothing is left to read. *smooth* and *hold* are `StreamResponse`'s.
        """
        context = request_context(request.scope)
        subscription = await self._hub.attach(stream_id, context.principal, after, context.log)
        if subscription.exhausted and request.method != "HEAD":
            # The one answer that tells an EventSource to stop reconnecting and means no error.
            return Response(status_code=204, headers={"X-Stream-Id": stream_id})
        encoder = make_encoder(subscription)
        return StreamResponse(subscription, encoder, self.options.keep_alive, smooth=smooth, hold=hold)

    async def collect(self, request: Request, stream_id: str) -> Sequence[Event]:
        """Wait for the end of the stream and return all its records. Raises what `Hub.attach` and `read_whole` do."""
        context = request_context(request.scope)
        subscription = await self._hub.attach(stream_id, context.principal, logger=context.log)
        await read_whole(subscription, request.receive)
        return subscription.log.records(0, subscription.log.last)

    async def log_of(self, request: Request, stream_id: str) -> Log:
        """Return a stream's log, without becoming a reader of it. Raises UnknownStream."""
        return await self._hub.log_of(stream_id, request_context(request.scope).principal)

    async def cancel(self, request: Request, stream_id: str) -> Log:
        """End a stream, if it has not ended, and return its log. Raises UnknownStream."""
        return await self._hub.cancel(stream_id, request_context(request.scope).principal)

    async def labelled(self, request: Request, label: str) -> str | None:
        """Return the id of the newest stream of the caller's that was opened with that *label*."""
        return await self._hub.labelled(label, request_context(request.scope).principal)

    def ticket(self, request: Request, stream_id: str) -> str:
        """Return the query that opens this stream to who cannot send credentials, or "".

        Whoever came with a ticket gets no other: it ends when it says.
        """
        tickets, principal = self.options.tickets, request_context(request.scope).principal
        return "" if tickets is None or principal.stream_id else f"?ticket={tickets.issue(stream_id, principal)}"

    def retry_ms(self) -> int:
        """Return how many milliseconds a reader is to wait before it comes back.

        With jitter, lest the readers of a process that went away all come back in the same instant.
        """
        return round(self.options.reconnect_ms * random.uniform(0.75, 1.25))  # noqa: S311 - no secret


def _key(request: Request, data: object) -> Key | None:
    """Return the request's idempotency key with a fingerprint of its body: of what it says, not how it is spelt."""
    name = request.headers.get("idempotency-key")
    if name is None:
        return None
    if not 1 <= len(name) <= 255:
        raise BadRequest("An Idempotency-Key has from 1 to 255 characters.", param="Idempotency-Key")
    return Key(name, hashlib.sha256(orjson.dumps(data, option=orjson.OPT_SORT_KEYS)).digest())
