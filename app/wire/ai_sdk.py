"""Vercel's dialect: the AI SDK's UI message stream, version 1, as `useChat` reads it.

A block is `data:` and `id:`. The SDK checks each block against a schema, and throws on what the schema lacks. Texts are
parts with a start and an end. One part is open at a time. It is closed when another kind of content follows, and at
every end of a stream: a page shows an open part as still being written. Every end is a `finish` and `[DONE]`, also
after an `error` or an `abort`: the SDK's `WorkflowChatTransport` asks again and again for the rest of a stream that has
no `finish`. A stream that stops without `[DONE]` was cut.

The dialect has no words for some of what a stream says:

- A refusal is a text part of its own, so that its reader sees it. Its `providerMetadata` says what it is.
- Log probabilities are left out.
- What the upstream says of its reasoning beside the text (signatures, ciphertext) is in the `providerMetadata` of the
  reasoning part, and of a part without text where there is none; what it says of a call, in that of the tool's part.
  Other fields of the delta are a part `data-extra`. The page returns them all, and `app.edge.dialects.ui_messages` puts
  them back where they were.
- Usage, model, and other fields of the chunks are in the message's metadata: `{"usage": …, "model": …, "extra": …}`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
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
    PlainReasoning,
    Reasoning,
    Refusal,
    Start,
    Text,
    ToolCall,
    merged,
)
from app.usage import Usage
from app.wire import Encoder, ErrorAnswer, Reading
from app.wire.blocks import data_block, numbered
from app.wire.calls import CUT, WithCalls, runnable
from app.wire.joined import Joined
from app.wire.json import given, integer, string_in, text, usage_object
from app.wire.media import sound_url
from app.wire.notes import Cited, inner_of
from app.wire.opaque import is_of_reasoning
from app.wire.transcript import Call, call_id

NAME = "ai-sdk"
PROVIDER = "chat-sse"
"""Under which name the `providerMetadata` of a part has what is this service's."""
REASONING_FIELD = "reasoning_field"
"""What the metadata of a reasoning part calls the upstream's own name for the reasoning."""
MEDIA_FIELD = "field"
"""What the metadata of a file calls the field that the file stood in."""
EXTRA_PART = "data-extra"
"""The part that has other fields of the delta."""
CONTINUES = '{"continues":true}'
"""What `Reading.asked` is if the answer continues the page's last message, and is "" otherwise."""

_DONE = b"data: [DONE]"
_FINISH = {"stop": "stop", "length": "length", "content_filter": "content-filter", "tool_calls": "tool-calls"}
_NOT_JSON = "The arguments of this tool call are not valid JSON."


class UIMessageEncoder(WithCalls[Call, bytes], Encoder):
    """Encodes one response.

    The message's id is the stream's, so a page that has a part of the message replaces it when it reads the stream
    again. A response that *continues* the page's last message, which the SDK expects after tool outputs, names no id:
    the SDK would make a second message of it.
    """

    __slots__ = (
        "_audio",
        "_before",
        "_begun",
        "_cited",
        "_continues",
        "_extra",
        "_id",
        "_kind",
        "_merge_after",
        "_more",
        "_parts",
        "_reasoning",
        "_sources",
        "_stream_id",
    )

    headers = MappingProxyType({"X-Vercel-AI-UI-Message-Stream": "v1"})

    def __init__(self, reading: Reading, *, continues: bool = False) -> None:
        super().__init__(Call)
        self._stream_id = reading.stream_id
        self._merge_after = reading.merge_after
        self._continues = continues
        self._id = b"\nid: %s-" % reading.stream_id.encode()
        self._begun = False
        self._parts = 0  # how many text parts were opened; the id of the last one
        self._kind: type[Text] | None = None  # of the part that is open
        self._before = b""  # what comes before a piece of its text
        self._reasoning = Joined()  # what the upstream says of its reasoning, and no part has said yet
        self._extra = Joined()  # other fields of the delta
        self._more: dict[str, dict[str, Any]] = {}  # fields of the chunk and of the choice
        self._sources = 0
        self._cited = Cited()
        self._audio: list[Media] = []

    def __call__(self, batch: Batch) -> bytes:
        number = batch.first
        events = batch.events
        if len(events) == 1 and isinstance(event := events[0], TEXT) and type(event) is self._kind:
            # Nearly every batch is a piece of the part that is open.
            return b"".join((self._before, text(event.text), b"}", self._id, integer(number), b"\n\n"))
        blocks: list[bytes] = []
        counted = enumerate(events, number) if len(events) < self._merge_after else merged(events, number)
        for last, event in counted:
            blocks.append(numbered(self._blocks(event), self._id, number, last))
            number = last + 1
        return b"".join(blocks)

    def skip(self, batch: Batch) -> None:
        for event in batch.events:
            self.count(event)

    def count(self, event: Event) -> int:
        """Take note of the next event. Return how many chunks it is to the SDK, for which `[DONE]` is none."""
        if type(event) is self._kind:
            return 1
        blocks = self._blocks(event)
        return len(blocks) - (blocks[-1:] == [_DONE])

    def dismissal(self, retry_ms: int) -> bytes:
        return b"".join([b"%s\n\n" % block for block in self._blocks(Failure.of(Draining()))])

    def _blocks(self, event: Event) -> list[bytes]:
        match event:
            case Delta() | Reasoning() | Refusal():
                opening = [] if type(event) is self._kind else self._open(event)
                return [*opening, b"%s%s}" % (self._before, text(event.text))]
            case ToolCall():
                return self._piece(event)
            case Annotation():
                return self._notes(event)
            case Media():
                return [*self._close(), *self._file(event)]
            case Extra():
                self._note(event)
                return []
            case Logprobs():
                return []
            case Start():
                self._begun = True
                named = {} if self._continues else {"messageId": self._stream_id}
                return [_block("start", **named), _block("start-step")]
            case Done("cancelled"):
                return [
                    *self._close(),
                    *self._leftovers(),
                    *self._cost(event.usage),
                    _block("abort"),
                    _block("finish"),
                    _DONE,
                ]
            case Done():
                whole = [*self._close(), *self._leftovers(), *self._inputs(event.finish_reason)]
                more = given(extra={place: fields for place, fields in self._more.items() if fields})
                metadata = {"usage": usage_object(event.usage), **given(model=event.model), **more}
                reason = _FINISH.get(event.finish_reason, "other")
                finish = _block("finish", finishReason=reason, messageMetadata=metadata)
                return [*whole, _block("finish-step"), finish, _DONE]
            case Failure():
                error = _block("error", errorText=event.message)
                finish = _block("finish", finishReason="error")
                return [*self._close(), *self._leftovers(), *self._cost(event.usage), error, finish, _DONE]
            case _:
                assert_never(event)

    def _open(self, said: Text) -> list[bytes]:
        """Close the part that is open, and open one for what is *said*."""
        closed = self._close()
        self._parts += 1
        self._kind = type(said)
        name = "text"
        own: dict[str, Any] = {}
        match said:
            case PlainReasoning():
                name = "reasoning"
                own = {REASONING_FIELD: said.FIELD}
            case Reasoning():
                name = "reasoning"
            case Refusal():
                own = {"refusal": True}
            case Delta():
                pass
            case _:
                assert_never(said)
        self._before = b'data: {"type":"%s-delta","id":"%d","delta":' % (name.encode(), self._parts)
        return [*closed, _block(f"{name}-start", id=str(self._parts), **_metadata(own))]

    def _close_text(self) -> list[bytes]:
        if self._kind is None:
            return []
        kind = self._kind
        self._kind = None
        if not issubclass(kind, Reasoning):
            return [_block("text-end", id=str(self._parts))]
        return [_block("reasoning-end", id=str(self._parts), **self._of_reasoning(kind))]

    def _of_reasoning(self, kind: type[Reasoning]) -> dict[str, Any]:
        """Return the metadata with what the upstream said of its reasoning since the last part of that."""
        if not self._reasoning:
            return {}
        found = self._reasoning.value
        self._reasoning = Joined()
        return _metadata(found if kind is Reasoning else {REASONING_FIELD: kind.FIELD, **found})

    def _begin_call(self, call: Call) -> list[bytes]:
        call.id = call_id(self._stream_id, call)
        fields: dict[str, Any] = {"toolCallId": call.id, "toolName": call.name, **_of_call(call)}
        if call.type == "custom":
            fields["inputEncoding"] = "text"
        return [_block("tool-input-start", **fields)]

    def _arguments(self, call: Call, arguments: str) -> list[bytes]:
        return [_block("tool-input-delta", toolCallId=call.id, inputTextDelta=arguments)] if arguments else []

    def _inputs(self, reason: str) -> list[bytes]:
        """Return the calls' arguments as a whole. They wait for the answer's end, since the page then runs the tools.

        If the answer was cut, its calls stay as they are. The page runs none of them, and the SDK does not ask again by
        itself, as it would do after an error of the tool.
        """
        if reason in CUT:
            return []
        return [block for call in self._calls.values() for block in self._input(call, reason)]

    def _input(self, call: Call, reason: str) -> list[bytes]:
        started = [] if call.names else self._start(call)
        called = {"toolCallId": call.id, "toolName": call.name, **_of_call(call)}
        arguments = runnable(call, reason)
        if call.type == "custom":
            return [*started, _block("tool-input-available", **called, input=arguments)]
        try:
            value = orjson.loads(arguments or "")
            return [*started, _block("tool-input-available", **called, input=value)]
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # the latter for what is nested hundreds deep
            return [*started, _block("tool-input-error", **called, input=call.arguments, errorText=_NOT_JSON)]

    def _notes(self, notes: Annotation) -> list[bytes]:
        """Return the sources. A text that is being written goes on after them."""
        blocks = [self._source(note) for note in notes.annotations]
        for url, result in self._cited.add(notes):
            more = _metadata({"search_result": result} if result else {})
            blocks.append(self._source_url(url, string_in(result, "title"), more))
        return blocks

    def _source(self, note: Any) -> bytes:
        facts = inner_of(note)
        more = _metadata({"annotation": note})
        url = string_in(facts, "url")
        if url:
            return self._source_url(url, string_in(facts, "title"), more)
        self._sources += 1
        name = string_in(facts, "filename") or string_in(facts, "title")
        if not name:
            return _block("data-annotation", data=note)
        place = {"sourceId": str(self._sources), "mediaType": "application/octet-stream"}
        return _block("source-document", **place, title=name, filename=name, **more)

    def _source_url(self, url: str, title: str, more: Mapping[str, Any]) -> bytes:
        self._sources += 1
        return _block("source-url", sourceId=str(self._sources), url=url, **given(title=title), **more)

    def _file(self, media: Media) -> list[bytes]:
        """Return a file. A sound comes in pieces, and is one file at the answer's end."""
        if media.type == "audio":
            self._audio.append(media)
            return []
        more = _metadata(given(**{MEDIA_FIELD: media.field}))
        return [_block("file", url=media.url, mediaType=media.media_type, **more)]

    def _note(self, extra: Extra) -> None:
        for place, fields in (("chunk", extra.chunk), ("choice", extra.choice)):
            self._more.setdefault(place, {}).update(fields)
        for name, value in extra.delta.items():
            (self._reasoning if is_of_reasoning(name) else self._extra).add({name: value})

    def _leftovers(self) -> list[bytes]:
        """Return what waited for the answer's end. What belongs to reasoning of which there is no text has a part."""
        blocks: list[bytes] = []
        if self._reasoning:
            self._parts += 1
            part = {"id": str(self._parts)}
            blocks += (
                _block("reasoning-start", **part),
                _block("reasoning-end", **part, **self._of_reasoning(Reasoning)),
            )
        if self._audio:
            blocks += self._sound()
        if self._extra:
            blocks.append(_block(EXTRA_PART, data=self._extra.value))
        return blocks

    def _sound(self) -> list[bytes]:
        """Return the sound whose pieces came, with its transcript, which is the message's if it came alone."""
        said = Joined()
        for piece in self._audio:
            if isinstance(piece.raw, Mapping):
                said.add({name: value for name, value in piece.raw.items() if name in ("id", "transcript")})
        media_type, url = sound_url(self._audio)
        if url:
            own = _metadata({MEDIA_FIELD: "audio", **said.value})
            return [_block("file", url=url, mediaType=media_type, **own)]
        self._more["audio"] = said.value
        return []

    def _cost(self, usage: Usage | None) -> list[bytes]:
        """Return the usage of a message that broke off, if there is a message: metadata alone would make one."""
        if usage is None or not self._begun:
            return []
        return [_block("message-metadata", messageMetadata={"usage": usage_object(usage)})]


create = UIMessageEncoder


class AskedEncoder(UIMessageEncoder):
    """Encodes a response for a client that may count its chunks: the n-th one is the same for each of these.

    Nothing is joined, even for a reader that is behind. The response continues the page's last message if it was asked
    for so (`CONTINUES`).
    """

    __slots__ = ()

    def __init__(self, reading: Reading) -> None:
        super().__init__(replace(reading, merge_after=sys.maxsize), continues=reading.asked == CONTINUES)


class CountedEncoder(AskedEncoder):
    """Encodes a response for a client that does count, and asks for the rest where there is no `finish`."""

    __slots__ = ()

    def dismissal(self, retry_ms: int) -> bytes:
        return b""


def _block(type_: str, **fields: Any) -> bytes:
    return data_block({"type": type_, **fields})


def _metadata(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the field of a part that the page keeps, and sends back with the part."""
    return {"providerMetadata": {PROVIDER: own}} if own else {}


def _of_call(call: Call) -> dict[str, Any]:
    """Return the metadata of a call's part: the upstream's fields, and that it is custom, which the SDK forgets."""
    return _metadata({**call.extra.value, **given(type="" if call.type == "function" else call.type)})


def refusal(failure: Failure, request_id: str) -> ErrorAnswer:
    """Return the answer for a failure before the first event: the SDK throws its text, and pages show that."""
    return ErrorAnswer(failure.status, failure.message.encode(), "text/plain; charset=utf-8")
