"""OpenAI's chat completions, and everything that calls itself compatible with them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Any

import httpx

from app.errors import Rejected
from app.model import Content, Done, StreamRequest, Trace
from app.upstream import transport
from app.upstream.endpoint import OWN_HEADERS, Endpoint, encoded, refusal, relay
from app.upstream.reader import ChatReader

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

    async def stream(self, request: StreamRequest, trace: Trace) -> AsyncGenerator[Sequence[Content | Done], None]:
        try:
            async with aclosing(self._attempt(request, trace, self._reports_usage)) as batches:
                async for batch in batches:
                    yield batch
                return
        except _UsageRefused:
            pass
        async with aclosing(self._attempt(request, trace, ask_usage=False)) as batches:
            async for batch in batches:
                # H11: without it, it worked. Remembered, so that it costs one request and not one each; and only now,
                # since an upstream that quotes the request in every refusal names the field, too.
                self._reports_usage = False
                yield batch

    async def _attempt(
        self, request: StreamRequest, trace: Trace, ask_usage: bool
    ) -> AsyncGenerator[Sequence[Content | Done], None]:
        content = _body(request, self._extra_body, ask_usage)
        secrets = self._endpoint.secrets(request)
        async with self._endpoint.post(request, content, trace) as response:
            if response.status_code != 200:
                error, said = await refusal(response, secrets)
                if ask_usage and isinstance(error, Rejected) and b"stream_options" in said:
                    raise _UsageRefused
                raise error
            yield ()
            reader = ChatReader(self._max_event, secrets)
            async with aclosing(relay(reader, transport.body(response), trace)) as batches:
                async for batch in batches:
                    yield batch


class _UsageRefused(Exception):
    """Upstream does not know `stream_options`."""


def _body(request: StreamRequest, extra: Mapping[str, Any], ask_usage: bool) -> bytes:
    fields: dict[str, Any] = {"model": request.model, "messages": request.messages, **request.parameters, **extra}
    fields["stream"] = True
    if ask_usage:
        fields["stream_options"] = {"include_usage": True}
    return encoded(fields)
