"""One upstream as HTTP reaches it: its address, what goes with each request, and how its answer is streamed.

All of it is per request; only `stream_answer` is gone through for each network read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from types import MappingProxyType
from typing import Any

import httpx
import orjson

from app.errors import Malformed, Misaddressed, UpstreamError
from app.events import Content
from app.request import StreamRequest, texts_in
from app.turns import ROOM, turn
from app.upstream import Attempt, Batches
from app.upstream.http.client import Client, Read, headers_of, read_capped, response_to, send
from app.upstream.reading.answer import ENDED, OPEN
from app.upstream.reading.errors import read_refusal
from app.upstream.reading.reader import AnswerReader
from app.upstream.reading.redaction import presenter

# How many seconds to wait for what may follow a finish reason, and for more after each content that does: usage, late
# content, `[DONE]` (row C19).
AFTER_FINISH = 3.0
# How many seconds to wait for the end of the body after the end of the answer, so that the connection can be used
# again (row F22).
_AFTER_END = 0.1
_MOST_UNSTREAMED = 1024
_STREAM = "text/event-stream"
_JSON = "application/json"
# How many bytes of a body are read in one step: a thousand short events.
_SLICE = 64 * 1024
_MAX_ERROR_BODY = 64 * 1024  # bytes
# How many seconds to wait for that: the status is known, and must not be lost to a body that stalls.
_ERROR_BODY_WAIT = 2.0

OWN_HEADERS = frozenset(
    {"accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "cookie"}
    | {"expect", "host", "keep-alive", "te", "traceparent", "trailer", "transfer-encoding", "upgrade"}
)
"""The headers that frame a request, so that no operator's header may replace them."""


class Endpoint:
    """One upstream's address. *base_url* includes the version: `https://api.openai.com/v1`.

    The operator's *headers* go with each request, and *extra_body* into its body, where it replaces what the client
    says.
    """

    def __init__(
        self,
        client: Client,
        base_url: str,
        api_key: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        extra_body: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.extra_body = extra_body
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._secrets = list(texts_in(extra_body))
        for value in headers.values():
            self._secrets += (value, *value.split())  # of `Bearer KEY`, the upstream may quote the whole or a word
        if api_key:
            headers = {"Authorization": f"Bearer {api_key}", **headers}
            self._secrets.append(api_key)
        self._getting = headers_of({"Accept": _JSON}, headers)
        self._posting = {
            accept: headers_of({"Content-Type": _JSON, "Accept": accept}, headers) for accept in (_STREAM, _JSON)
        }

    def secrets(self, request: StreamRequest) -> list[str]:
        """Return the texts of the operator's that no error message may hold."""
        return [*request.secrets, *self._secrets]

    async def ask(
        self, path: str, request: StreamRequest, content: bytes, attempt: Attempt, *, accept: str = _STREAM
    ) -> httpx.Response:
        """Post *content* for *request*, and return the response, if it is an answer. Raises UpstreamError.

        It has to be closed. Any 2xx is an answer (row H30): the status says what the upstream thinks of what was asked,
        and the body is it.
        """
        attempt.status = None
        attempt.sent = False
        attempt.answers.append("")

        def sending() -> None:
            attempt.sent = True

        headers = self._headers_for(request, accept)
        try:
            response = await response_to(self._client, "POST", self._base_url + path, headers, content, sending)
        except UpstreamError as error:
            attempt.answers[-1] = error.code
            raise
        try:
            attempt.status = response.status_code
            attempt.answers[-1] = str(response.status_code)
            request_id: str | None = response.headers.get("x-request-id")
            attempt.request_id = request_id[:128] if request_id is not None else None
            if not response.is_success:
                raise await self._refusal(response, request)
        except BaseException:
            await response.aclose()
            raise
        return response

    def post(self, path: str, request: StreamRequest) -> AbstractAsyncContextManager[httpx.Response]:
        """Send a POST without content, on behalf of *request*. Raises UpstreamError."""
        return send(self._client, "POST", self._base_url + path, self._headers_for(request, _STREAM))

    async def _refusal(self, response: httpx.Response, request: StreamRequest) -> UpstreamError:
        """Return what a response with another status than 2xx means."""
        body = await read_capped(response, _MAX_ERROR_BODY, _ERROR_BODY_WAIT)
        error = read_refusal(
            response.status_code, response.headers, body, presenter(self.secrets(request), request.words)
        )
        if isinstance(error, Misaddressed):
            error.cause = (
                f"{response.url} answered with status {response.status_code}: the base URL is probably wrong. "
                "It usually ends in /v1."
            )
        return error

    def get(self, path: str, request: StreamRequest | None = None) -> AbstractAsyncContextManager[httpx.Response]:
        """Send a GET, on behalf of *request* if there is one. Raises UpstreamError."""
        headers = self._headers_for(request, _STREAM) if request else self._getting
        return send(self._client, "GET", self._base_url + path, headers)

    def _headers_for(self, request: StreamRequest, accept: str) -> httpx.Headers:
        headers = self._posting[accept]
        if request.traceparent:
            headers = headers.copy()
            headers["traceparent"] = request.traceparent
        return headers


class Unstreamed:
    """The models for which an upstream may not, or cannot, stream (row H29). Each is forgotten after *seconds*."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[str, float] = {}

    def __contains__(self, model: str) -> bool:
        return self._until.get(model, 0.0) > time.monotonic()

    def add(self, model: str) -> None:
        """Remember *model*, unless it is remembered already."""
        if model in self:
            return
        if len(self._until) >= _MOST_UNSTREAMED:
            self._until.clear()
        self._until[model] = time.monotonic() + self._seconds


Asked = tuple[AnswerReader[Any], AbstractAsyncContextManager[Read]]
"""A request that is about to be sent, and what reads its answer."""


async def stream_answer(
    asked: Asked,
    again: Callable[[UpstreamError], Asked | None],
    attempt: Attempt,
    pause: float | None,
    after_finish: float = AFTER_FINISH,
) -> Batches:
    """Yield what is found in the body of the response to what was *asked*, as `Source.stream` does.

    This is the one generator that a batch passes between the socket and the relay. However it ends, it ends the request
    and completes *attempt*. After content it does not read for *pause* seconds. It waits *after_finish* seconds for
    what may follow a finish reason, and as long after each content that does.

    *again* is told how a request failed that brought no content, as a status or inside a 200. It returns how to ask
    otherwise, or None.
    """
    otherwise: Asked | None = asked
    while otherwise is not None:
        reader, request = otherwise
        answer = reader.answer
        feed = reader.feed
        try:
            async with request as read:
                yield ()
                read_on = read
                content: Sequence[Content] = ()
                try:
                    rest = b""
                    while data := rest or await read_on(pause if content else None):
                        rest = data[_SLICE:]
                        if rest:
                            await turn(ROOM)
                        content = feed(data[:_SLICE])
                        while reader.unread is not None:
                            yield content
                            await turn(ROOM)
                            content = reader.go_on()
                        yield content
                        if answer.state is OPEN:
                            continue
                        if answer.state is ENDED:
                            break
                        if attempt.done is None or content:
                            attempt.done = answer.done
                            read_on = _reading_briefly(read, after_finish)
                    for _ in reader.parse():
                        await turn(ROOM)
                    yield reader.end()
                except UpstreamError as error:
                    yield reader.end(error)
                finally:
                    _record(reader, attempt)
                yield (reader.result(),)
                await _drain(read)
                return
        except UpstreamError as error:
            otherwise = None if answer.has_content else again(error)
            if otherwise is None:
                raise


def _record(reader: AnswerReader[Any], attempt: Attempt) -> None:
    """Record what came of *attempt*."""
    answer = reader.answer
    attempt.usage = answer.usage
    attempt.model = answer.model
    attempt.replaced_bytes = reader.replaced_bytes
    attempt.cut_after_finish = answer.cut_after_finish
    ended = answer.state is ENDED and answer.ended_by_upstream
    attempt.complete = ended and answer.fault is None and not isinstance(answer.error, Malformed)


def _reading_briefly(read: Read, seconds: float) -> Read:
    """Return *read* for what may follow a finish reason; after *seconds* it returns b"", as at the body's end."""
    now = asyncio.get_running_loop().time
    deadline = now() + seconds
    late = False

    async def read_briefly(pause: float | None = None, until: float | None = None) -> bytes:
        nonlocal late
        if late:
            return b""
        late = now() >= deadline  # what has come by then is still read, once: it may never stop
        try:
            return await read(until=deadline)
        except TimeoutError:
            return b""

    return read_briefly


async def _drain(read: Read) -> None:
    """Read to the end of the body, if that comes at once, so that the connection can be used again."""
    now = asyncio.get_running_loop().time
    deadline = now() + _AFTER_END
    with suppress(UpstreamError, TimeoutError):
        while now() < deadline and await read(until=deadline):
            pass


def encode(fields: Mapping[str, Any]) -> bytes:
    """Return the body of a request. It is held as long as the stream lives."""
    return memoryview(orjson.dumps(fields)).tobytes()  # a copy, because orjson's own keeps a buffer of 4 KiB or more
