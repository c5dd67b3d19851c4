"""The native dialect: one named SSE event per record.

The form is chosen so that no client library loses or invents an event: LF line ends, one-line JSON, data in every
block, an id on every block, `retry:` riding on the first block of each response, no byte-order mark. The id comes last:
fetch-event-source takes it when it reads the line, so after a cut in the middle of a block it would otherwise resume
after an event that it has not seen.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, assert_never, cast

import orjson

from app.model import TEXT, Batch, Delta, Done, Event, Failure, Reasoning, Refusal, Start, Text, ToolCall, Usage


class EventEncoder:
    """Encodes one response. *retry_ms* is the reconnection time told to the client with the first block.

    *url*, if not empty, is where this reader may read the stream again, and is told it with `start`. A reader that is
    *lag* or more records behind gets texts of a kind joined, as one event with the last one's id.
    """

    __slots__ = ("_head", "_id", "_lag", "_stream_id", "_url")

    def __init__(self, stream_id: str, retry_ms: int, lag: int | None = None, url: str = "") -> None:
        self._stream_id = stream_id
        self._url = url
        self._lag = sys.maxsize if lag is None else lag
        self._id = b"id: %s-" % stream_id.encode()
        self._head = b"retry: %d\n" % retry_ms

    def __call__(self, batch: Batch) -> bytes:
        seq, events = batch
        head, self._head = self._head, b""
        if len(events) == 1:  # a reader that keeps up
            return head + self._block(seq, events[0])
        numbered = enumerate(events, seq) if len(events) < self._lag else _joined(seq, events)
        return head + b"".join([self._block(number, event) for number, event in numbered])

    def _block(self, seq: int, event: Event) -> bytes:
        if type(event) is Delta:
            return b"event: delta\ndata: %s\n%s%d\n\n" % (_dumps({"content": event.text}), self._id, seq)
        name, data = _render(event)
        if isinstance(event, Start):
            data = {"stream_id": self._stream_id, **({"url": self._url} if self._url else {}), **data}
        return b"event: %s\ndata: %s\n%s%d\n\n" % (name, _dumps(data), self._id, seq)


def _joined(seq: int, events: Sequence[Event]) -> Iterator[tuple[int, Event]]:
    """Yield *events*, the first of which is number *seq*, with neighbouring texts of a kind joined."""
    for kind, run in groupby(events, type):
        same = list(run)
        if issubclass(kind, TEXT):
            seq += len(same)
            yield seq - 1, kind("".join([event.text for event in cast("list[Text]", same)]))
        else:
            yield from enumerate(same, seq)
            seq += len(same)


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


def error_object(failure: Failure) -> dict[str, Any]:
    """Return the members of the error object that the in-band event and the HTTP body share."""
    return {
        "message": failure.message,
        "type": failure.type,
        "code": failure.code,
        "retryable": failure.retryable,
    }


def usage_object(usage: Usage | None) -> dict[str, Any] | None:
    """Return *usage* as clients see it: an estimate says that it is one."""
    if usage is None:
        return None
    return {**usage.fields, "estimated": True} if usage.estimated else dict(usage.fields)


def _dumps(data: dict[str, Any]) -> bytes:
    """Return one line of JSON that survives readers which take more than CR and LF for a line end.

    orjson escapes the ASCII controls; U+0085, U+2028 and U+2029 are legal in JSON but cut by `str.splitlines`, which
    httpx's own line iterator and other hand-made readers use (reference/upstream.md F4).
    """
    line = orjson.dumps(data)
    if b"\xe2\x80" in line or b"\xc2\x85" in line:
        line = line.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
        line = line.replace(b"\xc2\x85", b"\\u0085")
    return line
