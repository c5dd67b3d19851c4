"""Opening, reading and stopping streams: what the endpoints of all dialects share."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.edge.access.tickets import Tickets
from app.edge.bodies import ChatRequest, Defaults, parse_smooth, read_body
from app.edge.context import request_context
from app.edge.event_stream import StreamResponse, read_whole
from app.edge.json import parse_json
from app.edge.whole import Build, WholeAnswers, WholeResponse
from app.errors import BadRequest
from app.events import EventId
from app.hub import Hub, IdempotencyKey, Subscription, payer
from app.journal import Log
from app.rechunk import merge_after
from app.request import StreamRequest
from app.turns import turn
from app.wire import Create, Reading

IDEMPOTENCY_KEY = "Idempotency-Key"
ListModels = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]


@dataclass(frozen=True, slots=True)
class Options:
    """What the settings say about requests and answers.

    *admit* takes a request and returns what goes upstream in its place, or raises ModelNotAllowed or BadRequest.
    *tickets*, if there are any, go into the URLs of streams. *commit_after* is how many seconds an answer's status may
    wait. *models* are offered by name; *listed* returns those that the upstreams list, as OpenAI's objects.
    """

    defaults: Defaults
    admit: Callable[[StreamRequest], StreamRequest]
    tickets: Tickets | None
    commit_after: float
    max_body: int
    body_seconds: float
    keep_alive: float
    reconnect_ms: int
    models: Sequence[str]
    listed: ListModels


class Streams:
    """A *hub*, as endpoints use it: on behalf of the principal whose request it is, and within *options*."""

    def __init__(self, hub: Hub, options: Options) -> None:
        self.hub = hub
        self.options = options
        self._answers = WholeAnswers()

    async def body(self, request: Request, *, plain: bool = False) -> Any:
        """Return the request's JSON. Raises BadRequest, TooLarge, RequestTimeout or UnsupportedMedia.

        With *plain*, a page may call it `text/plain` if its origin is known: a form could do so on any other site.
        """
        plain = plain and request_context(request.scope).known_origin
        return await parse_json(await read_body(request, self.options.max_body, self.options.body_seconds, plain=plain))

    async def open(self, request: Request, asked: ChatRequest, data: object, *, attach: bool = True) -> str:
        """Start the stream that was *asked* for with the body *data*, and return its id.

        A request that repeats an idempotency key gets the id of the stream that the key stands for. Unless *attach* is
        false, this request is going to read the stream, so a reader's place is kept for it before anything is paid for.
        Raises what `Hub.open` and `Hub.reserve` do, and Overloaded if there is no room to build an answer.
        """
        await turn(1)  # a large body took time to validate, and takes as much to admit
        context = request_context(request.scope)
        wanted = self.options.admit(asked.stream)
        if context.traceparent:
            wanted = replace(wanted, traceparent=context.traceparent)
        await turn(1)  # and to take its fingerprint, and to reserve tokens for it
        if attach:
            context.place = self.hub.reserve(context.principal)
        if asked.whole:
            self._answers.check_room(context.principal.owner)
        key = _key(request, data, (IDEMPOTENCY_KEY, asked.key_header))
        return await self.hub.open(wanted, context.principal, key, context.log, asked.label)

    async def answer(self, request: Request, asked: ChatRequest, data: object) -> Response:
        """Start the stream that was *asked* for, and return the answer that reads it from its start."""
        stream_id = await self.open(request, asked, data)
        return await self.read(
            request,
            stream_id,
            asked.create,
            smooth=asked.smooth,
            commit_after=self.options.commit_after,
            knows_id=False,
        )

    async def read(
        self,
        request: Request,
        stream_id: str,
        create: Create,
        *,
        after: EventId | None = None,
        opening: bytes = b"",
        smooth: float = 0.0,
        commit_after: float = 0.0,
        knows_id: bool = True,
    ) -> Response:
        """Return an answer that reads the stream, from its start or *after* a position. Raises what `Hub.attach` does.

        *create* makes the encoder; *opening*, *smooth* and *commit_after* are those of `StreamResponse`, and *knows_id*
        is that of `Subscription`. If nothing is left to read, the answer is 204, which tells an EventSource to stop
        reconnecting.
        """
        subscription = await self._attach(request, stream_id, after)
        subscription.knows_id = knows_id
        if subscription.exhausted and request.method != "HEAD":
            return Response(status_code=204, headers={"X-Stream-Id": stream_id})
        ticket = self.ticket(request, stream_id)
        reading = Reading(
            stream_id,
            # With jitter, so that the readers of a process that went away do not all come back in the same instant.
            retry_ms=round(self.options.reconnect_ms * random.uniform(0.75, 1.25)),  # noqa: S311 - no secret
            url=f"/v1/streams/{stream_id}{ticket}" if ticket else "",
            merge_after=merge_after(subscription.log.info.chunk) or sys.maxsize,
            include_usage=subscription.log.info.include_usage,
            asked=subscription.log.info.asked,
        )
        return StreamResponse(
            subscription,
            create(reading),
            self.options.keep_alive,
            after=after,
            opening=opening,
            smooth=smooth,
            commit_after=commit_after,
        )

    async def resume(self, request: Request, after: EventId, create: Create, opening: bytes = b"") -> Response:
        """Return an answer that goes on *after* a position. Raises what `read` does, and BadRequest."""
        smooth = reader_smooth(request)
        return await self.read(request, after.stream_id, create, after=after, opening=opening, smooth=smooth)

    async def collect(self, request: Request, stream_id: str) -> Log:
        """Wait for the end of the stream, and return its log. Raises what `Hub.attach` and `read_whole` do."""
        subscription = await self._attach(request, stream_id)
        subscription.knows_id = False  # the client has nothing until it has everything
        await read_whole(subscription, request.receive)
        return subscription.log

    def whole(self, stream_id: str, log: Log, build: Build) -> Response:
        """Return all of the stream so far as one answer, in the form of *build*."""
        headers = {"X-Stream-Id": stream_id, "Content-Location": f"/v1/streams/{stream_id}"}
        return WholeResponse(self._answers, stream_id, log, build, headers)

    async def snapshot(self, request: Request, stream_id: str, build: Build) -> Response:
        """Return all of the stream so far as one answer. Its client takes a reader's place until it has the answer.

        The stream does not take it for one of its readers: it would end when this one leaves. Raises what `Hub.log_of`
        and `Hub.reserve` do.
        """
        log = await self.hub.log_of(stream_id, request_context(request.scope).principal)
        self.take_place(request, log)
        return self.whole(stream_id, log, build)

    def take_place(self, request: Request, log: Log) -> None:
        """Keep a reader's place for the request until it attaches to *log*, or ends. Raises what `Hub.reserve` does."""
        context = request_context(request.scope)
        context.place = self.hub.reserve(payer(context.principal, log))

    async def stop(self, request: Request, stream_id: str) -> Log:
        """End the stream, and return its log. Raises what `Hub.cancel` does.

        The first stop of a live stream is never refused. Any other one counts as a request, and so may be.
        """
        context = request_context(request.scope)
        return await self.hub.cancel(stream_id, context.principal, context.count)

    async def remove(self, request: Request, stream_id: str) -> None:
        """End the stream, and keep it no longer. Raises what `Hub.remove` does."""
        context = request_context(request.scope)
        await self.hub.remove(stream_id, context.principal, context.count)

    async def _attach(self, request: Request, stream_id: str, after: EventId | None = None) -> Subscription:
        context = request_context(request.scope)
        number = after.seq if after else 0
        partly = after is not None and after.place > 0
        return await self.hub.attach(
            stream_id, context.principal, number, context.log, partly=partly, place=context.place
        )

    def ticket(self, request: Request, stream_id: str) -> str:
        """Return the query that opens this stream to a client which cannot send credentials, or "".

        A request that was authenticated by a ticket gets no other ticket: its own ends when it says.
        """
        tickets = self.options.tickets
        principal = request_context(request.scope).principal
        return "" if tickets is None or principal.stream_id else f"?ticket={tickets.issue(stream_id, principal)}"


def reader_smooth(request: Request) -> float:
    """Return over how many seconds a reader wants bursts to be spread. Raises BadRequest."""
    text = request.query_params.get("smooth")
    return 0.0 if text is None else parse_smooth(text)


def is_keyed(request: Request, key_header: str = "") -> bool:
    """Return whether the request can be repeated without being paid for twice.

    *key_header* is that of `ChatRequest`.
    """
    return IDEMPOTENCY_KEY in request.headers or key_header in request.headers


def _key(request: Request, data: object, headers: Sequence[str]) -> IdempotencyKey | None:
    """Return the request's idempotency key, with a fingerprint of what its body says, however that is spelt.

    It is in the first of *headers* that the request has. Raises BadRequest if any of them is no key.
    """
    names = [(header, request.headers[header]) for header in headers if header in request.headers]
    for header, name in names:
        if not 1 <= len(name) <= 255:
            raise BadRequest(f"{header} has from 1 to 255 characters.", param=header)
    if not names:
        return None
    return IdempotencyKey(names[0][1], hashlib.sha256(orjson.dumps(data, option=orjson.OPT_SORT_KEYS)).digest())
