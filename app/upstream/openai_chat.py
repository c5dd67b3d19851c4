"""OpenAI's chat completions, and everything that calls itself compatible with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import httpx

from app.errors import Rejected
from app.request import StreamRequest
from app.upstream import Attempt, Batches
from app.upstream.endpoint import OWN_HEADERS, Endpoint, encoded, refusal, relay
from app.upstream.http import client as transport
from app.upstream.http.client import Read
from app.upstream.reading.chat import chat_reader

__all__ = ["OWN_FIELDS", "OWN_HEADERS", "OpenAIChat"]

# What no operator's field may replace: they are what is asked, and how it is answered.
OWN_FIELDS = frozenset({"messages", "model", "stream", "stream_options"})


class OpenAIChat:
    """One chat-completions upstream. *base_url* includes the version: `https://api.openai.com/v1`.

    *headers* go with each request, and *extra_body* into its body, where it replaces what the client says: OWN_HEADERS
    and OWN_FIELDS are not for them to name.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        base_url: str,
        api_key: str | None,
        max_event: int,
        headers: Mapping[str, str] = MappingProxyType({}),
        extra_body: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._endpoint = Endpoint(client, f"{base_url.rstrip('/')}/chat/completions", api_key, headers, extra_body)
        self._extra_body = dict(extra_body)
        self._max_event = max_event
        self._reports_usage = True

    def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
        """See `Source.stream`."""
        secrets = self._endpoint.secrets(request)
        return relay(chat_reader(self._max_event, secrets), self._asked(request, secrets, attempt), attempt)

    @asynccontextmanager
    async def _asked(self, request: StreamRequest, secrets: Sequence[str], attempt: Attempt) -> AsyncIterator[Read]:
        """Ask, and give what reads the answer. Raises UpstreamError."""
        ask_usage = self._reports_usage
        while True:
            async with self._endpoint.post(request, _body(request, self._extra_body, ask_usage), attempt) as response:
                if response.status_code == 200:
                    # H11: without it, it worked. Remembered, so that it costs one request and not one each; and only
                    # now, since an upstream that quotes the request in every refusal names the field, too.
                    self._reports_usage = ask_usage
                    yield transport.reading(response)
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
    return encoded(fields)
