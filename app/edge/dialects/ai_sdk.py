"""Vercel's dialect over HTTP: what `useChat` asks for when its `api` is `/v1/ai-sdk/chat`.

It names chats and not streams, so a stream is opened with its chat's id for a label, and the chat's newest one is
meant by that.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from app.edge.bodies import Defaults, ModelName, Parameters, Short, parse_chunk, parse_grace, validated
from app.edge.context import request_context
from app.edge.dialects.ui_messages import UIMessage, to_openai
from app.edge.streams import Streams
from app.errors import UnknownStream
from app.hub import Subscription
from app.rechunk import lag
from app.request import StreamRequest
from app.wire import Reading
from app.wire.ai_sdk import UIMessageEncoder

# How many characters a chat id has that is not guessed: those of useChat's own.
_UNGUESSED = 16


class UIChatBody(Parameters):
    """The body of `POST /v1/ai-sdk/chat`: what `useChat` sends, and what it is told to send besides (its `body`)."""

    id: Annotated[str, StringConstraints(max_length=256, pattern=r"^[^/\x00-\x1f\x7f]+$")]  # it stands in a path
    messages: Annotated[list[UIMessage], Field(min_length=1, max_length=4096)]
    trigger: Literal["submit-message", "regenerate-message"] | None = None
    messageId: Short | None = None
    model: ModelName | None = None
    chunk: Short | None = None
    on_disconnect: Short | None = None


class UIChat(NamedTuple):
    """A request of the *chat* with that id; its answer *continues* the page's last message or is a new one.

    *smooth* spreads bursts over so many seconds.
    """

    chat: str
    stream: StreamRequest
    continues: bool
    smooth: float


def parse_ui_chat(data: Any, defaults: Defaults) -> UIChat:
    """Turn the parsed body of `POST /v1/ai-sdk/chat` into a request. Raises BadRequest."""
    body = validated(UIChatBody, data)
    chunk, smooth = parse_chunk(body.chunk or "", defaults.chunk)
    request = StreamRequest(
        model=body.model or defaults.model,
        messages=tuple(to_openai(data["messages"])),
        parameters={name: data[name] for name in Parameters.model_fields if data.get(name) is not None},
        chunk=chunk,
        grace=defaults.grace if body.on_disconnect is None else parse_grace(body.on_disconnect, defaults.max_grace),
    )
    # That the last one is the assistant's is what tells an answer to its tools' outputs; the trigger does not.
    return UIChat(body.id, request, body.messages[-1].role == "assistant", smooth)


class AiSdk:
    """The endpoints of the AI SDK's dialect."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    async def open(self, request: Request) -> Response:
        """`POST /v1/ai-sdk/chat`: start a stream and answer with it."""
        streams = self._streams
        data = await streams.body(request)
        asked = parse_ui_chat(data, streams.options.defaults)
        stream_id = await streams.open(request, asked.stream, data, label=_label(request, asked.chat))

        def continuing(subscription: Subscription) -> UIMessageEncoder:
            return encoder(subscription, continues=asked.continues)

        return await streams.read(request, stream_id, continuing, smooth=asked.smooth, hold=streams.options.hold)

    async def stream(self, request: Request) -> Response:
        """`/v1/ai-sdk/chat/{chat_id}/stream`: one route for both methods, lest a 405 names the first one's only."""
        return await (self.cancel if request.method == "DELETE" else self.resume)(request)

    async def resume(self, request: Request) -> Response:
        """`GET /v1/ai-sdk/chat/{chat_id}/stream`: the chat's newest stream, from its start; 204 if that is not live."""
        stream_id = await self._newest(request)
        if stream_id is not None:
            with suppress(UnknownStream):  # kept no longer
                if not (await self._streams.log_of(request, stream_id)).ended:
                    return await self._streams.read(request, stream_id, encoder)
        return _nothing()

    async def cancel(self, request: Request) -> Response:
        """`DELETE /v1/ai-sdk/chat/{chat_id}/stream`, and `POST …/cancel` for `sendBeacon`: the stop button.

        204, whether there was anything to stop or not.
        """
        stream_id = await self._newest(request)
        if stream_id is not None:
            with suppress(UnknownStream):  # kept no longer
                await self._streams.cancel(request, stream_id)
        return _nothing()

    async def _newest(self, request: Request) -> str | None:
        label = _label(request, request.path_params["chat_id"])
        return await self._streams.labelled(request, label) if label else None


def encoder(subscription: Subscription, *, continues: bool = False) -> UIMessageEncoder:
    """Return what encodes a stream for who reads it again, or came to know of it in another dialect."""
    merge_after = lag(subscription.log.info.chunk) or sys.maxsize
    return UIMessageEncoder(Reading(subscription.stream_id, merge_after=merge_after), continues=continues)


def _label(request: Request, chat_id: str) -> str:
    """Return what a chat's streams are found by; "" for none.

    Chat ids are the page's to choose. Where all callers are one principal, as nobody has credentials, a short one could
    be guessed, and the answer read by a stranger, or stopped.
    """
    known = request_context(request.scope).principal.name or len(chat_id) >= _UNGUESSED
    return f"ai-sdk:{chat_id}" if known else ""


def _nothing() -> Response:
    return Response(status_code=204)
