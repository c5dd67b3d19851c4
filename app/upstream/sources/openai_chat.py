"""OpenAI's chat completions, and every upstream that calls itself compatible with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

from app.errors import UpstreamError
from app.request import StreamRequest
from app.upstream import Attempt, Batches, Source
from app.upstream.endpoint import Asked, Endpoint, Unstreamed, encode, stream_answer
from app.upstream.http.client import Read, reading
from app.upstream.reading.chat import chat_reader
from app.upstream.reading.reader import AnswerReader

OWN_FIELDS = frozenset({"messages", "model", "stream", "stream_options"})
BACKGROUND = False


def create(endpoint: Endpoint, max_event: int, background: bool = False) -> Source:
    """See `SourceModule.create`."""
    return OpenAIChat(endpoint, max_event)


class OpenAIChat:
    """A `Source` that asks *endpoint*.

    It learns what the upstream does not take: `stream_options` (row H11), and `stream` for some models (row H29). An
    upstream may change its mind about the latter, once somebody has paid or proved who they are, so that is forgotten
    after *forget* seconds.
    """

    def __init__(self, endpoint: Endpoint, max_event: int, forget: float = 600.0) -> None:
        self._endpoint = endpoint
        self._max_event = max_event
        self._reports_usage = True
        self._unstreamed = Unstreamed(forget)

    def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
        """See `Source.stream`."""
        asked = partial(self._ask, request, attempt)
        streamed = request.model not in self._unstreamed
        ask_usage = streamed and self._reports_usage
        refused: UpstreamError | None = None

        def again(error: UpstreamError) -> Asked | None:
            nonlocal ask_usage, streamed, refused
            if ask_usage and "stream_options" in error.disliked:
                ask_usage = False
            elif streamed and "stream" in error.disliked:
                ask_usage = streamed = False
                refused = error.with_traceback(None)
            elif refused is not None and "stream" in error.disliked:
                raise refused  # it takes neither: what it said first is about what was asked
            else:
                return None
            return asked(streamed, ask_usage)

        return stream_answer(asked(streamed, ask_usage), again, attempt, request.pause)

    def _ask(self, request: StreamRequest, attempt: Attempt, streamed: bool, ask_usage: bool) -> Asked:
        reader = chat_reader(self._max_event, self._endpoint.secrets(request), request.words)
        return reader, self._asked(reader, request, attempt, streamed, ask_usage)

    @asynccontextmanager
    async def _asked(
        self, reader: AnswerReader[Any], request: StreamRequest, attempt: Attempt, streamed: bool, ask_usage: bool
    ) -> AsyncIterator[Read]:
        """Ask, and give what reads the answer. Raises UpstreamError."""
        body = _body(request, self._endpoint.extra_body, streamed, ask_usage)
        accept = "text/event-stream" if streamed else "application/json"
        asked = self._endpoint.ask("/chat/completions", request, body, attempt, accept=accept)
        async with aclosing(await asked) as response:
            try:
                yield reading(response)
            finally:
                if reader.answer.has_content or reader.answer.done is not None:
                    self._learn(request.model, streamed, ask_usage)

    def _learn(self, model: str, streamed: bool, ask_usage: bool) -> None:
        """Remember how the upstream was asked, so that it costs one request and not one each.

        Only once there is an answer: an upstream that quotes the request in every refusal names these fields, too.
        """
        if streamed:
            self._reports_usage = ask_usage
        else:
            self._unstreamed.add(model)


def _body(request: StreamRequest, extra: Mapping[str, Any], streamed: bool, ask_usage: bool) -> bytes:
    fields: dict[str, Any] = {"model": request.model, "messages": request.messages, **request.parameters, **extra}
    if streamed:
        fields["stream"] = True
    if ask_usage:
        fields["stream_options"] = {"include_usage": True}
    return encode(fields)
