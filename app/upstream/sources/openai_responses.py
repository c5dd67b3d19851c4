"""OpenAI's Responses, and every upstream that calls itself compatible with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial

from app.request import StreamRequest
from app.upstream import Attempt, Batches, Source
from app.upstream.endpoint import Endpoint, encode, refusal, stream_answer
from app.upstream.http.client import Read, body, pausing, reading
from app.upstream.responses.background import BackgroundResponse, Timing
from app.upstream.responses.reader import ResponsesReader, responses_reader
from app.upstream.responses.request import responses_fields

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

    def __init__(self, endpoint: Endpoint, max_event: int, background: bool = False, timing: Timing = _TIMING) -> None:
        self._endpoint = endpoint
        self._max_event = max_event
        self._background = background
        self._timing = timing
        self._cancelling: set[asyncio.Task[None]] = set()

    def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
        """See `Source.stream`."""
        secrets = self._endpoint.secrets(request)
        reader = responses_reader(self._max_event, secrets)
        return stream_answer(reader, self._asked(reader, request, secrets, attempt), attempt, request.pause)

    @asynccontextmanager
    async def _asked(
        self, reader: ResponsesReader, request: StreamRequest, secrets: list[str], attempt: Attempt
    ) -> AsyncIterator[Read]:
        """Ask, and give what reads the answer. Raises UpstreamError."""
        fields = responses_fields(request, self._endpoint.extra_body, self._background)
        reader.dialect.offer(fields.get("tools"))
        kept = BackgroundResponse(self._endpoint, request, reader, fields.get("include"), self._timing)
        content = encode(fields)
        del fields  # as large as the prompt, which is kept once already
        try:
            async with self._endpoint.ask("/responses", request, content, attempt) as response:
                if response.status_code != 200:
                    error, _ = await refusal(response, secrets)
                    raise error
                if not self._background:
                    yield reading(response)
                    return
                async with aclosing(kept.chunks(body(response))) as chunks:
                    yield pausing(partial(anext, chunks, b""))
        finally:
            if self._background and kept.goes_on:
                await self._cancel(kept)

    async def _cancel(self, kept: BackgroundResponse) -> None:
        """Tell the upstream that the rest is not wanted. A cancellation of the stream does not stop that."""
        task = asyncio.create_task(kept.cancel())
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)
        await asyncio.shield(task)
