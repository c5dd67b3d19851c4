"""What the upstreams that speak one of OpenAI's dialects share: an endpoint to post to, and how its stream is read.

What an answer says of itself goes into its `Attempt`. All of it is per request; only `relay` is gone through for each
network read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from types import MappingProxyType
from typing import Any

import httpx
import orjson

from app.errors import UpstreamError
from app.request import StreamRequest
from app.upstream import Attempt, Batches
from app.upstream.http import client as transport
from app.upstream.http.client import Read
from app.upstream.reading import errors as envelope
from app.upstream.reading.answer import ENDED, OPEN
from app.upstream.reading.reader import AnswerReader

# How long to wait, in seconds, for what may follow a finish reason: usage, late content, [DONE] (C19, section 5).
_AFTER_FINISH = 3.0
# How long to wait for the end of the body after [DONE], so that the connection can be used again (F22).
_AFTER_DONE = 0.1
_MAX_ERROR_BODY = 64 * 1024
# How long to wait for it: the status is known, and must not be lost to a body that stalls.
_ERROR_BODY_WAIT = 2.0

# What no operator's header may replace: they are how a request is framed.
OWN_HEADERS = frozenset(
    {"accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "cookie"}
    | {"expect", "host", "keep-alive", "te", "traceparent", "trailer", "transfer-encoding", "upgrade"}
)


class Endpoint:
    """One address of an upstream's, and what goes with each request to it.

    *headers* are the operator's, of *extra_body* only the strings matter here: neither may come back in an error.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        api_key: str | None,
        headers: Mapping[str, str] = MappingProxyType({}),
        extra_body: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.client = client
        self.url = url
        self._headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._headers |= headers
        # Of a header such as `Bearer KEY`, upstream may quote the whole or a word.
        words = (word for value in headers.values() for word in (value, *value.split()))
        self._secrets = [*([api_key] if api_key else []), *words, *_strings(extra_body)]

    def headers(self, request: StreamRequest) -> dict[str, str]:
        """Return what goes with everything that is asked for the sake of *request*."""
        return self._headers | {"traceparent": request.traceparent} if request.traceparent else self._headers

    def secrets(self, request: StreamRequest) -> list[str]:
        """Return what no error message may hold."""
        return [*_strings(request.messages), *_strings(request.parameters), *self._secrets]

    @asynccontextmanager
    async def post(self, request: StreamRequest, content: bytes, attempt: Attempt) -> AsyncIterator[httpx.Response]:
        """Send *content* for *request*, and give the response, whatever its status. Raises UpstreamError."""
        attempt.status = None
        attempt.answers.append("")
        try:
            async with transport.post(self.client, self.url, self.headers(request), content) as response:
                attempt.status = response.status_code
                attempt.answers[-1] = str(response.status_code)
                attempt.request_id = _bounded(response.headers.get("x-request-id"))
                yield response
        except UpstreamError as error:
            if attempt.status is None:
                attempt.answers[-1] = error.code
            raise


async def refusal(response: httpx.Response, secrets: Sequence[str]) -> tuple[UpstreamError, bytes]:
    """Return what a response means whose status is an error, and the beginning of its body."""
    body = await transport.read_capped(response, _MAX_ERROR_BODY, _ERROR_BODY_WAIT)
    return envelope.read_refusal(response.status_code, response.headers, body, secrets), body


async def relay(reader: AnswerReader, asked: AbstractAsyncContextManager[Read], attempt: Attempt) -> Batches:
    """Yield what *reader* finds in the body of what was *asked*, as `Source.stream` has it.

    This is the one generator that a batch passes between the socket and whoever relays it. The request is made, and
    ended, in here, and *attempt* completed, however it ends.
    """
    async with asked as read:
        yield ()
        feed = reader.feed
        try:
            try:
                pause = None
                with transport.faults(answered=True):
                    while data := await read(pause):
                        pause = yield feed(data)
                        if reader.answer.state is not OPEN:
                            break
                if reader.answer.state is not ENDED:
                    attempt.done = reader.answer.done
                async with aclosing(_late(reader, read)) as late:
                    async for batch in late:
                        yield batch
                yield reader.eof()
            except UpstreamError as error:
                yield reader.cut(error)
            yield (reader.result(),)
            with suppress(UpstreamError, TimeoutError):
                async with asyncio.timeout(_AFTER_DONE):
                    with transport.faults(answered=True):
                        while await read(None):
                            pass
        finally:
            attempt.usage, attempt.model = reader.answer.usage, reader.answer.model
            attempt.replaced_bytes = reader.replaced_bytes
            attempt.cut_after_finish = reader.answer.cut_after_finish


async def _late(reader: AnswerReader, read: Read) -> Batches:
    """Yield what follows a finish reason, if that comes soon. Raises UpstreamError."""
    until = asyncio.get_running_loop().time() + _AFTER_FINISH
    with suppress(TimeoutError):
        while reader.answer.state is not ENDED:
            async with asyncio.timeout_at(until):
                with transport.faults(answered=True):
                    data = await read(None)
            if not data:
                return
            yield reader.feed(data)


def encoded(fields: Mapping[str, Any]) -> bytes:
    """Return a request's body. Copied, because orjson's own result keeps a buffer of 4 KiB or more."""
    return memoryview(orjson.dumps(fields)).tobytes()  # and it is held as long as the stream lives


def _strings(value: object) -> Iterator[str]:
    """Yield what was written: upstream may quote it in an error, where it must not come back."""
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
