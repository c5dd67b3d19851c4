"""Vercel's dialect over HTTP: what `useChat` asks for when its `api` is `/v1/ai-sdk/chat`.

`useChat` names chats, not streams. So a stream is opened with a label that is made of its chat's id, and the chat's
newest stream is found by that.

With `?dialect=events` the answer is in native events, which the package `chat-sse-client` turns into the SDK's parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
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
from app.edge.context import request_context
from app.edge.dialects.assistant_ui import AnyTools, CallSettings, ModelConfig, openai_parameters, openai_tools
from app.edge.dialects.ui_messages import UIMessage, to_openai
from app.edge.positions import parse_position
from app.edge.streams import Streams, is_keyed
from app.errors import BadRequest, UnknownStream
from app.events import EventId
from app.request import Principal
from app.wire import Create, ai_sdk, dialects

ERRORS = {"/v1/ai-sdk/": ai_sdk.refusal}

# How many characters a chat id has at least that cannot be guessed: those of useChat's own.
_UNGUESSED = 16


class UIChatBody(ChatParameters):
    """The body of `POST /v1/ai-sdk/chat`: what `useChat` sends, and what its option `body` adds."""

    id: Annotated[str, StringConstraints(max_length=256, pattern=r"^[^/\x00-\x1f\x7f]+$")]  # it stands in a path
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

    A page comes back by its chat's id, if that finds its streams. *keyed* is that of `stream_request`.
    """
    body = validated(UIChatBody, data)
    await asyncio.sleep(0)  # thousands of parts took time to validate, and take as much to convert
    messages = to_openai(data["messages"])
    if body.system:
        messages.insert(0, {"role": "system", "content": body.system})
    parameters = _parameters(body, data)
    model = body.model or (body.config.modelName if body.config else None)
    label = _label(principal, body.id)
    chunk, policy = body.chunk, body.on_disconnect
    stream, smooth = stream_request(
        defaults, messages, parameters, model, chunk, policy, keyed=keyed, returns=bool(label)
    )
    # An answer to the outputs of tools continues the assistant's message. The trigger does not tell the two apart.
    continues = body.messages[-1].role == "assistant"
    create = partial(ai_sdk.UIMessageEncoder, continues=continues)
    return ChatRequest(replace(stream, metadata=shown({"chat_id": body.id})), create, smooth, label=label)


class AiSdk:
    """The endpoints of the AI SDK's dialect."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    async def open(self, request: Request) -> Response:
        """`POST /v1/ai-sdk/chat`: start a stream and answer with it; with a position, resume one."""
        position = parse_position(request)
        dialect = wanted_dialect(request, ai_sdk.NAME)
        create = dialects()[dialect]
        if position is not None:
            return await self._streams.resume(request, position, create)
        data = await self._streams.body(request)
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

        With a position it is the stream of that, which is one of the chat's; 204 if nothing is left of it.
        """
        position = parse_position(request)
        create = dialects()[wanted_dialect(request, ai_sdk.NAME)]
        if position is not None:
            return await self._resume_after(request, position, create)
        stream_id = await self._newest(request)
        if stream_id is not None:
            with suppress(UnknownStream):  # it is no longer kept
                log = await self._streams.hub.log_of(stream_id, request_context(request.scope).principal)
                if not log.ended:
                    return await self._streams.read(request, stream_id, create)
        return Response(status_code=204)

    async def _resume_after(self, request: Request, position: EventId, create: Create) -> Response:
        principal = request_context(request.scope).principal
        log = await self._streams.hub.log_of(position.stream_id, principal)
        if log.info.label != _label(principal, request.path_params["chat_id"]):
            raise BadRequest("The last event id is another chat's.", param="last_event_id")
        return await self._streams.resume(request, position, create)

    async def cancel(self, request: Request) -> Response:
        """`DELETE /v1/ai-sdk/chat/{chat_id}/stream`, and `POST …/cancel` for `sendBeacon`: the stop button.

        204, whether there was anything to stop or not.
        """
        stream_id = await self._newest(request)
        if stream_id is None:
            await request_context(request.scope).count()
        else:
            with suppress(UnknownStream):  # it is no longer kept
                await self._streams.stop(request, stream_id)
        return Response(status_code=204)

    async def _newest(self, request: Request) -> str | None:
        principal = request_context(request.scope).principal
        label = _label(principal, request.path_params["chat_id"])
        return await self._streams.hub.labelled(label, principal) if label else None


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
    """Return what a chat's streams are found by, or "" if a request must not find them.

    A page chooses its chat ids. Where no credentials are asked for, all callers are one principal, so a stranger could
    guess a short id, and read the answer or stop it.
    """
    return f"ai-sdk:{chat_id}" if principal.name or len(chat_id) >= _UNGUESSED else ""
