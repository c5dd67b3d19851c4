"""Vercel's dialect: the AI SDK's UI message stream, version 1, as `useChat` reads it.

A block is `data:` and nothing else. The SDK checks each block against a schema, and throws on what the schema lacks.
Texts are parts with a start and an end. One part is open at a time. It is closed when another kind of content follows,
and at every end of a stream: a page shows an open part as still being written. `[DONE]` follows every end, as it does
where the SDK itself serves; a stream that stops without it was cut.

The dialect has no words for some of what a stream says:

- A refusal is a text part of its own, so that its reader sees it. Its `providerMetadata` says what it is.
- Log probabilities are left out.
- Usage and model are in the message's metadata, as `{"usage": …, "model": …}`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, assert_never

import orjson

from app.errors import Draining
from app.events import (
    TEXT,
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
    Text,
    ToolCall,
    merged,
)
from app.usage import Usage
from app.wire import Encoder, Reading
from app.wire.json import dumps, given, usage_object
from app.wire.transcript import Call, call_id

NAME = "ai-sdk"

_DONE = b"data: [DONE]\n\n"
_FINISH = {"stop": "stop", "length": "length", "content_filter": "content-filter", "tool_calls": "tool-calls"}
_NOT_JSON = "The arguments of this tool call are not valid JSON."


class UIMessageEncoder(Encoder):
    """Encodes one response, from the stream's start on.

    The message's id is the stream's, so a page that has a part of the message replaces it when it reads the stream
    again. A response that *continues* the page's last message, which the SDK expects after tool outputs, names no id:
    the SDK would make a second message of it.
    """

    __slots__ = ("_before", "_begun", "_calls", "_continues", "_kind", "_merge_after", "_parts", "_stream_id")

    headers = MappingProxyType({"X-Vercel-AI-UI-Message-Stream": "v1"})

    def __init__(self, reading: Reading, *, continues: bool = False) -> None:
        self._stream_id = reading.stream_id
        self._merge_after = reading.merge_after
        self._continues = continues
        self._begun = False
        self._calls: dict[int, Call] = {}
        self._parts = 0  # how many text parts were opened; the id of the last one
        self._kind: type[Text] | None = None  # of the part that is open
        self._before = b""  # what comes before a piece of its text

    def __call__(self, batch: Batch) -> bytes:
        events = batch.events
        if len(events) == 1:  # a reader that keeps up
            return self._blocks(events[0])
        if len(events) >= self._merge_after:
            events = [event for _, event in merged(events)]
        return b"".join([self._blocks(event) for event in events])

    def dismissal(self, retry_ms: int) -> bytes:
        return self._blocks(Failure.of(Draining()))

    def _blocks(self, event: Event) -> bytes:
        if isinstance(event, TEXT):
            opening = b"" if type(event) is self._kind else self._open(event)
            return b"%s%s%s}\n\n" % (opening, self._before, dumps(event.text))
        match event:
            case ToolCall():
                return self._close() + self._piece(event)
            case Logprobs() | Annotation() | Media() | Extra():
                return b""
            case Start():
                self._begun = True
                named = {} if self._continues else {"messageId": self._stream_id}
                return _block("start", **named) + _block("start-step")
            case Done("cancelled"):
                return self._close() + self._cost(event.usage) + _block("abort") + _DONE
            case Done():
                calls = b"".join([self._input(call) for call in self._calls.values()])
                metadata = {"usage": usage_object(event.usage), **given(model=event.model)}
                reason = _FINISH.get(event.finish_reason, "other")
                finish = _block("finish", finishReason=reason, messageMetadata=metadata)
                return self._close() + calls + _block("finish-step") + finish + _DONE
            case Failure():
                return self._close() + self._cost(event.usage) + _block("error", errorText=event.message) + _DONE
            case _:
                assert_never(event)

    def _open(self, text: Text) -> bytes:
        """Close the part that is open, and open one for *text*."""
        closed = self._close()
        self._parts += 1
        self._kind = type(text)
        name = "text"
        metadata: dict[str, Any] = {}
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

    def _close(self) -> bytes:
        """Close the part that is open, if there is one."""
        if self._kind is None:
            return b""
        name = "reasoning" if issubclass(self._kind, Reasoning) else "text"
        self._kind = None
        return _block(f"{name}-end", id=str(self._parts))

    def _piece(self, piece: ToolCall) -> bytes:
        """Return a piece of a call's arguments. A call can start only once its name has come."""
        call = self._calls.setdefault(piece.index, Call(piece.index))
        begun = bool(call.name)
        call.add(piece)
        if begun:
            return _delta(call, piece.arguments)
        return self._start(call) if call.name else b""

    def _start(self, call: Call) -> bytes:
        call.id = call_id(self._stream_id, call)
        return _block("tool-input-start", toolCallId=call.id, toolName=call.name) + _delta(call, call.arguments)

    def _input(self, call: Call) -> bytes:
        """Return a call's arguments as a whole. They wait for the answer's end, since the page then runs the tool."""
        started = b"" if call.name else self._start(call)
        called = {"toolCallId": call.id, "toolName": call.name}
        arguments = call.arguments
        try:
            # Some models say nothing where a tool takes nothing.
            available = _block("tool-input-available", **called, input=orjson.loads(arguments.strip() or "{}"))
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # the latter for what is nested hundreds deep
            return started + _block("tool-input-error", **called, input=arguments, errorText=_NOT_JSON)
        return started + available

    def _cost(self, usage: Usage | None) -> bytes:
        """Return the usage of a message that broke off, if there is a message: metadata alone would make one."""
        if usage is None or not self._begun:
            return b""
        return _block("message-metadata", messageMetadata={"usage": usage_object(usage)})


create = UIMessageEncoder


def _delta(call: Call, arguments: str) -> bytes:
    return _block("tool-input-delta", toolCallId=call.id, inputTextDelta=arguments) if arguments else b""


def _block(type_: str, **fields: Any) -> bytes:
    return b"data: %s\n\n" % dumps({"type": type_, **fields})
