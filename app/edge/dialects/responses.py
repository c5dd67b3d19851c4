"""OpenAI's Responses over HTTP: streaming, whole, in the background, resumed by the number of an event, and stopped."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.edge.bodies import (
    MOST_TOP_LOGPROBS,
    ChatRequest,
    Defaults,
    Metadata,
    ModelName,
    Parameters,
    Penalty,
    Probability,
    Short,
    Temperature,
    TokensOrNoLimit,
    Tools,
    shown,
    stream_request,
    validated,
)
from app.edge.context import request_context
from app.edge.dialects.openai import CHUNK, ON_DISCONNECT, check_names
from app.edge.dialects.response_input import to_choice, to_messages, to_response_format, to_tool
from app.edge.error_responses import error_response
from app.edge.json import check_sealed
from app.edge.positions import find, parse_position
from app.edge.streams import Streams, is_keyed
from app.edge.transcripts import response_of
from app.edge.whole import ending
from app.errors import BadRequest, TooLarge, UnknownStream
from app.events import EventId, Failure
from app.journal import Log
from app.wire import Reading, openai, responses
from app.wire.counting import Finder
from app.wire.response_output import ITEM_ID
from app.wire.responses import response_id

ERRORS = {"/v1/responses": openai.refusal}

REFUSED = {
    "previous_response_id": "the service keeps no conversations: send all items in 'input'",
    "conversation": "the service keeps no conversations: send all items in 'input'",
    "prompt": "the service keeps no prompts: send 'instructions' and 'input'",
}
# What only an upstream that speaks Responses is told.
_RESPONSES_ONLY = (
    "client_metadata",
    "context_management",
    "include",
    "max_tool_calls",
    "metadata",
    "prompt_cache_retention",
    "truncation",
)
_SAME = (
    "frequency_penalty",
    "presence_penalty",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "temperature",
    "top_p",
    "user",
)
_LOGPROBS = "message.output_text.logprobs"
_RESPONSE_ID = re.compile("resp_([A-Za-z0-9_-]{22})", re.ASCII)
_NAME = re.compile("[A-Za-z0-9_.:-]{1,128}", re.ASCII)  # of an item, as an error may say it again
# A response with `store: false` is kept for at least so many seconds after its end: its readers may come back.
_UNSTORED = 10.0
# Of how many responses a request may name items: each is read from its start.
_MOST_REFERRED = 512


class TextConfig(BaseModel):
    """How the text is to be."""

    model_config = ConfigDict(extra="ignore", strict=True)

    format: dict[str, Any] | None = None
    verbosity: Short | None = None


class ReasoningConfig(BaseModel):
    """How the model is to think. Fields beside the effort go to upstreams that speak Responses."""

    model_config = ConfigDict(extra="allow", strict=True)

    effort: Short | None = None


_Items = Annotated[list[dict[str, Any]], Field(min_length=1, max_length=4096, fail_fast=True)]
# Told apart first, so that an error is about the form that the client meant.
_Input = Annotated[
    Annotated[str, Tag("[text]")] | Annotated[_Items, Tag("[items]")],
    Discriminator(lambda given: "[items]" if isinstance(given, list) else "[text]"),
]


class ResponseBody(BaseModel):
    """The body of `POST /v1/responses`. Parameters that are not known here go upstream as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    input: _Input
    model: ModelName | None = None
    instructions: str | None = None
    tools: Tools | None = None
    tool_choice: Short | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    max_output_tokens: TokensOrNoLimit | None = None
    max_tool_calls: int | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    include: Annotated[list[Short], Field(max_length=64)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: Metadata | None = None
    user: Short | None = None
    safety_identifier: Short | None = None
    prompt_cache_key: Short | None = None
    prompt_cache_retention: Short | None = None
    service_tier: Short | None = None
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None


# Fields of chat completions that have another name here, or none: upstream they would stand for what was not asked.
OF_CHATS = (
    Parameters.model_fields.keys() | {"messages", "functions", "function_call"}
) - ResponseBody.model_fields.keys()


def parse_response(
    data: Any, headers: Mapping[str, str], defaults: Defaults, now: float, *, keyed: bool = False
) -> ChatRequest:
    """Turn the parsed body, and the headers CHUNK and ON_DISCONNECT, into a request. Raises BadRequest.

    References among its items are resolved already. *now* is in Unix seconds; *keyed* is that of `stream_request`.
    """
    body = validated(ResponseBody, data)
    for name, instead in REFUSED.items():
        if data.get(name) is not None:
            raise BadRequest(f"'{name}' is not taken; {instead}.", param=name)
    others = {
        name: value
        for name, value in (body.model_extra or {}).items()
        if name not in REFUSED and not (name in OF_CHATS and value is None)
    }
    _check_names(others)
    on_disconnect = headers.get(ON_DISCONNECT)
    stream, smooth = stream_request(
        defaults,
        to_messages(data["input"], body.instructions),
        {**_parameters(body, data), **{name: others[name] for name in others.keys() - set(_RESPONSES_ONLY)}},
        body.model,
        headers.get(CHUNK),
        on_disconnect,
        (CHUNK, ON_DISCONNECT),
        keyed=keyed,
        returns=False,  # clients stop by hanging up, unless they ask for an answer in the background
    )
    if body.background and body.store is False:
        raise BadRequest("'background' needs 'store': a response that is not kept cannot be asked for.", param="store")
    if body.background and on_disconnect is None:
        stream = replace(stream, grace=defaults.max_grace, unknown_grace=defaults.max_grace)
    stream = replace(
        stream,
        responses=_for_responses(body, data),
        metadata=shown(body.metadata),
        asked=responses.echo(_echoed(body, data), stream.model, int(now)),
        keep=max(stream.grace, _UNSTORED) if body.store is False else math.inf,
    )
    return ChatRequest(stream, responses.create, smooth, whole=not body.stream)


class Responses:
    """The endpoints."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    async def open(self, request: Request) -> Response:
        """`POST /v1/responses`: start a stream, and answer with it, with all of it, or at once with what it is so far.

        A repeated idempotency key attaches to the stream that it stands for, and a position resumes its stream.
        """
        streams = self._streams
        position = parse_position(request)
        if position is not None:
            return await streams.resume(request, position, responses.create)
        data = await streams.body(request)
        resolved = data
        if isinstance(data, dict) and isinstance(data.get("input"), list):
            await check_sealed(item.get("encrypted_content") for item in data["input"] if isinstance(item, dict))
            resolved = {**data, "input": await self._resolved(request, data["input"])}
        defaults = streams.options.defaults
        asked = parse_response(resolved, request.headers, defaults, time.time(), keyed=is_keyed(request))
        if not asked.whole:
            return await streams.answer(request, asked, data)
        if data.get("background"):
            stream_id = await streams.open(request, asked, data, attach=False)
            # Not a snapshot, which takes a reader's place: the stream is open, and may not be refused any more.
            log = await streams.hub.log_of(stream_id, request_context(request.scope).principal)
            return streams.whole(stream_id, log, _encoded)
        stream_id = await streams.open(request, asked, data)
        log = await streams.collect(request, stream_id)
        end = ending(log)
        if isinstance(end, Failure):
            return error_response(end, request_context(request.scope))
        return streams.whole(stream_id, log, _encoded)

    async def response(self, request: Request) -> Response:
        """`/v1/responses/{id}`: one route for both methods, as in the native dialect."""
        return await (self.delete if request.method == "DELETE" else self.retrieve)(request)

    async def retrieve(self, request: Request) -> Response:
        """`GET /v1/responses/{id}`: the response so far; with `stream=true` its events, from the start or after one.

        The event is named by its number, `starting_after`, or by a position.
        """
        stream_id = _stream_id(request)
        query = request.query_params
        position = parse_position(request)
        after = query.get("starting_after")
        if position is not None:
            if position.stream_id != stream_id:
                raise BadRequest("The last event id is another response's.", param="last_event_id")
            return await self._streams.resume(request, position, responses.create)
        streaming = query.get("stream", "false")
        if streaming not in ("true", "false"):
            raise BadRequest("'stream' is 'true' or 'false'.", param="stream")
        if streaming == "false":
            if after is not None:
                raise BadRequest("'starting_after' needs 'stream=true'.", param="starting_after")
            return await self._streams.snapshot(request, stream_id, _encoded)
        if after is None:
            return await self._streams.read(request, stream_id, responses.create)
        position = await self._position(request, stream_id, after)
        answer = await self._streams.resume(request, position, responses.create)
        if answer.status_code != 204:
            return answer
        # The SDKs expect events wherever they ask for a stream, and be it none.
        return Response(b"", headers=dict(answer.headers), media_type="text/event-stream")

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/responses/{id}/cancel`: stop it. Answers with the whole response; harmless once it has ended."""
        stream_id = await _stopped_id(request)
        log = await self._streams.stop(request, stream_id)
        return self._streams.whole(stream_id, log, _encoded)

    async def delete(self, request: Request) -> Response:
        """`DELETE /v1/responses/{id}`: stop it, and keep it no longer."""
        stream_id = await _stopped_id(request)
        await self._streams.remove(request, stream_id)
        gone = {"id": response_id(stream_id), "object": "response", "deleted": True}
        return Response(orjson.dumps(gone), headers={"X-Stream-Id": stream_id}, media_type="application/json")

    async def _position(self, request: Request, stream_id: str, after: str) -> EventId:
        """Return the position after the event number *after*. Raises what `Streams.snapshot` does, and BadRequest."""
        if not re.fullmatch("[0-9]{1,12}", after, re.ASCII):
            raise BadRequest("'starting_after' is the number of an event.", param="starting_after")
        log = await self._streams.hub.log_of(stream_id, request_context(request.scope).principal)
        self._streams.take_place(request, log)  # before the log is read for it
        encoder = responses.ResponsesEncoder(Reading(stream_id, asked=log.info.asked))
        position = await find(log, Finder(stream_id, int(after) + 1, encoder.count))
        if position is None:
            raise BadRequest("There is no such event yet.", param="starting_after")
        return position

    async def _resolved(self, request: Request, items: Sequence[Any]) -> list[Any]:
        """Return *items* with those that are references replaced by what they refer to.

        Raises UnknownStream, TooLarge if what they refer to is larger than a body may be, or what `Hub.reserve` does.
        """
        resolved = list(items)
        places: dict[str, list[int]] = {}  # by the stream that is referred to, the places of the references
        for at, item in enumerate(items):
            if isinstance(item, dict) and (item.get("type") == "item_reference" or item.keys() == {"id"}):
                match = ITEM_ID.fullmatch(item["id"]) if isinstance(item.get("id"), str) else None
                if match is None:
                    raise _unknown_item(at, item.get("id"))
                places.setdefault(match[1], []).append(at)
        if len(places) > _MOST_REFERRED:
            raise BadRequest(f"'input' refers to items of more than {_MOST_REFERRED} responses.", param="input")
        if places:
            # It reads whole responses, so it takes a reader's place, as any other who does.
            with self._streams.hub.reserve(request_context(request.scope).principal):
                await self._resolve(request, items, places, resolved)
        return resolved

    async def _resolve(
        self, request: Request, items: Sequence[Any], places: Mapping[str, Sequence[int]], resolved: list[Any]
    ) -> None:
        """Put what *items* refer to into its *places* in *resolved*. Raises what `_resolved` does."""
        most = self._streams.options.max_body
        size = 0
        for stream_id, references in places.items():
            found = await self._items(request, stream_id)
            for at in references:
                item_id = items[at]["id"]
                if item_id not in found:
                    raise _unknown_item(at, item_id)
                resolved[at] = found[item_id]
                # A text that is too long as it is is not encoded to be measured, because that would hold the loop.
                characters = _characters(resolved[at])
                size += characters if characters > most else len(orjson.dumps(resolved[at]))
                if size > most:
                    raise TooLarge(f"'input[{at}]' refers to more than a request may hold.")

    async def _items(self, request: Request, stream_id: str) -> dict[str, dict[str, Any]]:
        """Return the items of a response of the caller's by their ids; none if it is not kept."""
        try:
            log = await self._streams.hub.log_of(stream_id, request_context(request.scope).principal)
        except UnknownStream:
            return {}
        return {item["id"]: item for item in (await response_of(stream_id, log))["output"]}


def routes(streams: Streams) -> Sequence[Route]:
    """Return the routes of this dialect."""
    endpoints = Responses(streams)
    return [
        Route("/v1/responses", endpoints.open, methods=["POST"]),
        Route("/v1/responses/{response_id}", endpoints.response, methods=["GET", "DELETE"]),
        Route("/v1/responses/{response_id}/cancel", endpoints.cancel, methods=["POST"]),
    ]


def _unknown_item(at: int, item_id: Any) -> UnknownStream:
    name = item_id if isinstance(item_id, str) and _NAME.fullmatch(item_id) else "an item"
    return UnknownStream(f"'input[{at}]' refers to {name}, which is not kept here.", param=f"input[{at}].id")


def _check_names(others: Mapping[str, Any]) -> None:
    """Raise BadRequest unless the fields that are not known here may go upstream."""
    wrong = sorted(others.keys() & OF_CHATS)
    if wrong:
        raise BadRequest(f"'{wrong[0]}' is not a field of a response: chat completions have it.", param=wrong[0])
    check_names(others, ResponseBody.model_fields.keys() | REFUSED.keys() | OF_CHATS)


def _parameters(body: ResponseBody, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that chat completions have, too, in their words."""
    found: dict[str, Any] = {name: data[name] for name in _SAME if data.get(name) is not None}
    text = data.get("text") or {}
    effort = body.reasoning.effort if body.reasoning else None
    given = {
        "max_completion_tokens": body.max_output_tokens,
        "reasoning_effort": effort,
        "response_format": to_response_format(text.get("format")),
        "verbosity": text.get("verbosity"),
    }
    if body.tools:
        given |= {
            "tools": [to_tool(tool) for tool in data["tools"]],
            "tool_choice": to_choice(data.get("tool_choice")),
            "parallel_tool_calls": body.parallel_tool_calls,
        }
    if body.top_logprobs or _LOGPROBS in (body.include or ()):
        given |= {"logprobs": True, "top_logprobs": body.top_logprobs}
    return found | {name: value for name, value in given.items() if value is not None}


def _for_responses(body: ResponseBody, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an upstream that speaks Responses is told besides."""
    found = {name: data[name] for name in _RESPONSES_ONLY if data.get(name) is not None}
    more = (body.reasoning.model_extra or {}) if body.reasoning else {}
    return found | ({"reasoning": more} if more else {})


def _echoed(body: ResponseBody, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that the response says again, with all that OpenAI's specification requires in them."""
    said = dict(data)
    if body.text:
        said["text"] = {"format": {"type": "text"}, **_given(data["text"])}
    if body.reasoning:
        said["reasoning"] = {"effort": None, "summary": None, **_given(data["reasoning"])}
    if body.tools:
        lacking = {"description": None, "parameters": None, "strict": None}
        said["tools"] = [({**lacking, **tool} if tool.get("type") == "function" else tool) for tool in data["tools"]]
    return said


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _stream_id(request: Request) -> str:
    """Return the id of the stream that the response in the path is. Raises UnknownStream."""
    match = _RESPONSE_ID.fullmatch(request.path_params["response_id"])
    if match is None:
        raise UnknownStream
    return match[1]


def _characters(value: object) -> int:
    """Return how long all strings in *value*, which is JSON, are together."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list) else 0


async def _stopped_id(request: Request) -> str:
    """Return what `_stream_id` does. A stop that names no response counts as a request, as that of an unknown one."""
    try:
        return _stream_id(request)
    except UnknownStream:
        await request_context(request.scope).count()
        raise


async def _encoded(stream_id: str, log: Log) -> bytes:
    return orjson.dumps(await response_of(stream_id, log))
