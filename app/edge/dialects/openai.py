"""OpenAI's dialect over HTTP: chat completions, streaming and whole, and the list of models."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.edge.bodies import (
    AskedParameters,
    ChatRequest,
    Defaults,
    Messages,
    ModelName,
    shown,
    stream_request,
    validated,
)
from app.edge.context import request_context
from app.edge.error_responses import error_response
from app.edge.field_path import suggestion
from app.edge.positions import parse_position
from app.edge.streams import Streams, is_keyed
from app.edge.whole import OfTranscript, ending
from app.errors import BadRequest, UnknownModel
from app.wire import openai
from app.wire.openai import completion, failure_of
from app.wire.transcript import Transcript

# `chunk` and `on_disconnect` are headers here: a field that OpenAI does not have would go upstream.
CHUNK = "X-Chunk"
ON_DISCONNECT = "X-On-Disconnect"

FIELD = "[ -~]{1,64}"  # the name of a parameter that this service does not know
_NAME = re.compile(FIELD, re.ASCII)
# OpenAI's parameters that this service refuses, with what to do instead.
REFUSED = {
    "functions": "OpenAI replaced it: send 'tools'",
    "function_call": "OpenAI replaced it: send 'tool_choice'",
}
ERRORS = dict.fromkeys(("/v1/chat/completions", "/v1/completions", "/v1/models"), openai.refusal)
_Model = Mapping[str, Any]


class StreamOptions(BaseModel):
    """What is said of the stream itself. Any other option is ignored, because none changes what is answered."""

    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool | None = None


class CompletionBody(AskedParameters):
    """The body of `POST /v1/chat/completions`. Parameters that are not known here go upstream as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    messages: Messages
    model: ModelName | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


_OWN = frozenset({"messages", "model", "stream", "stream_options"})


def parse_completion(data: Any, headers: Mapping[str, str], defaults: Defaults, *, keyed: bool = False) -> ChatRequest:
    """Turn the parsed body, and the headers CHUNK and ON_DISCONNECT, into a request. Raises BadRequest.

    *keyed* is that of `stream_request`.
    """
    body = validated(CompletionBody, data)
    for name, instead in REFUSED.items():
        if data.get(name) is not None:
            raise BadRequest(f"'{name}' is not taken; {instead}.", param=name)
    unknown = (body.model_extra or {}).keys() - REFUSED.keys()
    check_names(unknown, CompletionBody.model_fields.keys() | REFUSED.keys())
    # A known parameter that is null is one that is not there; for an unknown one, null may mean something.
    parameters = {
        name: value for name, value in data.items() if name not in _OWN and (value is not None or name in unknown)
    }
    chunk = headers.get(CHUNK)
    on_disconnect = headers.get(ON_DISCONNECT)
    names = (CHUNK, ON_DISCONNECT)
    stream, smooth = stream_request(
        defaults,
        data["messages"],
        parameters,
        body.model,
        chunk,
        on_disconnect,
        names,
        keyed=keyed,
        returns=False,  # clients stop by hanging up, and do not look for the stream's id
    )
    stream = replace(stream, metadata=shown(body.metadata))
    if body.stream_options and body.stream_options.include_usage:
        stream = replace(stream, include_usage=True)
    return ChatRequest(stream, openai.create, smooth, whole=not body.stream)


def check_names(unknown: Collection[str], known: Collection[str]) -> None:
    """Raise BadRequest unless *unknown* fields may go upstream.

    One that differs from a *known* one by case only may not: upstreams that are written in Go take it for that one.
    """
    if not all(map(_NAME.fullmatch, unknown)):
        raise BadRequest("The name of a field has from 1 to 64 characters, all of them printable ASCII.")
    for name in sorted(unknown):
        if name.lower() in known:
            meant = suggestion(name.lower(), known)
            raise BadRequest(f"'{name}' is not a field of this request.{meant}", param=name)


class OpenAI:
    """The endpoints. Models that are offered by name come before those that the upstreams list."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._offered = {name: _offered(name) for name in streams.options.models}

    async def completions(self, request: Request) -> Response:
        """`POST /v1/chat/completions`: start a stream and answer with it, or with all of it once it has ended.

        A repeated idempotency key attaches to the stream that it stands for, as it does in the native dialect, and a
        position resumes its stream.
        """
        streams = self._streams
        position = parse_position(request)
        if position is not None:
            return await streams.resume(request, position, openai.create)
        data = await streams.body(request)
        asked = parse_completion(data, request.headers, streams.options.defaults, keyed=is_keyed(request))
        if not asked.whole:
            return await streams.answer(request, asked, data)
        stream_id = await streams.open(request, asked, data)
        log = await streams.collect(request, stream_id)
        end = ending(log)
        assert end is not None  # noqa: S101 - `collect` waits for it
        failure = failure_of(end)
        if failure is not None:
            return error_response(failure, request_context(request.scope))
        return streams.whole(stream_id, log, OfTranscript(_completion))

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`: all models, those that are offered by name first."""
        return _json({"object": "list", "data": list((await self._all()).values())})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/{model}`: one of them. Raises UnknownModel."""
        found = (await self._all()).get(request.path_params["model"])
        if found is None:
            raise UnknownModel(param="model")
        return _json(found)

    async def _all(self) -> dict[str, _Model]:
        listed = {model["id"]: model for model in await self._streams.options.listed()}
        return self._offered | {name: model for name, model in listed.items() if name not in self._offered}


def routes(streams: Streams) -> Sequence[Route]:
    """Return the routes of this dialect."""
    endpoints = OpenAI(streams)
    return [
        Route("/v1/chat/completions", endpoints.completions, methods=["POST"]),
        Route("/v1/models", endpoints.models),
        Route("/v1/models/{model:path}", endpoints.model),
    ]


def _offered(name: str) -> _Model:
    return {"id": name, "object": "model", "created": 0, "owned_by": "chat-sse"}


def _completion(stream_id: str, transcript: Transcript) -> bytes:
    return orjson.dumps(completion(stream_id, transcript))


def _json(content: object) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")
