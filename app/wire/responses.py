"""OpenAI's Responses: the events of a stream, or the response so far, as the official SDKs read them.

A block is `event:`, `data:` and `id:`. The name is the event's type. `sequence_number` counts the events from 0 as they
are without any merging, so it is the same for each reader; an event that was made of several has the number of the last
one. A stream ends with `response.completed`, `response.incomplete` or `response.failed`, which has the whole response.
An answer that was stopped is incomplete, and its status is `cancelled`.

Reasoning is an item with a summary, since that is what the SDKs show. What the upstream wants back with the next
request, and Responses have no field for, is the `encrypted_content` of an item of reasoning: clients return it as it
is. Other fields of the upstream's stand in the item or in the response.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from app.errors import Draining
from app.events import TERMINAL, TEXT, Batch, Done, Event, Failure, Start, Terminal, merged
from app.usage import Usage
from app.wire import Encoder, Later, Reading
from app.wire.blocks import numbered, places
from app.wire.json import dumps, integer, text
from app.wire.long import LONG, LongTexts
from app.wire.response_output import Output
from app.wire.response_parts import Said

NAME = "responses"

MAX_ECHO = 16 * 1024
"""How many bytes of a request its response says again: the response is in several events, and is kept for each."""

# What a response says of its request where the request said nothing. OpenAI's specification requires all of these.
_DEFAULTS: Mapping[str, Any] = {
    "background": False,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
ECHOED = frozenset(_DEFAULTS) - {"previous_response_id"}
"""The fields of a request that its response says again."""
_OWN = frozenset(
    (*_DEFAULTS, "id", "object", "created_at", "completed_at", "status", "model", "output", "usage", "error")
) | {"incomplete_details", "choices", "created"}
_TYPES = {"completed": "completed", "failed": "failed", "incomplete": "incomplete", "cancelled": "incomplete"}
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter", "cancelled": "cancelled"}
_NUMBER = b',"sequence_number":'
_COUNTS = ("prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details")


def echo(request: Mapping[str, Any], model: str, created: int) -> str:
    """Return what `Reading.asked` has of a *request*: its fields that are ECHOED, unless they are too large."""
    said: dict[str, Any] = {}
    size = 0
    fields = {name: request[name] for name in ECHOED if request.get(name) is not None}
    for name, value in sorted(fields.items(), key=lambda field: len(orjson.dumps(field[1]))):
        size += len(orjson.dumps({name: value}))
        if size > MAX_ECHO:
            break
        said[name] = value
    return orjson.dumps({**said, "model": model, "created_at": created}).decode()


class Response:
    """The response that a stream is, as far as its records have come. *asked* is that of `Reading`."""

    __slots__ = ("_asked", "_created", "_end", "_model", "_started", "_stream_id", "output")

    def __init__(self, stream_id: str, asked: str = "") -> None:
        found = orjson.loads(asked) if asked else {}
        self._stream_id = stream_id
        self._model: str = found.pop("model", "")
        self._created: int = found.pop("created_at", 0)
        # A stream that was asked for in another dialect has that dialect's fields here.
        self._asked = {name: value for name, value in found.items() if name in ECHOED}
        self._started = False
        self._end: Terminal | None = None
        self.output = Output(stream_id)

    def take(self, event: Event) -> list[Said]:
        """Add what *event* says, and return the events that say so."""
        begun: list[Said] = []
        if isinstance(event, Start):
            self._model = event.model
            self._created = self._created or event.created
        if not self._started:  # a stream that failed early has no start
            self._started = True
            begun = [{"type": f"response.{kind}", "response": self.resource} for kind in ("created", "in_progress")]
        said = self.output.take(event)
        if not isinstance(event, TERMINAL):
            return begun + said
        self._end = event
        resource = self.resource
        return [*begun, *said, {"type": f"response.{_TYPES[resource['status']]}", "response": resource}]

    @property
    def resource(self) -> dict[str, Any]:
        """The response as OpenAI has it."""
        end = self._end
        status = _status(end, self.output) if end else "in_progress" if self._started else "queued"
        done = end if isinstance(end, Done) else None
        completed = self._created + (done.duration_ms or 0) // 1000 if done and status == "completed" else None
        reason = _INCOMPLETE.get(done.finish_reason) if done else None
        native = {} if done is None or done.raw_reason is None else {"native_finish_reason": done.raw_reason}
        return {
            **{name: value for name, value in self.output.rest.items() if name not in _OWN},
            **native,
            "id": response_id(self._stream_id),
            "object": "response",
            "created_at": self._created,
            "status": status,
            "completed_at": completed,
            "error": _error_of(end) if isinstance(end, Failure) else None,
            "incomplete_details": {"reason": reason} if reason else None,
            "model": (done.model if done else "") or self._model,
            **_DEFAULTS,
            **self._asked,
            "output": self.output.items,
            "usage": _usage(end.usage) if end else None,
        }


class ResponsesEncoder(Encoder):
    """Encodes one response. *sequence* is the number of the last event that was encoded, or -1."""

    __slots__ = ("_after", "_before", "_id", "_merge_after", "_output", "_place", "_response", "sequence")

    def __init__(self, reading: Reading) -> None:
        self._response = Response(reading.stream_id, reading.asked)
        self._output = self._response.output
        self._merge_after = reading.merge_after
        self._id = b"\nid: %s-" % reading.stream_id.encode()
        self._after = b"}" + self._id
        self._place = self._output.place
        self._before = b""  # what comes before a piece of the text that is being written there
        self.sequence = -1

    def __call__(self, batch: Batch) -> bytes:
        number = batch.first
        events = batch.events
        output = self._output
        if len(events) == 1 and isinstance(event := events[0], TEXT) and type(event) is output.kind:
            # Nearly every batch is a piece of the part that is open.
            said = event.text
            output.write(said)
            self.sequence = at = self.sequence + 1
            return b"".join((self._before, text(said), _NUMBER, integer(at), self._after, integer(number), b"\n\n"))
        if output.size > LONG and any(type(event) is not output.kind for event in events):
            raise Later
        counted = enumerate(events, number) if len(events) < self._merge_after else merged(events, number)
        blocks: list[bytes] = []
        for last, event in counted:
            blocks.append(numbered(self._blocks(event, last - number + 1), self._id, number, last))
            number = last + 1
        return b"".join(blocks)

    def pieces(self, batch: Batch) -> Iterator[tuple[bytes, bool]]:
        kind, size = self._output.kind, self._output.size  # at least, of the text that is being written
        begun = 0
        for at, event in enumerate(batch.events):
            if isinstance(event, TEXT) and type(event) is kind:
                size += len(event.text)
            elif size > LONG or isinstance(event, TERMINAL):  # it may close a long text, or several
                if begun < at:
                    yield self(Batch(batch.first + begun, batch.events[begun:at])), True
                begun = at + 1
                yield from self._in_steps(event, batch.first + at, more=begun < len(batch.events))
                kind, size = self._output.kind, self._output.size
            elif isinstance(event, TEXT):
                kind, size = type(event), len(event.text)
        if begun < len(batch.events):
            yield self(Batch(batch.first + begun, batch.events[begun:])), False

    def _in_steps(self, event: Event, number: int, *, more: bool) -> Iterator[tuple[bytes, bool]]:
        """Encode one record, of which each block may have a long text."""
        said = self._response.take(event)
        self._look()
        texts = LongTexts()
        for each, at in zip(said, places(len(said), number, number), strict=True):
            self.sequence += 1
            before = b"event: %s\ndata: " % each["type"].encode()
            after = b"%s%s\n\n" % (self._id, at)
            for block in texts.dumps({**each, "sequence_number": self.sequence}, before, after):
                yield block, more or not block or each is not said[-1]
        if not said:
            yield b"", more

    def dismissal(self, retry_ms: int) -> bytes:
        # The response goes on, for all that is known here. The number is the last one's: the client may come back.
        said = {"type": "error", "code": Draining.code, "message": Draining.message, "param": None}
        return _block({**said, "sequence_number": max(0, self.sequence)}) + b"\n\n"

    def skip(self, batch: Batch) -> None:
        for event in batch.events:
            self.count(event)
        self._look()

    def count(self, event: Event) -> int:
        """Take note of the next event. Return how many events it is here."""
        if type(event) is self._output.kind and isinstance(event, TEXT):
            self._output.write(event.text)
            count = 1
        else:
            count = len(self._response.take(event))
        self.sequence += count
        return count

    def _look(self) -> None:
        """Take note of where a text is being written now."""
        if self._place is not self._output.place:
            self._place = self._output.place
            name = self._place["type"].encode()
            self._before = b'event: %s\ndata: %s,"delta":' % (name, dumps(self._place)[:-1])

    def _blocks(self, event: Event, count: int) -> list[bytes]:
        """Return the blocks of an event, which is *count* records joined if it is a text."""
        said = self._response.take(event)
        self._look()
        if not isinstance(event, TEXT):
            return [self._numbered(each) for each in said]
        blocks = [self._numbered(each) for each in said[:-1]]
        return [*blocks, self._delta(event.text, count) + b"}"]

    def _delta(self, said: str, count: int) -> bytes:
        self.sequence += count
        return b"".join((self._before, text(said), _NUMBER, integer(self.sequence)))

    def _numbered(self, said: Said) -> bytes:
        self.sequence += 1
        return _block({**said, "sequence_number": self.sequence})


create = ResponsesEncoder


def response_id(stream_id: str) -> str:
    """Return the id of the response that a stream is."""
    return f"resp_{stream_id}"


def _block(said: Said) -> bytes:
    return b"event: %s\ndata: %s" % (said["type"].encode(), dumps(said))


def _status(end: Terminal, output: Output) -> str:
    if isinstance(end, Failure):
        return "failed"
    if end.finish_reason == "cancelled":
        return "cancelled"
    return "incomplete" if end.finish_reason in _INCOMPLETE or output.lacks_calls else "completed"


def _error_of(failure: Failure) -> dict[str, Any]:
    """Return the error of a response. The codes are OpenAI's, or what the upstream itself said; ours is beside it."""
    told = failure.told or {}
    code = {429: "rate_limit_exceeded"}.get(failure.status, "server_error")
    if 400 <= failure.status < 500 and failure.status != 429:
        code = "invalid_prompt"
    return {
        "code": told.get("code") or code,
        "message": failure.message,
        "type": told.get("type") or failure.type,
        "param": failure.param,
        "service_code": failure.code,
    }


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    """Return *usage* in the words of Responses, with the upstream's other fields."""
    if usage is None:
        return None
    others = {name: value for name, value in usage.fields.items() if name not in _COUNTS}
    counts = {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    return {**others, **counts, **({"estimated": True} if usage.estimated else {})}
