"""The native dialect: one named SSE event per record.

The form is chosen so that no client library loses or invents an event: LF line ends, one-line JSON, data in every
block, an id on every block, `retry:` riding on the first block of each response, no byte-order mark. The id comes last:
fetch-event-source takes it when it reads the line, so after a cut in the middle of a block it would otherwise resume
after an event that it has not seen.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, assert_never

from app.events import Batch, Delta, Done, Event, Failure, Logprobs, Reasoning, Refusal, Start, ToolCall
from app.wire.json import dumps, error_object, integer, text, usage_object
from app.wire.merging import joined

_DELTA = b'event: delta\ndata: {"content":'


class EventEncoder:
    """Encodes one response. *retry_ms* is the reconnection time told to the client with the first block.

    *url*, if not empty, is where this reader may read the stream again, and is told it with `start`. A reader that is
    *lag* or more records behind gets texts of a kind joined, as one event with the last one's id.
    """

    __slots__ = ("_head", "_id", "_lag", "_rest", "_stream_id", "_url")

    headers: ClassVar[Mapping[str, str]] = MappingProxyType({})
    resumable: ClassVar[bool] = True

    def __init__(self, stream_id: str, retry_ms: int, lag: int | None = None, url: str = "") -> None:
        self._stream_id = stream_id
        self._url = url
        self._lag = sys.maxsize if lag is None else lag
        self._id = b"id: %s-" % stream_id.encode()
        self._rest = b"}\n" + self._id  # of a delta, after its text
        self._head = b"retry: %d\n" % retry_ms

    def __call__(self, batch: Batch) -> bytes:
        seq, events = batch.first, batch.events
        if len(events) == 1 and type(event := events[0]) is Delta and not self._head:  # nearly always: a short cut
            return b"".join((_DELTA, text(event.text), self._rest, integer(seq), b"\n\n"))
        head, self._head = self._head, b""
        if len(events) == 1:  # a reader that keeps up
            return head + self._block(seq, events[0])
        return head + self._blocks(enumerate(events, seq) if len(events) < self._lag else joined(seq, events))

    def dismissal(self, retry_ms: int) -> bytes:
        # Without the blank line it is no event to any client library, and yet heeded.
        return b"retry: %d\n" % retry_ms

    def _blocks(self, numbered: Iterable[tuple[int, Event]]) -> bytes:
        return b"".join([self._block(number, event) for number, event in numbered])

    def _block(self, seq: int, event: Event) -> bytes:
        name, data = _render(event)
        if isinstance(event, Start):
            data = {"stream_id": self._stream_id, **({"url": self._url} if self._url else {}), **data}
        return b"event: %s\ndata: %s\n%s%d\n\n" % (name, dumps(data), self._id, seq)


def _render(event: Event) -> tuple[bytes, dict[str, Any]]:
    match event:
        case Delta(text):
            return b"delta", {"content": text}
        case Reasoning(text):
            return b"reasoning", {"content": text}
        case Refusal(text):
            return b"refusal", {"content": text}
        case ToolCall(index, call_id, name, arguments):
            named = {key: value for key, value in (("id", call_id), ("name", name)) if value}
            return b"tool_call", {"index": index, **named, "arguments": arguments}
        case Logprobs(content, refusal):
            return b"logprobs", {
                **({"content": content} if content else {}),
                **({"refusal": refusal} if refusal else {}),
            }
        case Start(model, created, fallback):
            instead = {"fallback": fallback} if fallback else {}
            return b"start", {"model": model, "created": created, **instead}
        case Done():
            raw = {} if event.raw_reason is None else {"raw_finish_reason": event.raw_reason}
            return b"done", {
                "finish_reason": event.finish_reason,
                **raw,
                "usage": usage_object(event.usage),
                "model": event.model,
                "first_token_ms": event.first_token_ms,
                "duration_ms": event.duration_ms,
            }
        case Failure():
            return b"error", {"error": error_object(event), "usage": usage_object(event.usage)}
        case _:
            assert_never(event)
