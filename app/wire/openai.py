"""OpenAI's dialect: the chunks of a chat completion, or all of it at once, as the official SDKs read them.

A block is `data:` and nothing else, since those SDKs parse every block as JSON, one without data too. `[DONE]` follows
success alone: whatever else ends a stream is a block with an `error`, which they raise.

Beyond OpenAI's own schema there are two fields: `reasoning_content`, which is what other providers call a piece of
reasoning, and `estimated` in a usage that was counted here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, assert_never

from app.errors import Cancelled, Draining
from app.events import Batch, Delta, Done, Event, Failure, Logprobs, Reasoning, Refusal, Start, Terminal, ToolCall
from app.wire.json import dumps, error_object, text, usage_object
from app.wire.merging import joined

_FINISH = {"length": "length", "content_filter": "content_filter", "tool_calls": "tool_calls"}  # all others are "stop"


class ChunkEncoder:
    """Encodes one response, from the stream's start on.

    With *include_usage* the chunk before `[DONE]` has the usage, and every other one says null. To a reader that is
    *lag* or more records behind, texts of a kind are joined.
    """

    __slots__ = ("_after", "_before", "_calls", "_head", "_include_usage", "_lag", "_stream_id", "_tail")

    headers: ClassVar[Mapping[str, str]] = MappingProxyType({})
    resumable: ClassVar[bool] = False

    def __init__(self, stream_id: str, *, include_usage: bool = False, lag: int | None = None) -> None:
        self._stream_id = stream_id
        self._include_usage = include_usage
        self._lag = sys.maxsize if lag is None else lag
        self._calls = 0  # how many have begun
        # Around a choice; and around the text in it, which is all that differs from delta to delta.
        self._head = self._before = b""
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._after = b'},"logprobs":null,"finish_reason":null}' + self._tail

    def __call__(self, batch: Batch) -> bytes:
        events = batch.events
        if len(events) == 1:  # a reader that keeps up
            return self._block(events[0])
        if len(events) >= self._lag:
            events = [event for _, event in joined(batch.first, events)]
        blocks: list[bytes] = []
        previous: Event | None = None
        for event in events:
            if type(event) is Logprobs and isinstance(previous, (Delta, Refusal)):
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
            case Start(model, created):
                chunk = {"id": _id(self._stream_id), "object": "chat.completion.chunk"}
                self._head = b'data: %s,"choices":[' % dumps({**chunk, "created": created, "model": model})[:-1]
                self._before = self._head + b'{"index":0,"delta":{"content":'
                return self._chunk({"role": "assistant", "content": "", "refusal": None})
            case Delta() | Reasoning() | Refusal():
                return self._chunk(_delta(event))
            case ToolCall():
                return self._chunk({"tool_calls": [self._piece(event)]})
            case Logprobs():
                return self._chunk({}, event)
            case Done():
                return self._done(event) if (failed := failure_of(event)) is None else _error(failed)
            case Failure():
                return _error(event)
            case _:
                assert_never(event)

    def _chunk(self, delta: dict[str, Any], logprobs: Logprobs | None = None, finish: str | None = None) -> bytes:
        of = None if logprobs is None else _logprobs_object(logprobs)
        choice = {"index": 0, "delta": delta, "logprobs": of, "finish_reason": finish}
        return self._head + dumps(choice) + self._tail

    def _piece(self, piece: ToolCall) -> dict[str, Any]:
        """Return *piece* as OpenAI has it: all of it but the arguments comes with the first one, and only then.

        Clients join what comes twice, ids too. A name may come late, for the first one was empty.
        """
        if piece.index < self._calls:
            named = {"name": piece.name} if piece.name else {}
            return {"index": piece.index, "function": {**named, "arguments": piece.arguments}}
        self._calls = piece.index + 1
        return {"index": piece.index, **_call(self._stream_id, piece.index, piece.id, piece.name, piece.arguments)}

    def _done(self, done: Done) -> bytes:
        last = self._chunk({}, finish=_FINISH.get(done.finish_reason, "stop"))
        usage = b""
        if self._include_usage:
            usage = b'%s],"usage":%s}\n\n' % (self._head, dumps(usage_object(done.usage)))
        return b"%s%sdata: [DONE]\n\n" % (last, usage)


def completion(stream_id: str, events: Iterable[Event]) -> dict[str, Any]:
    """Return the `chat.completion` that all *events* of a stream are. They end with what `failure_of` finds no failure.

    The content is null where there is something instead of it.
    """
    texts: dict[type, list[str]] = {Delta: [], Reasoning: [], Refusal: []}
    pieces: dict[int, list[ToolCall]] = {}
    logprobs = Logprobs()
    facts: dict[str, Any] = {}
    finish_reason, usage = "stop", None
    for event in events:
        match event:
            case Delta(text) | Reasoning(text) | Refusal(text):
                texts[type(event)].append(text)
            case ToolCall(index):
                pieces.setdefault(index, []).append(event)
            case Logprobs(content, refusal):
                logprobs = Logprobs([*logprobs.content, *content], [*logprobs.refusal, *refusal])
            case Start(model, created):
                facts = {"created": created, "model": model}
            case Done():
                finish_reason, usage = _FINISH.get(event.finish_reason, "stop"), usage_object(event.usage)
                facts["model"] = event.model or facts["model"]
    said = {kind: "".join(parts) for kind, parts in texts.items()}
    calls = [
        _call(
            stream_id,
            index,
            next((piece.id for piece in call if piece.id), ""),
            next((piece.name for piece in call if piece.name), ""),
            "".join(piece.arguments for piece in call),
        )
        for index, call in sorted(pieces.items())
    ]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": said[Delta] or (None if calls or said[Refusal] else ""),
        "refusal": said[Refusal] or None,
        **({"reasoning_content": said[Reasoning]} if said[Reasoning] else {}),
        **({"tool_calls": calls} if calls else {}),
    }
    choice = {
        "index": 0,
        "message": message,
        "logprobs": _logprobs_object(logprobs) if logprobs.content or logprobs.refusal else None,
        "finish_reason": finish_reason,
    }
    return {"id": _id(stream_id), "object": "chat.completion", **facts, "choices": [choice], "usage": usage}


def failure_of(terminal: Terminal) -> Failure | None:
    """Return what this dialect says has gone wrong: it has no word for an answer that somebody stopped."""
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


def _call(stream_id: str, index: int, call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """Return a call, or its first piece. One that upstream gave no id gets one, for its answer has to name it."""
    function = {"name": name, "arguments": arguments}
    return {"id": call_id or f"call_{stream_id}_{index}", "type": "function", "function": function}


def _logprobs_object(logprobs: Logprobs) -> dict[str, Any]:
    return {"content": logprobs.content or None, "refusal": logprobs.refusal or None}


def _error(failure: Failure) -> bytes:
    return b"data: %s\n\n" % dumps({"error": error_object(failure) | {"param": failure.param}})
