"""AG-UI 1.0: the events of a run, as `@ag-ui/client`, CopilotKit and TanStack AI read them.

A block is `id:` and `data:`. The id comes first: TanStack's client takes it for the id of the data line after it. It
drops an event whose id it has seen, so each event has a position of its own.

The answer is one assistant message, whose id is the stream's. Its tool calls belong to it. One text is open at a time,
and a text that goes on after something else goes on in the same message. A call ends when the answer does: the pieces
of several calls may take turns, and a client may run a tool as soon as its call has ended.

The protocol has no words for some of what a stream says:

- A refusal is a message of its own, so that its reader sees it. Its `metadata` says what it is.
- Annotations, media, log probabilities and an upstream's other fields are `CUSTOM` events with the names and the data
  of the native ones.
- What an upstream wants back with the next request is an encrypted value of the message or the call that it belongs
  to: clients return it as it is, and `app.edge.dialects.agent_messages` puts it back where it was.
- The `metadata` of the events that begin and end a run has the data of the native event, under `chat-sse`.
"""

from __future__ import annotations

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
    PlainReasoning,
    Reasoning,
    Refusal,
    Start,
    Text,
    ToolCall,
    merged,
)
from app.usage import Usage
from app.wire import Encoder, Reading
from app.wire.blocks import data_block, places
from app.wire.calls import CUT, WithCalls, runnable
from app.wire.joined import Joined
from app.wire.json import given, integer, text
from app.wire.native import render
from app.wire.opaque import seal
from app.wire.transcript import Call, call_id

NAME = "ag-ui"
PROTOCOL_VERSION = "1.0"
OWN = "chat-sse"
"""Under which name the `metadata` of events and messages has what is this service's."""
REASONING_FIELD = "reasoning_field"
"""What the metadata of a reasoning message calls the upstream's own name for the reasoning."""
CALL_TYPE = "type"
"""What the encrypted value of a call calls the type of the call, if it is no function."""


class RunEncoder(WithCalls[Call, bytes], Encoder):
    """Encodes one response for a client that takes what it has for all, if it ends without an end of the run.

    A stream that was not asked for in this dialect is a run, and a thread, whose id is the stream's.
    """

    __slots__ = (
        "_before",
        "_begun",
        "_extra",
        "_id",
        "_kind",
        "_merge_after",
        "_message_id",
        "_model",
        "_reasonings",
        "_run",
        "_stream_id",
    )

    def __init__(self, reading: Reading) -> None:
        super().__init__(Call)
        self._stream_id = reading.stream_id
        self._merge_after = reading.merge_after
        asked = orjson.loads(reading.asked) if reading.asked else {}
        self._run = {name: asked.get(name, reading.stream_id) for name in ("threadId", "runId")}
        self._id = b"id: %s-" % reading.stream_id.encode()
        self._begun = False
        self._model = ""
        self._reasonings = 0  # how many reasoning messages were opened
        self._kind: type[Text] | None = None  # of the text that is open
        self._message_id = ""  # of the message that it is in
        self._before = b""  # what comes before a piece of it
        self._extra = Joined()  # fields of the message that the upstream wants back

    def __call__(self, batch: Batch) -> bytes:
        number = batch.first
        events = batch.events
        if len(events) == 1 and isinstance(event := events[0], TEXT) and type(event) is self._kind:
            # Nearly every batch is a piece of the text that is open.
            return b"".join((self._id, integer(number), b"\n", self._before, text(event.text), b"}\n\n"))
        found: list[bytes] = []
        counted = enumerate(events, number) if len(events) < self._merge_after else merged(events, number)
        for last, event in counted:
            blocks = self._blocks(event)
            ids = places(len(blocks), number, last)
            found += [b"%s%s\n%s\n\n" % (self._id, at, block) for at, block in zip(ids, blocks, strict=True)]
            number = last + 1
        return b"".join(found)

    def dismissal(self, retry_ms: int) -> bytes:
        return b"".join([b"%s\n\n" % block for block in self._blocks(Failure.of(Draining()))])

    def _blocks(self, event: Event) -> list[bytes]:
        begun = []
        if not self._begun and not isinstance(event, Failure):  # an error may be the first event, and nothing else may
            self._begun = True
            own = {"stream_id": self._stream_id, **(render(event)[1] if isinstance(event, Start) else {})}
            begun = [_block("RUN_STARTED", **self._run, protocolVersion=PROTOCOL_VERSION, metadata={OWN: own})]
        return [*begun, *self._said(event)]

    def _said(self, event: Event) -> list[bytes]:
        match event:
            case Start():
                self._model = event.model
                return []
            case Delta() | Reasoning() | Refusal():
                opening = [] if type(event) is self._kind else self._open(event)
                return [*opening, b"%s%s}" % (self._before, text(event.text))]
            case ToolCall():
                return self._piece(event)
            case Extra():
                self._extra.add(event.delta)
                return [_custom(event)]
            case Annotation() | Media() | Logprobs():
                return [_custom(event)]
            case Done():
                closed = [*self._close(), *self._end_calls(event.finish_reason), *self._encrypted()]
                more = given(usage=_usage(event.usage, event.model or self._model))
                own = {OWN: render(event)[1]}
                return [
                    *closed,
                    _block("RUN_FINISHED", **self._run, outcome=self._outcome(event), **more, metadata=own),
                ]
            case Failure():
                more = given(usage=_usage(event.usage, self._model))
                own = {OWN: render(event)[1]}
                error = _block("RUN_ERROR", message=event.message, code=event.code, **more, metadata=own)
                return [*self._close(), *(self._encrypted() if self._begun else ()), error]
            case _:
                assert_never(event)

    def _open(self, said: Text) -> list[bytes]:
        """Close the text that is open, and open one for what is *said*."""
        closed = self._close()
        self._kind = type(said)
        self._message_id = self._stream_id
        kind = "TEXT_MESSAGE"
        message: dict[str, Any] = {"role": "assistant"}
        match said:
            case Reasoning():
                self._reasonings += 1
                self._message_id = f"{self._stream_id}-reasoning-{self._reasonings}"
                kind = "REASONING_MESSAGE"
                message = {"role": "reasoning"}
                if isinstance(said, PlainReasoning):
                    message["metadata"] = {OWN: {REASONING_FIELD: said.FIELD}}
                closed.append(_block("REASONING_START", messageId=self._message_id))
            case Refusal():
                self._message_id = f"{self._stream_id}-refusal"
                message["metadata"] = {OWN: {"refusal": True}}
            case Delta():
                pass
            case _:
                assert_never(said)
        content = _block(f"{kind}_CONTENT", messageId=self._message_id)
        self._before = content.removesuffix(b"}") + b',"delta":'
        return [*closed, _block(f"{kind}_START", messageId=self._message_id, **message)]

    def _close_text(self) -> list[bytes]:
        if self._kind is None:
            return []
        kind = self._kind
        self._kind = None
        if not issubclass(kind, Reasoning):
            return [_block("TEXT_MESSAGE_END", messageId=self._message_id)]
        return [_block(name, messageId=self._message_id) for name in ("REASONING_MESSAGE_END", "REASONING_END")]

    def _begin_call(self, call: Call) -> list[bytes]:
        call.id = call_id(self._stream_id, call)
        place = {"toolCallId": call.id, "toolCallName": call.name, "parentMessageId": self._stream_id}
        return [_block("TOOL_CALL_START", **place)]

    def _arguments(self, call: Call, arguments: str) -> list[bytes]:
        return [_block("TOOL_CALL_ARGS", toolCallId=call.id, delta=arguments)] if arguments else []

    def _end_calls(self, reason: str) -> list[bytes]:
        return [block for call in self._calls.values() for block in self._end_call(call, reason)]

    def _end_call(self, call: Call, reason: str) -> list[bytes]:
        if not call.names:
            if reason in CUT:
                return []
            blocks = self._start(call)
        else:
            blocks = []
        arguments = runnable(call, reason)
        if arguments is not None and arguments != call.arguments:
            blocks += self._arguments(call, arguments)
        own = {**call.extra.value, **given(**{CALL_TYPE: "" if call.type == "function" else call.type})}
        if own:
            blocks.append(_encrypted_value("tool-call", call.id, own))
        return [*blocks, _block("TOOL_CALL_END", toolCallId=call.id)]

    def _encrypted(self) -> list[bytes]:
        return [_encrypted_value("message", self._stream_id, self._extra.value)] if self._extra else []

    def _outcome(self, done: Done) -> dict[str, Any]:
        if done.finish_reason == "cancelled":
            return {"type": "cancelled"}
        calls = self._calls.values()
        pending = [call.id for call in calls if runnable(call, done.finish_reason) is not None]
        return {"type": "success", **given(pendingToolCallIds=pending)}


class ReturningRunEncoder(RunEncoder):
    """Encodes one response for a client that comes back for the rest of a run, as TanStack's does."""

    __slots__ = ()

    resumable = True

    def dismissal(self, retry_ms: int) -> bytes:
        return b"retry: %d\n" % retry_ms


create = RunEncoder


def asked_of(thread_id: str, run_id: str) -> str:
    """Return what `Reading.asked` has of a run: its names."""
    return orjson.dumps({"threadId": thread_id, "runId": run_id}).decode()


def run_of(asked: str) -> str:
    """Return the name of the run that `asked_of` told of; "" if another dialect has told of its request."""
    found = orjson.loads(asked) if asked else {}
    return str(found.get("runId", ""))


def _encrypted_value(subtype: str, entity: str, own: dict[str, Any]) -> bytes:
    return _block("REASONING_ENCRYPTED_VALUE", subtype=subtype, entityId=entity, encryptedValue=seal(own))


def _custom(event: Event) -> bytes:
    name, data = render(event)
    return _block("CUSTOM", name=name.decode(), value=data)


def _block(type_: str, **fields: Any) -> bytes:
    return data_block({"type": type_, **fields})


def _usage(usage: Usage | None, model: str) -> list[dict[str, Any]]:
    """Return *usage* in the protocol's words. A count that the upstream did not make is left out."""
    if usage is None:
        return []
    counts = {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
        "reasoningTokens": usage.reasoning_tokens,
        "cachedInputTokens": usage.cached_tokens,
        "cacheWriteInputTokens": usage.cache_write_tokens,
    }
    return [given(model=model, **counts)]
