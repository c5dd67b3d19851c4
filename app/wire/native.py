"""The native dialect: one named SSE event per record, and a snapshot of a stream as one JSON object.

The form is chosen so that no client library loses or invents an event: LF line ends, one-line JSON, data in every
block, an id on every block, `retry:` riding on the first block of each response, no byte-order mark. The id comes last:
fetch-event-source takes it when it reads the line, so after a cut in the middle of a block it would otherwise resume
after an event that it has not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

import orjson

from app.events import (
    Annotation,
    Batch,
    Delta,
    Done,
    Event,
    EventId,
    Extra,
    Failure,
    Logprobs,
    Media,
    Reasoning,
    Refusal,
    Start,
    Terminal,
    ToolCall,
    merged,
)
from app.wire import Encoder, ErrorAnswer, Reading
from app.wire.json import dumps, error_object, given, integer, text, usage_object
from app.wire.transcript import Call, Transcript

NAME = "events"

_DELTA = b'event: delta\ndata: {"content":'


class EventEncoder(Encoder):
    """Encodes one response. A text that was joined has the id of the last one in it."""

    __slots__ = ("_head", "_id", "_merge_after", "_rest", "_stream_id", "_url")

    resumable = True
    stateful = False

    def __init__(self, reading: Reading) -> None:
        self._stream_id = reading.stream_id
        self._url = reading.url
        self._merge_after = reading.merge_after
        self._id = b"id: %s-" % reading.stream_id.encode()
        self._rest = b"}\n" + self._id  # of a delta, after its text
        self._head = b"retry: %d\n" % reading.retry_ms

    def __call__(self, batch: Batch) -> bytes:
        first = batch.first
        events = batch.events
        # Nearly every batch is one delta, so its block is put together here, without a call for each of its parts.
        if len(events) == 1 and type(event := events[0]) is Delta and not self._head:
            return b"".join((_DELTA, text(event.text), self._rest, integer(first), b"\n\n"))
        numbered = enumerate(events, first) if len(events) < self._merge_after else merged(events, first)
        blocks = [self._block(number, event) for number, event in numbered]
        head, self._head = self._head, b""
        return head + b"".join(blocks)

    def dismissal(self, retry_ms: int) -> bytes:
        # Without the blank line no client library takes it for an event, and yet they all heed it.
        return b"retry: %d\n" % retry_ms

    def _block(self, number: int, event: Event) -> bytes:
        name, data = render(event)
        if isinstance(event, Start):
            data = {"stream_id": self._stream_id, **given(url=self._url), **data}
        return b"event: %s\ndata: %s\n%s%d\n\n" % (name, dumps(data), self._id, number)


create = EventEncoder


def cut(position: EventId) -> bytes:
    """Return what goes before the first block of a resumed stream for WebKit's native EventSource.

    WebKit keeps the block that it had half read when the connection was cut, and joins the next response to it: what
    follows would be taken for a part of that block, and the text would be lost. The comment ends the half-read line,
    and the block ends the half-read block. What a native EventSource dispatches is nothing, or, if it had half a block
    with data, an event `cut`, which no page listens to. The id is the one to come back with again.
    """
    return b":\nevent: cut\nid: %s\n\n" % str(position).encode()


def snapshot(stream_id: str, transcript: Transcript) -> bytes:
    """Return a stream so far as one JSON object: what a page that was closed for an hour needs to show the answer."""
    end = transcript.end
    return orjson.dumps(
        {
            **_standing(stream_id, transcript.records, end),
            "model": transcript.model,
            "created": transcript.created,
            "content": transcript.content,
            "reasoning": transcript.reasoning,
            "refusal": transcript.refusal,
            "tool_calls": [
                {"index": call.index, "id": call.id, "name": call.name, "arguments": call.arguments, **_kind(call)}
                for call in transcript.calls
            ],
            "annotations": transcript.annotations,
            **given(citations=transcript.citations, search_results=transcript.search_results),
            "media": [_media(media) for media in transcript.media],
            "extra": _extra(transcript.extra),
            "error": error_object(end) if isinstance(end, Failure) else None,
        }
    )


def stopped(stream_id: str, records: int, end: Terminal | None) -> bytes:
    """Return what a request to stop a stream is answered with: where the stream stands, and not its text.

    The stream has so many *records*, of which *end* is the last one if the stream has ended.
    """
    return orjson.dumps(_standing(stream_id, records, end))


def _standing(stream_id: str, records: int, end: Terminal | None) -> dict[str, Any]:
    return {
        "stream_id": stream_id,
        "state": "live" if end is None else "done" if isinstance(end, Done) else "error",
        "finish_reason": end.finish_reason if isinstance(end, Done) else None,
        "usage": usage_object(end.usage) if end else None,
        "last_event_id": str(EventId(stream_id, records)) if records else None,
    }


def refusal(failure: Failure, request_id: str) -> ErrorAnswer:
    """Return the answer for a failure before the first event."""
    content = error_object(failure) | {"param": failure.param, "request_id": request_id}
    return ErrorAnswer(failure.status, orjson.dumps({"error": content}))


def render(event: Event) -> tuple[bytes, dict[str, Any]]:
    """Return the name and the data of the native event that *event* is."""
    match event:
        case Delta(text):
            return b"delta", {"content": text}
        case Reasoning(text):
            return b"reasoning", {"content": text, **given(field="" if event.FIELD == Reasoning.FIELD else event.FIELD)}
        case Refusal(text):
            return b"refusal", {"content": text}
        case ToolCall(index, call_id, name, arguments):
            return b"tool_call", {
                "index": index,
                **given(id=call_id, name=name),
                "arguments": arguments,
                **_kind(event),
            }
        case Annotation(annotations, citations, search_results):
            return b"annotation", {
                "annotations": annotations,
                **given(citations=citations, search_results=search_results),
            }
        case Media():
            return b"media", _media(event)
        case Extra():
            return b"extra", _extra(event)
        case Logprobs(content, refusal):
            return b"logprobs", given(content=content, refusal=refusal)
        case Start(model, created, fallback):
            return b"start", {"model": model, "created": created, **given(fallback=fallback)}
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


def _kind(call: Call | ToolCall) -> dict[str, Any]:
    """Return what tells a call from a usual one."""
    extra = call.extra.value if isinstance(call, Call) else call.extra
    return given(type="" if call.type == "function" else call.type, extra=extra)


def _media(media: Media) -> dict[str, Any]:
    """Return an image, a sound or a file; as `field` where it stood, as `extra` what its object has beside it."""
    found = {"type": media.type, "media_type": media.media_type, "url": media.url}
    return found | given(field=media.field, extra=_without(media.raw, media.url))


def _without(raw: Any, url: str) -> dict[str, Any]:
    """Return the members of *raw*, an upstream's object, that are neither in *url* nor say what the object is."""
    if not isinstance(raw, Mapping):
        return {}
    found: dict[str, Any] = {}
    for name, value in raw.items():
        inner = _without(value, url) if isinstance(value, Mapping) else value
        in_url = isinstance(inner, str) and (url == inner or url.endswith(f",{inner}"))
        if name != "type" and inner not in (None, "", {}) and not in_url:
            found[name] = inner
    return found


def _extra(extra: Extra) -> dict[str, Any]:
    return given(chunk=extra.chunk, choice=extra.choice, delta=extra.delta)
