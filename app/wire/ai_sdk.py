"""Vercel's dialect: the AI SDK's UI message stream, version 1, as `useChat` reads it.

A block is `data:` and nothing else. The SDK checks each against a schema and throws on what is not in that. Texts are
parts with a start and an end: one is open at a time, and it is closed when another kind of content follows and however
the stream ends, lest a page show it as being written for ever. `[DONE]` follows every end, as it does where the SDK
itself serves; a stream that stops without it was cut.

What this dialect has no word for:

- A refusal is a text part of its own, so that its reader sees it. Its `providerMetadata` says what it is.
- Log probabilities are left out.
- Usage and model ride on the message's metadata, as `{"usage": …, "model": …}`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, assert_never

import orjson

from app.errors import Draining
from app.events import (
    TEXT,
    Batch,
    Delta,
    Done,
    Event,
    Failure,
    Logprobs,
    Reasoning,
    Refusal,
    Start,
    Text,
    ToolCall,
)
from app.usage import Usage
from app.wire.json import dumps, usage_object
from app.wire.merging import joined

_DONE = b"data: [DONE]\n\n"
_FINISH = {"stop": "stop", "length": "length", "content_filter": "content-filter", "tool_calls": "tool-calls"}
_NOT_JSON = "The arguments of this tool call are not valid JSON."


class _Call:
    """A tool call so far. Its *name* may come after its first piece, and *begun* is whether its start was sent."""

    __slots__ = ("arguments", "begun", "id", "name")

    def __init__(self, id: str) -> None:
        self.id = id
        self.name = ""
        self.arguments: list[str] = []
        self.begun = False


class UIMessageEncoder:
    """Encodes one response, from the stream's start on.

    The message's id is the stream's, so that a page which has a part of the message replaces it when it reads the
    stream again. If the response *continues* the page's last message, which the SDK has it do after tool outputs, it
    names none: another id would make a second message of it. To a reader that is *lag* or more records behind, texts of
    a kind are joined.
    """

    __slots__ = ("_before", "_begun", "_calls", "_continues", "_kind", "_lag", "_parts", "_stream_id")

    headers: ClassVar[Mapping[str, str]] = MappingProxyType({"X-Vercel-AI-UI-Message-Stream": "v1"})
    resumable: ClassVar[bool] = False

    def __init__(self, stream_id: str, *, continues: bool = False, lag: int | None = None) -> None:
        self._stream_id = stream_id
        self._continues = continues
        self._lag = sys.maxsize if lag is None else lag
        self._begun = False
        self._calls: dict[int, _Call] = {}
        self._parts = 0  # how many text parts were opened; the last one's id
        self._kind: type[Text] | None = None  # of the open one
        self._before = b""  # what comes before a piece of its text

    def __call__(self, batch: Batch) -> bytes:
        events = batch.events
        if len(events) == 1:  # a reader that keeps up
            return self._blocks(events[0])
        if len(events) >= self._lag:
            events = [event for _, event in joined(batch.first, events)]
        return b"".join([self._blocks(event) for event in events])

    def dismissal(self, retry_ms: int) -> bytes:
        return self._blocks(Failure.of(Draining()))

    def _blocks(self, event: Event) -> bytes:
        if isinstance(event, TEXT):
            opening = b"" if type(event) is self._kind else self._opened(event)
            return b"%s%s%s}\n\n" % (opening, self._before, dumps(event.text))
        match event:
            case ToolCall():
                return self._closed() + self._piece(event)
            case Logprobs():
                return b""
            case Start():
                self._begun = True
                named = {} if self._continues else {"messageId": self._stream_id}
                return _block("start", **named) + _block("start-step")
            case Done("cancelled"):
                return self._closed() + self._metadata(event.usage) + _block("abort") + _DONE
            case Done():
                calls = b"".join([_input(call) for call in self._calls.values()])
                metadata = {"usage": usage_object(event.usage), **({"model": event.model} if event.model else {})}
                reason = _FINISH.get(event.finish_reason, "other")
                finish = _block("finish", finishReason=reason, messageMetadata=metadata)
                return self._closed() + calls + _block("finish-step") + finish + _DONE
            case Failure():
                error = _block("error", errorText=event.message)
                return self._closed() + self._metadata(event.usage) + error + _DONE
            case _:
                assert_never(event)

    def _opened(self, text: Text) -> bytes:
        """Close what is open and open a part for *text*."""
        closed = self._closed()
        self._parts += 1
        self._kind = type(text)
        name, metadata = "text", {}
        match text:
            case Reasoning():
                name = "reasoning"
            case Refusal():
                metadata = {"providerMetadata": {"chat-sse": {"refusal": True}}}
            case Delta():
                pass
            case _:
                assert_never(text)
        self._before = b'data: {"type":"%s-delta","id":"%d","delta":' % (name.encode(), self._parts)
        return closed + _block(f"{name}-start", id=str(self._parts), **metadata)

    def _closed(self) -> bytes:
        """Close what is open."""
        if self._kind is None:
            return b""
        name = "reasoning" if self._kind is Reasoning else "text"
        self._kind = None
        return _block(f"{name}-end", id=str(self._parts))

    def _piece(self, piece: ToolCall) -> bytes:
        """Return a piece of a call's arguments, once it is known whom it calls: the start needs the name."""
        call = self._calls.get(piece.index)
        if call is None:
            # One that upstream gave no id gets one, for its output has to name it.
            call_id = piece.id or f"call_{self._stream_id}_{piece.index}"
            call = self._calls[piece.index] = _Call(call_id)
        call.name = call.name or piece.name
        call.arguments.append(piece.arguments)
        if call.begun:
            return _delta(call, piece.arguments)
        return _started(call) if call.name else b""

    def _metadata(self, usage: Usage | None) -> bytes:
        """Return what a message that was broken off cost; metadata would make a message where there is none."""
        if usage is None or not self._begun:
            return b""
        return _block("message-metadata", messageMetadata={"usage": usage_object(usage)})


def _started(call: _Call) -> bytes:
    call.begun = True
    start = _block("tool-input-start", toolCallId=call.id, toolName=call.name)
    return start + _delta(call, "".join(call.arguments))


def _delta(call: _Call, arguments: str) -> bytes:
    return _block("tool-input-delta", toolCallId=call.id, inputTextDelta=arguments) if arguments else b""


def _input(call: _Call) -> bytes:
    """Return a whole call's arguments: only now, for the page runs the tool when it gets them."""
    started = b"" if call.begun else _started(call)
    called = {"toolCallId": call.id, "toolName": call.name}
    arguments = "".join(call.arguments)
    try:
        # Some models say nothing where a tool takes nothing.
        available = _block("tool-input-available", **called, input=orjson.loads(arguments.strip() or "{}"))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # the latter for what is nested hundreds deep
        return started + _block("tool-input-error", **called, input=arguments, errorText=_NOT_JSON)
    return started + available


def _block(type_: str, **fields: Any) -> bytes:
    return b"data: %s\n\n" % dumps({"type": type_, **fields})
