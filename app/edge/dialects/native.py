"""The native dialect over HTTP: opening a stream, attaching to it, looking at it, stopping it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import orjson
from pydantic import StringConstraints
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.edge.accept import wanted_dialect, wants_json
from app.edge.bodies import (
    ChatParameters,
    ChatRequest,
    Defaults,
    Messages,
    parameters_of,
    shown,
    stream_request,
    validated,
)
from app.edge.context import request_context
from app.edge.positions import parse_position
from app.edge.streams import Streams, is_keyed, reader_smooth
from app.edge.whole import OfTranscript, ending
from app.errors import BadRequest
from app.events import EventId
from app.journal import Listed
from app.wire import dialects, native

_MOST = 100  # streams in one answer
_NUMBER = re.compile("[0-9]{1,16}", re.ASCII)  # a time in microseconds, too


class ChatBody(ChatParameters):
    """The body of `POST /v1/chat`."""

    prompt: Annotated[str, StringConstraints(min_length=1)] | None = None
    messages: Messages | None = None
    # OpenAI's clients send these out of habit. They change nothing here: the answer is a stream, and has its usage.
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None


def parse_chat(data: Any, defaults: Defaults, *, keyed: bool = False) -> ChatRequest:
    """Turn the parsed body of `POST /v1/chat` into a request. Raises BadRequest.

    *keyed* is that of `stream_request`.
    """
    body = validated(ChatBody, data)
    if (body.prompt is None) == (body.messages is None):
        raise BadRequest("Give exactly one of 'prompt' and 'messages'.", param="prompt")
    # The messages go upstream as they came, not as pydantic has them.
    messages = data["messages"] if body.messages else [{"role": "user", "content": body.prompt}]
    parameters = parameters_of(data)
    metadata = parameters.pop("metadata", None)  # for the caller's list: OpenAI takes it only with `store`
    chunk, policy = body.chunk, body.on_disconnect
    stream, smooth = stream_request(
        defaults, messages, parameters, body.model, chunk, policy, keyed=keyed, returns=True
    )
    if metadata:
        stream = replace(stream, metadata=shown(metadata))
    return ChatRequest(stream, native.create, smooth)


class Native:
    """The endpoints of the native dialect."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    async def open(self, request: Request) -> Response:
        """`POST /v1/chat`: start a stream and answer with it, or with where it is.

        A repeated request never pays twice: an idempotency key attaches to the stream that it stands for, and a
        Last-Event-ID, which fetch-based clients send when they repeat their POST, resumes a stream.
        """
        streams = self._streams
        position = parse_position(request)
        if position is not None:
            return await streams.resume(request, position, native.create)
        data = await streams.body(request)
        asked = parse_chat(data, streams.options.defaults, keyed=is_keyed(request))
        if not wants_json(request):
            return await streams.answer(request, asked, data)
        stream_id = await streams.open(request, asked, data, attach=False)
        url = f"/v1/streams/{stream_id}"
        ticket = streams.ticket(request, stream_id)
        content = {"stream_id": stream_id, "url": f"{url}{ticket}", "cancel_url": f"{url}/cancel{ticket}"}
        headers = {"Location": content["url"], "X-Stream-Id": stream_id}
        return Response(orjson.dumps(content), 201, headers, media_type="application/json")

    async def list(self, request: Request) -> Response:
        """`GET /v1/streams`: the caller's own streams, newest first. `next` leads to the older ones."""
        query = request.query_params
        state, limit, before = query.get("state"), query.get("limit", str(_MOST)), query.get("before")
        if state not in (None, "live"):
            raise BadRequest("'state' is live, or is left out.", param="state")
        if not (_NUMBER.fullmatch(limit) and 1 <= int(limit) <= _MOST):
            raise BadRequest(f"'limit' is a number from 1 to {_MOST}.", param="limit")
        if before is not None and not _NUMBER.fullmatch(before):
            raise BadRequest("'before' is what the 'next' of an earlier answer has.", param="before")
        listing = await self._streams.hub.streams_of(
            request_context(request.scope).principal,
            int(limit),
            None if before is None else int(before),
            live=state is not None,
        )
        following = None
        if listing.before is not None:
            following = f"/v1/streams?{'state=live&' if state else ''}limit={limit}&before={listing.before}"
        content = {"streams": [self._listed(request, each) for each in listing.streams], "next": following}
        return Response(orjson.dumps(content), media_type="application/json")

    def _listed(self, request: Request, stream: Listed) -> dict[str, Any]:
        stream_id, info, state, last = stream
        return {
            "stream_id": stream_id,
            "url": f"/v1/streams/{stream_id}{self._streams.ticket(request, stream_id)}",
            "state": state,
            "model": info.model,
            "created": info.created // 1_000_000,
            "metadata": orjson.Fragment(info.metadata or "{}"),
            "last_event_id": str(EventId(stream_id, last)) if last else None,
        }

    async def stream(self, request: Request) -> Response:
        """`/v1/streams/{id}`: one route for both methods, because a 405 names the methods of the first route only."""
        return await (self.cancel if request.method == "DELETE" else self.attach)(request)

    async def attach(self, request: Request) -> Response:
        """`GET /v1/streams/{id}`: read a stream, from the start or after a position; or a snapshot of it."""
        stream_id: str = request.path_params["stream_id"]
        principal = request_context(request.scope).principal
        position = parse_position(request)
        if position is not None and position.stream_id != stream_id:
            await self._streams.hub.log_of(stream_id, principal)  # or it is a 404
            raise BadRequest("The last event id is another stream's.", param="last_event_id")
        if wants_json(request):
            return await self._streams.snapshot(request, stream_id, OfTranscript(native.snapshot))
        dialect = wanted_dialect(request, native.NAME)
        create = dialects()[dialect]
        if position is None:
            return await self._streams.read(request, stream_id, create, smooth=reader_smooth(request))
        glued = dialect == native.NAME and _glues(request)
        opening = native.cut(position) if glued else b""
        return await self._streams.resume(request, position, create, opening)

    async def cancel(self, request: Request) -> Response:
        """`DELETE /v1/streams/{id}`, and `POST …/cancel` for `sendBeacon`: the stop button.

        The answer says where the stream stands. It does not have the text, which may be large.
        """
        stream_id: str = request.path_params["stream_id"]
        log = await self._streams.stop(request, stream_id)
        content = native.stopped(stream_id, log.last, ending(log))
        return Response(content, headers={"X-Stream-Id": stream_id}, media_type="application/json")


def routes(streams: Streams) -> Sequence[Route]:
    """Return the routes of this dialect."""
    chat = Native(streams)
    return [
        Route("/v1/chat", chat.open, methods=["POST"]),
        Route("/v1/streams", chat.list),
        Route("/v1/streams/{stream_id}", chat.stream, methods=["GET", "DELETE"]),
        Route("/v1/streams/{stream_id}/cancel", chat.cancel, methods=["POST"]),
    ]


def _glues(request: Request) -> bool:
    """Whether the client is WebKit's own EventSource, which joins a half-read block to the next response.

    Every browser on iOS is WebKit, by whatever name. Chromium has kept "AppleWebKit" in its name. Clients that use
    `fetch` do not send an EventSource's `Cache-Control`.
    """
    headers = request.headers
    agent = headers.get("user-agent", "")
    webkit = "AppleWebKit" in agent and "Chrome" not in agent and "Chromium" not in agent
    own = headers.get("accept") == "text/event-stream" and headers.get("cache-control") == "no-cache"
    return webkit and own
