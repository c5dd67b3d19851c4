"""OpenAI's Responses, and what calls itself compatible with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from app.errors import Disconnected, UpstreamError
from app.request import StreamRequest
from app.upstream import Attempt, Batches
from app.upstream.endpoint import Endpoint, encoded, refusal, relay
from app.upstream.http import client as transport
from app.upstream.http.client import Read
from app.upstream.reading.answer import ENDED, Answer
from app.upstream.reading.reader import AnswerReader
from app.upstream.responses.reader import ResponsesDialect
from app.upstream.responses.request import responses_fields

# What no operator's field may replace: they are what is asked, and how it is answered.
OWN_FIELDS = frozenset({"background", "input", "messages", "model", "stream"})

# How long to wait, in seconds, before each try to read on where a connection was cut: about as long as a restart takes.
_RESUME_WAITS = (0.2, 0.8, 2.0, 4.0, 8.0)
# How long all tries after one cut may take together.
_RESUME_WITHIN = 30.0
# Statuses that will not be another at the next try; 400 is OpenAI's for a response of more than five minutes ago.
_HOPELESS = frozenset({400, 401, 402, 403, 404, 405, 410, 422, 501})
# How long an end that is not upstream's own waits for upstream to know of it.
_CANCEL_WITHIN = 2.0


class OpenAIResponses:
    """One Responses upstream. *base_url* includes the version: `https://api.openai.com/v1`.

    *headers* and *extra_body* are as `OpenAIChat` has them, the latter in Responses' own words. In the *background*,
    upstream goes on with an answer when its connection is cut, and keeps it: then it is read on over another one, and
    has to be told when nobody wants it any more.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        base_url: str,
        api_key: str | None,
        max_event: int,
        headers: Mapping[str, str] = MappingProxyType({}),
        extra_body: Mapping[str, Any] = MappingProxyType({}),
        background: bool = False,
    ) -> None:
        self._endpoint = Endpoint(client, f"{base_url.rstrip('/')}/responses", api_key, headers, extra_body)
        self._extra_body = dict(extra_body)
        self._max_event = max_event
        self._background = background
        self._cancelling: set[asyncio.Task[None]] = set()

    def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
        """See `Source.stream`."""
        secrets = self._endpoint.secrets(request)
        dialect = ResponsesDialect(Answer(secrets))
        reader = AnswerReader(dialect, self._max_event)
        return relay(reader, self._asked(dialect, reader, request, secrets, attempt), attempt)

    @asynccontextmanager
    async def _asked(
        self,
        dialect: ResponsesDialect,
        reader: AnswerReader,
        request: StreamRequest,
        secrets: Sequence[str],
        attempt: Attempt,
    ) -> AsyncIterator[Read]:
        """Ask, and give what reads the answer. Raises UpstreamError."""
        fields = responses_fields(request, self._extra_body, self._background)
        content, include = encoded(fields), fields.get("include")
        del fields  # as large as the prompt, which is kept once already
        try:
            async with self._endpoint.post(request, content, attempt) as response:
                if response.status_code != 200:
                    error, _ = await refusal(response, secrets)
                    raise error
                if not self._background:
                    yield transport.reading(response)
                    return
                async with aclosing(
                    self._lasting(transport.body(response), dialect, reader, request, include)
                ) as chunks:

                    async def read() -> bytes:
                        return await anext(chunks, b"")

                    yield transport.pausing(read)
        finally:
            if self._background and dialect.response_id and not reader.answer.ended_by_upstream:
                await self._cancel(dialect.response_id, request)

    async def _lasting(
        self,
        body: AsyncGenerator[bytes, None],
        dialect: ResponsesDialect,
        reader: AnswerReader,
        request: StreamRequest,
        include: object,
    ) -> AsyncGenerator[bytes, None]:
        """Yield *body*, and where it is cut before the response is over, the rest over other connections (R9).

        Raises UpstreamError if there is no getting at the rest: what cut the first.
        """
        fault: UpstreamError | None = None
        try:
            async with aclosing(body) as chunks:
                async for data in chunks:
                    yield data
        except UpstreamError as error:
            fault = error
        now = asyncio.get_running_loop().time
        tries, deadline = 0, now() + _RESUME_WITHIN
        while dialect.resumable and tries < len(_RESUME_WAITS) and now() < deadline:
            before = dialect.sequence
            await asyncio.sleep(_RESUME_WAITS[tries])
            tries += 1
            with suppress(UpstreamError):
                async with self._rest(dialect, request, include, deadline) as response:
                    if response.status_code in _HOPELESS:
                        break
                    if response.status_code == 200:
                        dialect.resume()
                        reader.resume()
                        async with aclosing(transport.body(response)) as chunks:
                            async for data in chunks:
                                yield data
            if dialect.sequence > before:  # it went on: what cuts it now is another cut
                tries, deadline = 0, now() + _RESUME_WITHIN
        if fault is not None and reader.answer.state is not ENDED:
            raise fault

    @asynccontextmanager
    async def _rest(
        self, dialect: ResponsesDialect, request: StreamRequest, include: object, deadline: float
    ) -> AsyncIterator[httpx.Response]:
        """Ask for the events after the last one that was read. Raises UpstreamError, also if none comes in time."""
        query: list[tuple[str, object]] = [("stream", "true"), ("starting_after", dialect.sequence)]
        if isinstance(include, list):
            query += [("include[]", item) for item in include if isinstance(item, str)]
        url = f"{self._response(dialect.response_id)}?{urlencode(query)}"
        async with AsyncExitStack() as stack:
            asked = transport.get(self._endpoint.client, url, self._endpoint.headers(request))
            try:
                async with asyncio.timeout_at(deadline):
                    response = await stack.enter_async_context(asked)
            except TimeoutError:
                raise Disconnected from None
            yield response

    async def _cancel(self, response_id: str, request: StreamRequest) -> None:
        """Tell upstream that nobody wants the rest. Not to be cancelled itself, but soon over."""
        task = asyncio.create_task(self._post_cancel(response_id, request))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)
        await asyncio.shield(task)

    async def _post_cancel(self, response_id: str, request: StreamRequest) -> None:
        url = f"{self._response(response_id)}/cancel"
        with suppress(UpstreamError, TimeoutError):  # it has its own end then, as it had without us
            async with (
                asyncio.timeout(_CANCEL_WITHIN),
                transport.post(self._endpoint.client, url, self._endpoint.headers(request), b""),
            ):
                pass

    def _response(self, response_id: str) -> str:
        return f"{self._endpoint.url}/{quote(response_id, safe='')}"
