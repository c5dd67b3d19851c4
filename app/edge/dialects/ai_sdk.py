"""Vercel's dialect over HTTP: what `useChat` asks for when its `api` is `/v1/ai-sdk/chat`.

`useChat` names chats, not streams. So a stream is opened with a label that is made of its chat's id, and the chat's
newest stream is found by that.

With `?dialect=events` the answer is in native events, which the package `chat-sse-client` turns into the SDK's parts.

The SDK's `WorkflowChatTransport` names streams, which it calls runs, and counts the chunks that it has read. It sends
neither a chat id nor a content type, so a browser calls its JSON `text/plain`. Its page may have it send a chat id; so
any POST is answered with chunks that can be counted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.edge.accept import wanted_dialect
from app.edge.bodies import (
    ChatParameters,
    ChatRequest,
    Defaults,
    Short,
    parameters_of,
    shown,
    stream_request,
    validated,
)
from app.edge.client_ids import is_found_by
from app.edge.context import request_context
from app.edge.dialects.assistant_ui import AnyTools, CallSettings, ModelConfig, openai_parameters, openai_tools
from app.edge.dialects.ui_messages import UIMessage, to_openai
from app.edge.positions import find, parse_position
from app.edge.streams import Streams, is_keyed
from app.edge.transcripts import count_of
from app.errors import BadRequest, UnknownStream
from app.events import EventId, is_stream_id
from app.journal import Log
from app.request import Principal
from app.wire import Create, Reading, ai_sdk, dialects
from app.wire.counting import Finder

STREAM_ID_HEADERS = ("X-Workflow-Run-Id", "X-Resumable-Stream-Id")
"""The headers of an answer to a POST that have the stream's id: for `WorkflowChatTransport`, and for assistant-ui's."""
TAIL_INDEX = "X-Workflow-Stream-Tail-Index"
"""The header that has the index of the last chunk so far, from which a negative `startIndex` was counted."""

ERRORS = {"/v1/ai-sdk/": ai_sdk.refusal}

_START_INDEX = "startIndex"
_INDEX = re.compile("-?[0-9]{1,12}", re.ASCII)


class UIChatBody(ChatParameters):
    """The body of `POST /v1/ai-sdk/chat`: what `useChat` sends, and what its option `body` adds."""

    # It stands in a path.
    id: Annotated[str, StringConstraints(max_length=256, pattern=r"^[^/\x00-\x1f\x7f]+$")] | None = None
    messages: Annotated[list[UIMessage], Field(min_length=1, max_length=4096, fail_fast=True)]
    trigger: Literal["submit-message", "regenerate-message"] | None = None
    messageId: Short | None = None
    metadata: dict[str, Any] | None = None  # the page's own
    # What assistant-ui's transport adds.
    tools: AnyTools | None = None  # type: ignore[assignment]  # it takes more than the field that it stands for
    system: str | None = None
    callSettings: CallSettings | None = None
    config: ModelConfig | None = None


async def parse_ui_chat(data: Any, defaults: Defaults, principal: Principal, *, keyed: bool = False) -> ChatRequest:
    """Turn the parsed body of `POST /v1/ai-sdk/chat` into a request. Raises BadRequest.

    A page comes back by its chat's id, if that finds its streams, or by the stream's id if it has sent none of a chat.
    *keyed* is that of `stream_request`.
    """
    body = validated(UIChatBody, data)
    await asyncio.sleep(0)  # thousands of parts took time to validate, and take as much to convert
    messages = to_openai(data["messages"])
    if body.system:
        messages.insert(0, {"role": "system", "content": body.system})
    parameters = _parameters(body, data)
    model = body.model or (body.config.modelName if body.config else None)
    label = "" if body.id is None else _label(principal, body.id)
    returns = body.id is None or bool(label)
    chunk, policy = body.chunk, body.on_disconnect
    stream, smooth = stream_request(defaults, messages, parameters, model, chunk, policy, keyed=keyed, returns=returns)
    # An answer to the outputs of tools continues the assistant's message. The trigger does not tell the two apart.
    continues = body.messages[-1].role == "assistant"
    stream = replace(
        stream,
        metadata=shown({"chat_id": body.id} if body.id else None),
        asked=ai_sdk.CONTINUES if continues else "",
    )
    create = ai_sdk.CountedEncoder if body.id is None else ai_sdk.AskedEncoder
    return ChatRequest(stream, create, smooth, label=label)


class AiSdk:
    """The endpoints of the AI SDK's dialect."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    async def open(self, request: Request) -> Response:
        """`POST /v1/ai-sdk/chat`: start a stream and answer with it; with a position, resume one."""
        if _START_INDEX in request.query_params:
            raise BadRequest(f"'{_START_INDEX}' is for a GET of the stream.", param=_START_INDEX)
        answer = await self._open(request)
        for name in STREAM_ID_HEADERS:
            answer.headers[name] = answer.headers["X-Stream-Id"]
        return answer

    async def _open(self, request: Request) -> Response:
        position = parse_position(request)
        dialect = wanted_dialect(request, ai_sdk.NAME)
        create = dialects()[dialect]
        if position is not None:
            return await self._streams.resume(request, position, create)
        data = await self._streams.body(request, plain=True)
        principal = request_context(request.scope).principal
        asked = await parse_ui_chat(data, self._streams.options.defaults, principal, keyed=is_keyed(request))
        if dialect != ai_sdk.NAME:
            asked = replace(asked, create=create)
        return await self._streams.answer(request, asked, data)

    async def stream(self, request: Request) -> Response:
        """`/v1/ai-sdk/chat/{chat_id}/stream`: one route for both methods, as in the native dialect."""
        return await (self.cancel if request.method == "DELETE" else self.resume)(request)

    async def resume(self, request: Request) -> Response:
        """`GET /v1/ai-sdk/chat/{chat_id}/stream`: the chat's newest stream, from its start; 204 if that is not live.

        With a position it is the stream of that, which is one of the chat's; 204 if nothing is left of it. With a
        `startIndex` it is the newest stream, live or not, from that chunk on.
        """
        position = parse_position(request)
        dialect = wanted_dialect(request, ai_sdk.NAME)
        index = _start_index(request)
        if index is not None and (position is not None or dialect != ai_sdk.NAME):
            raise BadRequest(f"'{_START_INDEX}' counts the AI SDK's chunks, and stands alone.", param=_START_INDEX)
        if position is not None:
            return await self._resume_after(request, position, dialects()[dialect])
        log = await self._log(request)
        if index is not None:
            if log is None:
                raise UnknownStream
            return await self._resume_from(request, *log, index)
        if log is None or log[1].ended:
            return Response(status_code=204)
        return await self._streams.read(request, log[0], dialects()[dialect])

    async def _resume_after(self, request: Request, position: EventId, create: Create) -> Response:
        principal = request_context(request.scope).principal
        log = await self._streams.hub.log_of(position.stream_id, principal)
        name = request.path_params["chat_id"]
        if name != position.stream_id and not self._streams.hub.is_labelled(log, _label(principal, name), principal):
            raise BadRequest("The last event id is another chat's.", param="last_event_id")
        return await self._streams.resume(request, position, create)

    async def _resume_from(self, request: Request, stream_id: str, log: Log, index: int) -> Response:
        """Return an answer that begins with the chunk number *index*, or so many before the end if it is negative."""
        headers = {}
        self._streams.take_place(request, log)  # before the log is read for it
        if index < 0:
            count = await count_of(log, ai_sdk.UIMessageEncoder(Reading(stream_id)).count)
            headers[TAIL_INDEX] = str(count - 1)
            index = max(0, count + index)
        after = None
        if index:
            after = await find(log, Finder(stream_id, index, ai_sdk.UIMessageEncoder(Reading(stream_id)).count))
            if after is None:
                raise BadRequest("There is no such chunk yet.", param=_START_INDEX)
        answer = await self._streams.read(request, stream_id, ai_sdk.CountedEncoder, after=after)
        answer.headers.update(headers)
        return answer

    async def cancel(self, request: Request) -> Response:
        """`DELETE /v1/ai-sdk/chat/{chat_id}/stream`, and `POST …/cancel` for `sendBeacon`: the stop button.

        204, whether there was anything to stop or not.
        """
        found = await self._log(request)
        if found is None:
            await request_context(request.scope).count()
        else:
            with suppress(UnknownStream):  # it is no longer kept
                await self._streams.stop(request, found[0])
        return Response(status_code=204)

    async def _log(self, request: Request) -> tuple[str, Log] | None:
        """Return the stream that the path names, by its own id or as its chat's newest, with its log; None if none."""
        principal = request_context(request.scope).principal
        name = request.path_params["chat_id"]
        if is_stream_id(name):
            with suppress(UnknownStream):
                return name, await self._streams.hub.log_of(name, principal)
        label = _label(principal, name)
        stream_id = await self._streams.hub.labelled(label, principal) if label else None
        if stream_id is not None:
            with suppress(UnknownStream):  # it is no longer kept
                return stream_id, await self._streams.hub.log_of(stream_id, principal)
        return None


def routes(streams: Streams) -> Sequence[Route]:
    """Return the routes of this dialect."""
    chat = AiSdk(streams)
    return [
        Route("/v1/ai-sdk/chat", chat.open, methods=["POST"]),
        Route("/v1/ai-sdk/chat/{chat_id}/stream", chat.stream, methods=["GET", "DELETE"]),
        Route("/v1/ai-sdk/chat/{chat_id}/cancel", chat.cancel, methods=["POST"]),
    ]


def _parameters(body: UIChatBody, data: Mapping[str, Any]) -> dict[str, Any]:
    parameters = openai_parameters(body.callSettings, body.config) | parameters_of(data)
    parameters.pop("metadata", None)
    tools = parameters.pop("tools", None)
    if isinstance(tools, dict):
        tools = openai_tools(tools)
    return {**parameters, "tools": tools} if tools else parameters


def _label(principal: Principal, chat_id: str) -> str:
    """Return what a chat's streams are found by, or "" if a stranger could guess it."""
    return f"ai-sdk:{chat_id}" if is_found_by(chat_id, principal) else ""


def _start_index(request: Request) -> int | None:
    """Return how many chunks the client has, or, negative, how many of the last ones it wants. Raises BadRequest."""
    text = request.query_params.get(_START_INDEX)
    if text is None:
        return None
    if not _INDEX.fullmatch(text):
        raise BadRequest(f"'{_START_INDEX}' is a whole number.", param=_START_INDEX)
    return int(text)
