"""OpenAI's dialect: the chunks of a chat completion, or all of it at once, as the official SDKs read them.

A block is `data:` and nothing else, because those SDKs parse every block as JSON, even one without data. `[DONE]`
follows success alone: any other end of a stream is a block with an `error`, which the SDKs raise.

Two fields are not in OpenAI's own schema: `reasoning_content`, which is what other providers call a piece of
reasoning, and `estimated` in a usage that this service counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from app.errors import Cancelled, Draining
from app.events import (
    Annotation,
    Batch,
    Delta,
    Done,
    Event,
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
from app.wire import Encoder, Reading
from app.wire.json import dumps, error_object, given, text, usage_object
from app.wire.transcript import Call, Transcript, call_id

NAME = "openai"

# OpenAI's finish reasons. Any other is shown as "stop".
_FINISH = {"length": "length", "content_filter": "content_filter", "tool_calls": "tool_calls"}


class ChunkEncoder(Encoder):
    """Encodes one response, from the stream's start on.

    With *include_usage* the chunk before `[DONE]` has the usage, and every other chunk has null in its place.
    """

    __slots__ = ("_after", "_before", "_calls", "_head", "_include_usage", "_merge_after", "_stream_id", "_tail")

    def __init__(self, reading: Reading, *, include_usage: bool = False) -> None:
        self._stream_id = reading.stream_id
        self._merge_after = reading.merge_after
        self._include_usage = include_usage
        self._calls = 0  # how many have begun
        # From delta to delta only the text differs: *head* and *tail* stand around each choice, *before* and *after*
        # around the text in it.
        self._head = b""
        self._before = b""
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._after = b'},"logprobs":null,"finish_reason":null}' + self._tail

    def __call__(self, batch: Batch) -> bytes:
        events = batch.events
        if len(events) == 1:  # a reader that keeps up
            return self._block(events[0])
        if len(events) >= self._merge_after:
            events = [event for _, event in merged(events)]
        blocks: list[bytes] = []
        previous: Event | None = None
        for event in events:
            if isinstance(event, Logprobs) and isinstance(previous, (Delta, Refusal)):
                blocks[-1] = self._chunk(_delta(previous), event)
            else:
                blocks.append(self._block(event))
            previous = event
        return b"".join(blocks)

    def dismissal(self, retry_ms: int) -> bytes:
        return _error(Failure.of(Draining()))

    def _block(self, event: Event) -> bytes:
        if type(event) is Delta:
            return self._before + text(event.text) + self._after
        match event:
            case Start():
                chunk = {"id": _id(self._stream_id), "object": "chat.completion.chunk", "created": event.created}
                self._head = b'data: %s,"choices":[' % dumps(chunk | {"model": event.model})[:-1]
                self._before = self._head + b'{"index":0,"delta":{"content":'
                return self._chunk({"role": "assistant", "content": "", "refusal": None})
            case Delta() | Reasoning() | Refusal():
                return self._chunk(_delta(event))
            case ToolCall():
                return self._chunk({"tool_calls": [self._piece(event)]})
            case Logprobs():
                return self._chunk({}, event)
            case Annotation() | Media() | Extra():
                return b""
            case Done():
                failure = failure_of(event)
                return self._done(event) if failure is None else _error(failure)
            case Failure():
                return _error(event)
            case _:
                assert_never(event)

    def _chunk(self, delta: dict[str, Any], logprobs: Logprobs | None = None, finish: str | None = None) -> bytes:
        tokens = _logprobs(logprobs.content, logprobs.refusal) if logprobs else None
        choice = {"index": 0, "delta": delta, "logprobs": tokens, "finish_reason": finish}
        return self._head + dumps(choice) + self._tail

    def _piece(self, piece: ToolCall) -> dict[str, Any]:
        """Return *piece* as OpenAI has it: all but the arguments comes with a call's first piece, and only then.

        Clients join what comes twice, ids too. A name may come later, because the first one was empty.
        """
        if piece.index < self._calls:
            function = {**given(name=piece.name), "arguments": piece.arguments}
            return {"index": piece.index, "function": function}
        self._calls = piece.index + 1
        return {"index": piece.index, **_call(self._stream_id, piece)}

    def _done(self, done: Done) -> bytes:
        last = self._chunk({}, finish=_FINISH.get(done.finish_reason, "stop"))
        usage = b""
        if self._include_usage:
            usage = b'%s],"usage":%s}\n\n' % (self._head, dumps(usage_object(done.usage)))
        return b"%s%sdata: [DONE]\n\n" % (last, usage)


create = ChunkEncoder


def completion(stream_id: str, transcript: Transcript) -> dict[str, Any]:
    """Return the `chat.completion` that a stream is which ended well: `failure_of` finds no failure in its end.

    The content is null where a refusal or tool calls stand in its place.
    """
    end = transcript.end
    assert isinstance(end, Done)  # noqa: S101 - see above
    calls = [_call(stream_id, call) for call in transcript.calls]
    message = {
        "role": "assistant",
        "content": transcript.content or (None if calls or transcript.refusal else ""),
        "refusal": transcript.refusal or None,
        **given(reasoning_content=transcript.reasoning, tool_calls=calls),
    }
    tokens = transcript.content_logprobs, transcript.refusal_logprobs
    choice = {
        "index": 0,
        "message": message,
        "logprobs": _logprobs(*tokens) if any(tokens) else None,
        "finish_reason": _FINISH.get(end.finish_reason, "stop"),
    }
    return {
        "id": _id(stream_id),
        "object": "chat.completion",
        "created": transcript.created,
        "model": transcript.model,
        "choices": [choice],
        "usage": usage_object(end.usage),
    }


def failure_of(terminal: Terminal) -> Failure | None:
    """Return what has gone wrong in this dialect's terms. It has no word for an answer that was stopped."""
    if isinstance(terminal, Failure):
        return terminal
    return Failure.of(Cancelled()) if terminal.finish_reason == "cancelled" else None


def _id(stream_id: str) -> str:
    return f"chatcmpl-{stream_id}"


def _delta(event: Delta | Reasoning | Refusal) -> dict[str, Any]:
    match event:
        case Delta(text):
            return {"content": text}
        case Reasoning(text):
            return {"reasoning_content": text}
        case Refusal(text):
            return {"refusal": text}
        case _:
            assert_never(event)


def _call(stream_id: str, call: Call | ToolCall) -> dict[str, Any]:
    """Return a whole call, or the first piece of one."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call_id(stream_id, call), "type": "function", "function": function}


def _logprobs(content: Sequence[Any], refusal: Sequence[Any]) -> dict[str, Any]:
    return {"content": content or None, "refusal": refusal or None}


def _error(failure: Failure) -> bytes:
    return b"data: %s\n\n" % dumps({"error": error_object(failure) | {"param": failure.param}})
