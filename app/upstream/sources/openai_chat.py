"""OpenAI's chat completions, and every upstream that calls itself compatible with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from app.errors import Rejected
from app.request import StreamRequest
from app.upstream import Attempt, Batches, Source
from app.upstream.endpoint import Endpoint, encode, refusal, stream_answer
from app.upstream.http.client import Read, reading
from app.upstream.reading.chat import chat_reader

OWN_FIELDS = frozenset({"messages", "model", "stream", "stream_options"})
BACKGROUND = False


def create(endpoint: Endpoint, max_event: int, background: bool = False) -> Source:
    """See `SourceModule.create`."""
    return OpenAIChat(endpoint, max_event)


class OpenAIChat:
    """A `Source` that asks *endpoint*."""

    def __init__(self, endpoint: Endpoint, max_event: int) -> None:
        self._endpoint = endpoint
        self._max_event = max_event
        self._reports_usage = True

    def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
        """See `Source.stream`."""
        secrets = self._endpoint.secrets(request)
        reader = chat_reader(self._max_event, secrets)
        return stream_answer(reader, self._asked(request, secrets, attempt), attempt, request.pause)

    @asynccontextmanager
    async def _asked(self, request: StreamRequest, secrets: Sequence[str], attempt: Attempt) -> AsyncIterator[Read]:
        """Ask, and give what reads the answer. Raises UpstreamError."""
        ask_usage = self._reports_usage
        while True:
            body = _body(request, self._endpoint.extra_body, ask_usage)
            async with self._endpoint.ask("/chat/completions", request, body, attempt) as response:
                if response.status_code == 200:
                    # Row H11: without it, it worked. It is remembered, so that it costs one request and not one each;
                    # and only now, because an upstream that quotes the request in every refusal names the field, too.
                    self._reports_usage = ask_usage
                    yield reading(response)
                    return
                error, said = await refusal(response, secrets)
            if not (ask_usage and isinstance(error, Rejected) and b"stream_options" in said):
                raise error
            ask_usage = False


def _body(request: StreamRequest, extra: Mapping[str, Any], ask_usage: bool) -> bytes:
    fields: dict[str, Any] = {"model": request.model, "messages": request.messages, **request.parameters, **extra}
    fields["stream"] = True
    if ask_usage:
        fields["stream_options"] = {"include_usage": True}
    return encode(fields)
