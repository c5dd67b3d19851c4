"""OpenAI's Responses, and every upstream that calls itself compatible with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

from app.errors import UpstreamError
from app.request import StreamRequest
from app.upstream import Attempt, Batches, Source
from app.upstream.endpoint import Asked, Endpoint, Unstreamed, encode, stream_answer
from app.upstream.http.client import Read, body, pausing, reading
from app.upstream.responses.background import BackgroundResponse, Timing
from app.upstream.responses.reader import ResponsesReader, responses_reader
from app.upstream.responses.request import responses_fields
from app.usage import Usage

OWN_FIELDS = frozenset({"background", "input", "messages", "model", "stream"})
BACKGROUND = True
_TIMING = Timing()


def create(endpoint: Endpoint, max_event: int, background: bool = False) -> Source:
    """See `SourceModule.create`."""
    return OpenAIResponses(endpoint, max_event, background)


class OpenAIResponses:
    """A `Source` that asks *endpoint*.

    In the *background*, the upstream goes on with an answer when its connection breaks, and keeps it. Then the rest is
    read over another connection, and the upstream is told when it is no longer wanted.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        max_event: int,
        background: bool = False,
        timing: Timing = _TIMING,
        forget: float = 600.0,
    ) -> None:
        self._endpoint = endpoint
        self._max_event = max_event
        self._background = background
        self._timing = timing
        self._unstreamed = Unstreamed(forget)  # see `OpenAIChat`
        self._cancelling: set[asyncio.Task[Usage | None]] = set()

    def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
        """See `Source.stream`."""
        asked = partial(self._ask, request, attempt)
        streamed = request.model not in self._unstreamed
        refused: UpstreamError | None = None

        def again(error: UpstreamError) -> Asked | None:
            nonlocal streamed, refused
            if "stream" not in error.disliked or self._background:  # a whole answer is no answer in the background
                return None
            if refused is not None:
                raise refused  # it takes neither: what it said first is about what was asked
            if not streamed:
                return None
            streamed = False
            refused = error.with_traceback(None)
            return asked(streamed)

        return stream_answer(asked(streamed), again, attempt, request.pause)

    def _ask(self, request: StreamRequest, attempt: Attempt, streamed: bool) -> Asked:
        reader = responses_reader(self._max_event, self._endpoint.secrets(request), request.words)
        return reader, self._asked(reader, request, attempt, streamed)

    @asynccontextmanager
    async def _asked(
        self, reader: ResponsesReader, request: StreamRequest, attempt: Attempt, streamed: bool
    ) -> AsyncIterator[Read]:
        """Ask, and give what reads the answer. Raises UpstreamError."""
        fields = responses_fields(request, self._endpoint.extra_body, self._background)
        reader.dialect.offer(fields.get("tools"))
        if not streamed:
            del fields["stream"]
        kept = BackgroundResponse(self._endpoint, request, reader, fields.get("include"), self._timing)
        if self._background:
            attempt.kept = kept
        content = encode(fields)
        del fields  # as large as the prompt, which is kept once already
        accept = "text/event-stream" if streamed else "application/json"
        try:
            asked = self._endpoint.ask("/responses", request, content, attempt, accept=accept)
            async with aclosing(await asked) as response:
                if not self._background:
                    yield reading(response)
                else:
                    async with aclosing(kept.chunks(body(response))) as chunks:
                        yield pausing(partial(anext, chunks, b""))
        finally:
            if not streamed and reader.answer.has_content:
                self._unstreamed.add(request.model)
            if self._background and kept.unwanted:
                await self._cancel(kept, attempt)

    def resume(self, note: Mapping[str, Any], request: StreamRequest, attempt: Attempt) -> Batches:
        """See `Resumable.resume`."""
        reader = responses_reader(self._max_event, self._endpoint.secrets(request), request.words)
        kept = BackgroundResponse.noted(note, self._endpoint, request, reader, self._timing)
        attempt.kept = kept
        return stream_answer((reader, self._resumed(kept, attempt)), lambda error: None, attempt, request.pause)

    def secrets(self, request: StreamRequest) -> list[str]:
        """See `Resumable.secrets`."""
        return self._endpoint.secrets(request)

    @asynccontextmanager
    async def _resumed(self, kept: BackgroundResponse, attempt: Attempt) -> AsyncIterator[Read]:
        try:
            async with aclosing(kept.chunks(None)) as chunks:
                yield pausing(partial(anext, chunks, b""))
        finally:
            if kept.unwanted:
                await self._cancel(kept, attempt)

    async def _cancel(self, kept: BackgroundResponse, attempt: Attempt) -> None:
        """Tell the upstream that the rest is not wanted. A cancellation of the stream does not stop that."""
        task = asyncio.create_task(kept.cancel())
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)
        usage = await asyncio.shield(task)
        if usage is not None:
            attempt.usage = usage
            attempt.complete = True
