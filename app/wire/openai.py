"""OpenAI's dialect: the chunks of a chat completion, or all of it at once, as the official SDKs read them.

A block is `data:` and `id:`, because those SDKs parse every block as JSON, even one without data. `[DONE]` follows
success alone: any other end of a stream is a block with an `error`, which the SDKs raise.

What an upstream sends and OpenAI does not have stands where the upstream had put it: in the chunk, the choice, the
delta or the message, or the tool call. `reasoning_content`, or `reasoning`, is what other providers call a piece of
reasoning. Two fields are this service's own: `estimated` in a usage that it counted, and `native_finish_reason` beside
a finish reason that OpenAI does not have.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, assert_never

import orjson

from app.errors import Cancelled, Draining
from app.events import (
    TERMINAL,
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
    Terminal,
    ToolCall,
    merged,
)
from app.wire import Encoder, ErrorAnswer, Reading
from app.wire.blocks import data_block, numbered
from app.wire.json import dumps, error_object, given, integer, text, usage_object
from app.wire.media import fields_of, object_of
from app.wire.notes import in_chat
from app.wire.transcript import Call, Transcript, call_id

NAME = "openai"

# OpenAI's finish reasons. Any other is shown as "stop".
_FINISH = {"length": "length", "content_filter": "content_filter", "tool_calls": "tool_calls"}
# What no other field of an upstream's may stand in for.
_OWN_OF_CHUNK = frozenset(("id", "object", "created", "model", "choices", "usage", "error"))
_OWN_OF_CHOICE = frozenset(("index", "delta", "message", "logprobs", "finish_reason", "error"))
# How many bytes of such fields are in each chunk, as they are in the upstream's. What is longer is sent once.
_REPEATED = 256
_DONE = b"data: [DONE]"


class ChunkEncoder(Encoder):
    """Encodes one response. If the usage was asked for, it is in the chunk before `[DONE]`, and null in every other."""

    __slots__ = (
        "_after",
        "_before",
        "_calls",
        "_common",
        "_head",
        "_id",
        "_include_usage",
        "_merge_after",
        "_repeated",
        "_stream_id",
        "_tail",
    )

    def __init__(self, reading: Reading) -> None:
        self._stream_id = reading.stream_id
        self._merge_after = reading.merge_after
        self._include_usage = reading.include_usage
        self._id = b"\nid: %s-" % reading.stream_id.encode()
        self._calls = 0  # how many have begun
        self._common: dict[str, Any] = {}  # fields that each chunk has
        self._repeated: dict[str, Any] = {}  # those of the upstream's that each chunk has
        # From delta to delta only the text differs: *head* and *tail* stand around each choice, *before* and *after*
        # around the text in it.
        self._head = b""
        self._before = b""
        self._tail = b'],"usage":null' if self._include_usage else b"]"
        self._after = b'},"logprobs":null,"finish_reason":null}' + self._tail + b"}" + self._id

    def __call__(self, batch: Batch) -> bytes:
        number = batch.first
        events = batch.events
        if len(events) == 1 and type(event := events[0]) is Delta:  # nearly every batch
            return b"".join((self._before, text(event.text), self._after, integer(number), b"\n\n"))
        counted = enumerate(events, number) if len(events) < self._merge_after else merged(events, number)
        blocks: list[bytes] = []
        group: list[Event] = []
        last = number
        for at, event in counted:
            if group and not _rides(event, group[-1]):
                blocks.append(self._numbered(group, number, last))
                number = last + 1
                group = []
            group.append(event)
            last = at
        blocks.append(self._numbered(group, number, last))
        return b"".join(blocks)

    def dismissal(self, retry_ms: int) -> bytes:
        return _error(Failure.of(Draining())) + b"\n\n"

    def skip(self, batch: Batch) -> None:
        for event in batch.events:
            match event:
                case Start():
                    self._begin(event)
                case ToolCall():
                    self._calls = max(self._calls, event.index + 1)
                case Extra():
                    self._repeat(event)

    def _numbered(self, group: Sequence[Event], first: int, last: int) -> bytes:
        event = group[0]
        if len(group) == 1 and type(event) is Delta:
            return b"".join((self._before, text(event.text), self._after, integer(last), b"\n\n"))
        blocks = self._end(event) if isinstance(event, TERMINAL) else [self._chunk(group)]
        return numbered(blocks, self._id, first, last)

    def _begin(self, start: Start) -> None:
        self._common = {
            "id": _id(self._stream_id),
            "object": "chat.completion.chunk",
            "created": start.created,
            "model": start.model,
        }
        self._set_head()

    def _set_head(self) -> None:
        self._head = b'data: %s,"choices":[' % dumps({**self._common, **self._repeated})[:-1]
        self._before = self._head + b'{"index":0,"delta":{"content":'

    def _repeat(self, extra: Extra) -> dict[str, Any]:
        """Have each chunk from now on say what each of the upstream's says. Return the fields to be sent only once."""
        fields = _without(extra.chunk, _OWN_OF_CHUNK)
        once = {name: value for name, value in fields.items() if isinstance(value, (Mapping, list, tuple))}
        repeated = {**self._repeated, **fields}
        for name in once:
            del repeated[name]
        if len(dumps(repeated)) > _REPEATED:
            repeated = {name: value for name, value in self._repeated.items() if name not in fields}
            once = fields
        if repeated != self._repeated:
            self._repeated = repeated
            self._set_head()
        return once

    def _chunk(self, group: Sequence[Event]) -> bytes:
        """Return the chunk that says what is in *group*."""
        delta: dict[str, Any] = {}
        choice: dict[str, Any] = {}
        once: dict[str, Any] = {}
        tokens: dict[str, Any] | None = None
        for event in group:
            match event:
                case Start():
                    self._begin(event)
                    delta = {"role": "assistant", "content": "", "refusal": None}
                case Delta(said):
                    delta["content"] = said
                case Reasoning(said):
                    delta.update(_reasoning(event.FIELD, said))
                case Refusal(said):
                    delta["refusal"] = said
                case ToolCall():
                    delta["tool_calls"] = [self._piece(event)]
                case Logprobs(content, refusal):
                    tokens = _logprobs(content, refusal)
                case Annotation(annotations, citations, search_results):
                    delta.update(in_chat(annotations))
                    once = given(citations=citations, search_results=search_results)
                case Media():
                    delta.update(fields_of([event]))
                case Extra():
                    once.update(self._repeat(event))
                    choice = _without(event.choice, _OWN_OF_CHOICE)
                    delta = {**event.delta, **delta}
                case Done() | Failure():
                    raise ValueError("an end is not a chunk")
                case _:
                    assert_never(event)
        return self._choice({"index": 0, "delta": delta, "logprobs": tokens, "finish_reason": None, **choice}, once)

    def _choice(self, choice: Mapping[str, Any], once: Mapping[str, Any]) -> bytes:
        more = b"," + dumps(once)[1:-1] if once else b""
        return b"".join((self._head, dumps(choice), self._tail, more, b"}"))

    def _piece(self, piece: ToolCall) -> dict[str, Any]:
        """Return *piece* as OpenAI has it: the id and the type come with a call's first piece, and only then.

        Clients join what comes twice, ids too. A name may come later, because the first one was empty.
        """
        if piece.index < self._calls:
            return {"index": piece.index, **_called(piece, given(name=piece.name))}
        self._calls = piece.index + 1
        return {"index": piece.index, **_call(self._stream_id, piece)}

    def _end(self, end: Terminal) -> list[bytes]:
        if isinstance(end, Failure):
            return [_error(end)]
        failure = failure_of(end)
        if failure is not None:
            return [_error(failure)]
        last = self._choice({"index": 0, "delta": {}, "logprobs": None, **_finish(end)}, {})
        usage = [b'%s],"usage":%s}' % (self._head, dumps(usage_object(end.usage)))] if self._include_usage else []
        return [last, *usage, _DONE]


create = ChunkEncoder


def completion(stream_id: str, transcript: Transcript) -> dict[str, Any]:
    """Return the `chat.completion` that a stream is which ended well: `failure_of` finds no failure in its end.

    The content is null where a refusal or tool calls stand in its place.
    """
    end = transcript.end
    assert isinstance(end, Done)  # noqa: S101 - see above
    calls = [_call(stream_id, call) for call in transcript.calls]
    in_content = [media for media in transcript.media if media.field == "content"]
    content: Any = transcript.content or (None if calls or transcript.refusal else "")
    if in_content:
        said = (part for part in transcript.parts if isinstance(part, str) or part.field == "content")
        content = [{"type": "text", "text": part} if isinstance(part, str) else object_of(part) for part in said]
    message = {
        **transcript.extra.delta,
        "role": "assistant",
        "content": content,
        "refusal": transcript.refusal or None,
        **given(tool_calls=calls),
        **in_chat(transcript.annotations),
        **_reasoning(transcript.reasoning_field, transcript.reasoning),
        **fields_of([media for media in transcript.media if media.field != "content"]),
    }
    tokens = transcript.content_logprobs, transcript.refusal_logprobs
    choice = {
        "index": 0,
        "message": message,
        "logprobs": _logprobs(*tokens) if any(tokens) else None,
        **_without(transcript.extra.choice, _OWN_OF_CHOICE),
        **_finish(end),
    }
    return {
        "id": _id(stream_id),
        "object": "chat.completion",
        "created": transcript.created,
        "model": transcript.model,
        "choices": [choice],
        "usage": usage_object(end.usage),
        **_without(transcript.extra.chunk, _OWN_OF_CHUNK),
        **given(citations=transcript.citations, search_results=transcript.search_results),
    }


def failure_of(terminal: Terminal) -> Failure | None:
    """Return what has gone wrong in this dialect's terms. It has no word for an answer that was stopped."""
    if isinstance(terminal, Failure):
        return terminal
    return Failure.of(Cancelled()) if terminal.finish_reason == "cancelled" else None


def _id(stream_id: str) -> str:
    return f"chatcmpl-{stream_id}"


def _rides(event: Event, previous: Event) -> bool:
    """Whether *event* is in one chunk with the *previous* one, as it was in the upstream's.

    Log probabilities are with their text. Clients that read `reasoning_details` leave out the reasoning in the same
    chunk, and would show it twice if it came in two.
    """
    if isinstance(event, Extra):
        return not isinstance(previous, Extra)
    return isinstance(event, Logprobs) and isinstance(previous, (Delta, Refusal))


def _call(stream_id: str, call: Call | ToolCall) -> dict[str, Any]:
    """Return a whole call, or the first piece of one."""
    kind = _extra_of(call).get("type", call.type)  # the upstream's own word for its type comes first
    return {"id": call_id(stream_id, call), "type": kind, **_called(call, {"name": call.name})}


def _called(call: Call | ToolCall, name: Mapping[str, str]) -> dict[str, Any]:
    """Return what is called, by *name* if there is one, and the upstream's other fields of the call."""
    extra = _extra_of(call)
    inner = extra.get(call.type)
    arguments = {"input" if call.type == "custom" else "arguments": call.arguments}
    called = {**(inner if isinstance(inner, Mapping) else {}), **name, **arguments}
    return {call.type: called, **_without(extra, ("id", "index", "type", call.type))}


def _extra_of(call: Call | ToolCall) -> Mapping[str, Any]:
    return call.extra.value if isinstance(call, Call) else call.extra or {}


def _finish(done: Done) -> dict[str, Any]:
    native = {} if done.raw_reason is None else {"native_finish_reason": done.raw_reason}
    return {"finish_reason": _FINISH.get(done.finish_reason, "stop"), **native}


def _reasoning(field: str, text: str) -> dict[str, str]:
    """Return the fields of reasoning: the upstream's own, and one that clients read if they do not know that."""
    known = field if field == Reasoning.FIELD else PlainReasoning.FIELD
    return given(**{known: text, field: text})


def _logprobs(content: Sequence[Any], refusal: Sequence[Any]) -> dict[str, Any]:
    return {"content": content or None, "refusal": refusal or None}


def _without(fields: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def refusal(failure: Failure, request_id: str) -> ErrorAnswer:
    """Return the answer for a failure before the first event.

    What the upstream said about the request has the upstream's own status, so that a client raises the class of error
    that it raises against the upstream itself.
    """
    status = failure.told["status"] if failure.told else failure.status
    return ErrorAnswer(status, orjson.dumps({"error": _error_object(failure) | {"request_id": request_id}}))


def _error(failure: Failure) -> bytes:
    return data_block({"error": _error_object(failure)})


def _error_object(failure: Failure) -> dict[str, Any]:
    """Return the error as OpenAI has it: with the upstream's own `type` and `code`, and ours beside them."""
    told = failure.told or {}
    said = {name: told[name] for name in ("type", "code") if name in told} | dict(told.get("more", {}))
    return error_object(failure) | said | {"param": failure.param, "service_code": failure.code}
