"""A response that the upstream makes in the background: its rest after a cut, and its cancellation (row R9).

A process may go on with a response of another one. It reads the response again from its start, by the same reader,
because what an event means depends on those before it: which parts have begun, which calls are open, and which texts
came in pieces. What the log has already is left out later (see `app.rechunk.Resumed`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import orjson

from app.errors import Disconnected, ProducerLost, StreamError, UpstreamError
from app.request import StreamRequest
from app.upstream.endpoint import Endpoint
from app.upstream.http import client
from app.upstream.reading.answer import ENDED
from app.upstream.reading.values import list_of, text_of
from app.upstream.responses.reader import ResponsesReader
from app.usage import Usage

# Statuses that will not change by the next try; 400 is OpenAI's for a response of more than five minutes ago.
_HOPELESS = frozenset({400, 401, 402, 403, 404, 405, 410, 422, 501})

# The most bytes of the response that answers a cancellation.
_MAX_CANCELLED = 1 << 20


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: to wait before each try to read on after a cut, for all tries after one cut, and for a cancellation.

    The waits together are about as long as a restart takes. A stream that was stopped waits for the cancellation.
    """

    resume_waits: Sequence[float] = (0.2, 0.8, 2.0, 4.0, 8.0)
    resume_within: float = 30.0
    cancel_within: float = 2.0


class BackgroundResponse:
    """The response to *request* that *reader* reads. *include* is the request's field of that name."""

    def __init__(
        self, endpoint: Endpoint, request: StreamRequest, reader: ResponsesReader, include: object, timing: Timing
    ) -> None:
        self._endpoint = endpoint
        self._request = request
        self._reader = reader
        self._include = include
        self._timing = timing
        self._tools = reader.dialect.offered
        self._left = False

    @classmethod
    def noted(
        cls,
        note: Mapping[str, Any],
        endpoint: Endpoint,
        request: StreamRequest,
        reader: ResponsesReader,
        timing: Timing,
    ) -> BackgroundResponse:
        """Return the response of another process that left this *note* of it."""
        reader.dialect.response_id = text_of(note.get("response"))
        reader.dialect.offer(list_of(note.get("tools")))
        return cls(endpoint, request, reader, note.get("include"), timing)

    @property
    def note(self) -> Mapping[str, Any] | None:
        """See `Kept`."""
        dialect = self._reader.dialect
        if not dialect.response_id:
            return None
        return {"response": dialect.response_id, "include": self._include, "tools": self._tools}

    def leave(self) -> None:
        """See `Kept`."""
        self._left = True

    @property
    def unwanted(self) -> bool:
        """Whether the upstream may be going on with it, for no reader."""
        named = bool(self._reader.dialect.response_id)
        return named and not self._reader.answer.ended_by_upstream and not self._left

    async def chunks(self, body: AsyncGenerator[bytes, None] | None) -> AsyncGenerator[bytes, None]:
        """Yield *body* and, if it is cut before the response is over, the rest over other connections.

        Without a body, yield the whole response over other connections. Raises UpstreamError, which is what cut *body*,
        if the rest cannot be read; ProducerLost if that is all of it.
        """
        fault: StreamError | None = None
        if body is not None:
            try:
                async with aclosing(body) as chunks:
                    async for data in chunks:
                        yield data
            except UpstreamError as error:
                fault = error
        dialect = self._reader.dialect
        timing = self._timing
        now = asyncio.get_running_loop().time
        tries = 0
        deadline = now() + timing.resume_within
        while dialect.resumable and tries < len(timing.resume_waits) and now() < deadline:
            sequence = dialect.sequence
            if tries or body is not None:
                await asyncio.sleep(timing.resume_waits[tries])
            tries += 1
            try:
                async with self._rest(deadline) as response:
                    if response.status_code in _HOPELESS:
                        break
                    if response.is_success:
                        dialect.resume()
                        self._reader.resume()
                        async with aclosing(client.body(response)) as chunks:
                            async for data in chunks:
                                yield data
                        if self._reader.is_whole and dialect.unread:
                            return  # its reader reads it now
            except UpstreamError as error:
                if body is None and not dialect.unread:
                    fault = fault or error
            if dialect.sequence > sequence:  # it went on, so what cuts it now is another cut
                tries = 0
                deadline = now() + timing.resume_within
        if body is None and dialect.unread:
            fault = ProducerLost()
        if fault is not None and self._reader.answer.state is not ENDED:
            raise fault

    async def cancel(self) -> Usage | None:
        """Tell the upstream that the rest is not wanted, and return the usage if it says that.

        If that fails, the response has its own end.
        """
        seconds = self._timing.cancel_within
        with suppress(UpstreamError, TimeoutError):
            async with (
                asyncio.timeout(seconds),
                self._endpoint.post(f"{self._path}/cancel", self._request) as response,
            ):
                if response.is_success:
                    return self._usage(await client.read_capped(response, _MAX_CANCELLED, seconds))
        return None

    def _usage(self, body: bytes) -> Usage | None:
        """Return the usage in the *body* of a response that has ended, if it has some."""
        try:
            response = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        said = response.get("usage") if isinstance(response, dict) else None
        if not isinstance(said, dict):
            return None
        answer = self._reader.answer
        answer.add_usage(said)
        return answer.usage

    @asynccontextmanager
    async def _rest(self, deadline: float) -> AsyncIterator[httpx.Response]:
        """Ask for the events after the last one that was read. Raises UpstreamError, also if none comes in time."""
        query: list[tuple[str, object]] = [("stream", "true")]
        if self._reader.dialect.sequence >= 0:
            query.append(("starting_after", self._reader.dialect.sequence))
        if isinstance(self._include, list):
            query += [("include[]", item) for item in self._include if isinstance(item, str)]
        async with AsyncExitStack() as stack:
            asked = self._endpoint.get(f"{self._path}?{urlencode(query)}", self._request)
            try:
                async with asyncio.timeout_at(deadline):
                    response = await stack.enter_async_context(asked)
            except TimeoutError:
                raise Disconnected from None
            yield response

    @property
    def _path(self) -> str:
        return f"/responses/{quote(self._reader.dialect.response_id, safe='')}"
