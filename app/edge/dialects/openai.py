"""OpenAI's dialect over HTTP: chat completions, streaming and not, and the models there are."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.edge.context import request_context
from app.edge.dialects.openai_requests import parse_completion
from app.edge.error_responses import error_response
from app.edge.streams import Streams
from app.errors import UnknownModel
from app.events import TERMINAL
from app.hub import Subscription
from app.rechunk import lag
from app.wire import Reading
from app.wire.openai import ChunkEncoder, completion, failure_of
from app.wire.transcript import Transcript

_Model = Mapping[str, Any]


class OpenAI:
    """The endpoints. *names* are the models that are offered by name; *listed* returns others, as OpenAI's objects.

    Those are what upstreams list that may be asked for any model.
    """

    def __init__(
        self, streams: Streams, names: Sequence[str], listed: Callable[[], Awaitable[Sequence[_Model]]]
    ) -> None:
        self._streams = streams
        self._offered = {name: _offered(name) for name in names}
        self._listed = listed

    async def completions(self, request: Request) -> Response:
        """`POST /v1/chat/completions`: start a stream and answer with it, or, unless one was asked for, with all of it.

        A repeated idempotency key attaches, as it does in the native dialect.
        """
        streams = self._streams
        data = await streams.body(request)
        asked = parse_completion(data, request.headers, streams.options.defaults)
        stream_id = await streams.open(request, asked.request, data)
        if asked.stream:
            encoder = partial(chunks, include_usage=asked.include_usage)
            return await streams.read(request, stream_id, encoder, smooth=asked.smooth, hold=streams.options.hold)
        events = await streams.collect(request, stream_id)
        end = events[-1]
        assert isinstance(end, TERMINAL)  # noqa: S101 - a log that was read to its end
        if (failed := failure_of(end)) is not None:
            return error_response(failed, request_context(request.scope))
        where = {"X-Stream-Id": stream_id, "Content-Location": f"/v1/streams/{stream_id}"}
        return _json(completion(stream_id, Transcript.of(events)), where)

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`: those that are offered by name, then those that upstreams list."""
        return _json({"object": "list", "data": list((await self._all()).values())})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/{model}`: one of those. Raises UnknownModel."""
        found = (await self._all()).get(request.path_params["model"])
        if found is None:
            raise UnknownModel(param="model")
        return _json(found)

    async def _all(self) -> dict[str, _Model]:
        listed = {model["id"]: model for model in await self._listed()}
        return self._offered | {name: model for name, model in listed.items() if name not in self._offered}


def chunks(subscription: Subscription, *, include_usage: bool = False) -> ChunkEncoder:
    """Return the encoder for one reader, wherever the stream was opened."""
    merge_after = lag(subscription.log.info.chunk) or sys.maxsize
    return ChunkEncoder(Reading(subscription.stream_id, merge_after=merge_after), include_usage=include_usage)


def _offered(name: str) -> _Model:
    return {"id": name, "object": "model", "created": 0, "owned_by": "chat-sse"}


def _json(content: object, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), headers=headers, media_type="application/json")
