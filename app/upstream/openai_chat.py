"""OpenAI's chat completions, and everything that calls itself compatible with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from types import MappingProxyType
from typing import Any

import httpx
import orjson

from app.errors import Rejected, UpstreamError
from app.model import Content, Done, StreamRequest, Trace
from app.upstream import envelope, transport
from app.upstream.reader import ChatReader

# How long to wait, in seconds, for what may follow a finish reason: usage, late content, [DONE] (C19, section 5).
_AFTER_FINISH = 3.0
# How long to wait for the end of the body after [DONE], so that the connection can be used again (F22).
_AFTER_DONE = 0.1
_MAX_ERROR_BODY = 64 * 1024
# How long to wait for it: the status is known, and must not be lost to a body that stalls.
_ERROR_BODY_WAIT = 2.0

# What no operator's header or field may replace: they are how a request is framed, and what it asks.
OWN_HEADERS = frozenset(
    {"accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "cookie"}
    | {"expect", "host", "keep-alive", "te", "traceparent", "trailer", "transfer-encoding", "upgrade"}
)
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
        self._client = client
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._headers |= headers
        self._extra_body = dict(extra_body)
        # Of a header such as `Bearer KEY`, upstream may quote the whole or a word.
        words = (word for value in headers.values() for word in (value, *value.split()))
        self._secrets = [*([api_key] if api_key else []), *words, *_strings(self._extra_body)]
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
        trace.attempts += 1
        trace.status = None
        content = _body(request, self._extra_body, ask_usage)
        headers = self._headers | {"traceparent": request.traceparent} if request.traceparent else self._headers
        secrets = [*_strings(request.messages), *_strings(request.parameters), *self._secrets]
        try:
            async with transport.post(self._client, self._url, headers, content) as response:
                trace.status = response.status_code
                trace.answers.append((trace.upstream, str(response.status_code)))
                trace.request_id = _bounded(response.headers.get("x-request-id"))
                if response.status_code != 200:
                    error_body = await transport.read_capped(response, _MAX_ERROR_BODY, _ERROR_BODY_WAIT)
                    refusal = envelope.refusal(response.status_code, response.headers, error_body, secrets)
                    if ask_usage and isinstance(refusal, Rejected) and b"stream_options" in error_body:
                        raise _UsageRefused
                    raise refusal
                yield ()
                reader = ChatReader(self._max_event, secrets)
                try:
                    async with (
                        aclosing(transport.body(response)) as chunks,
                        aclosing(self._read(reader, chunks, trace)) as batches,
                    ):
                        async for batch in batches:
                            yield batch
                finally:
                    trace.usage, trace.model = reader.usage, reader.model
                    trace.replaced_bytes = reader.replaced_bytes
                    trace.cut_after_finish = reader.cut_after_finish
        except UpstreamError as error:
            if trace.status is None:
                trace.answers.append((trace.upstream, error.code))
            raise

    async def _read(
        self, reader: ChatReader, chunks: AsyncGenerator[bytes, None], trace: Trace
    ) -> AsyncGenerator[Sequence[Content | Done], None]:
        now = asyncio.get_running_loop().time
        try:
            async for data in chunks:
                yield reader.feed(data)
                if reader.finished or reader.ended:
                    break
            if not reader.ended:
                trace.done = reader.outlook
            async with aclosing(transport.until(now() + _AFTER_FINISH, chunks)) as rest:
                while not reader.ended and (late := await anext(rest, None)) is not None:
                    yield reader.feed(late)
            yield reader.eof()
        except UpstreamError as error:
            yield reader.cut(error)
        yield (reader.result(),)
        with suppress(UpstreamError):
            async with aclosing(transport.until(now() + _AFTER_DONE, chunks)) as rest:
                async for _ in rest:
                    pass


class _UsageRefused(Exception):
    """Upstream does not know `stream_options`."""


def _body(request: StreamRequest, extra: Mapping[str, Any], ask_usage: bool) -> bytes:
    fields: dict[str, Any] = {"model": request.model, "messages": request.messages, **request.parameters, **extra}
    fields["stream"] = True
    if ask_usage:
        fields["stream_options"] = {"include_usage": True}
    # Copied, because orjson's own result keeps a buffer of 4 KiB or more, and this is held as long as the stream lives.
    return memoryview(orjson.dumps(fields)).tobytes()


def _strings(value: object) -> Iterator[str]:
    """Yield what the client wrote: upstream may quote it in an error, where it must not come back."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)


def _bounded(value: str | None) -> str | None:
    return None if value is None else value[:128]
