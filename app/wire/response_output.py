"""The output of a response in OpenAI's Responses: its items, as a stream's records make them, one after another.

One item of text or of reasoning is open at a time. It is closed when another kind of content follows, or the other
fields of an upstream's message, such as its `phase`, which come with that message's end. Calls stay open
until the answer's end, since pieces of several may take turns, and since a client runs a call that is done: one that
may have been cut is not.

The ids of items are made of the stream's id and the item's place, so an item is found by its id alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import Any, assert_never

from app.events import (
    CONTENT_PARTS,
    Annotation,
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
)
from app.wire.calls import CUT, FAILED, WithCalls, runnable
from app.wire.content_parts import is_thought, parts_in, text_in
from app.wire.joined import Joined
from app.wire.json import string_in
from app.wire.long import long
from app.wire.media import fields_of
from app.wire.notes import URL, Cited
from app.wire.opaque import is_of_reasoning, seal
from app.wire.response_parts import ItemCall, Said, annotation, text_part

ITEM_ID = re.compile(r"(?:msg|rs|fc|ctc|ig|item)_([A-Za-z0-9_-]{22})_(0|[1-9][0-9]{0,5})", re.ASCII)
"""The id of an item: the stream's id, and the item's place in the output."""
REASONING_FIELD = "field"
"""What the opaque text of a reasoning item calls the upstream's own name for the reasoning."""

_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "image_generation_call": "ig",
}
_OWN = frozenset(("id", "type", "role", "status", "content", "summary", "encrypted_content"))
_TEXT_PARTS: Mapping[str, type[Text]] = {"output_text": Delta, "text": Delta, "refusal": Refusal}
_OWN_OF_PART = frozenset(("type", "text", "refusal", "annotations", "logprobs"))
_PLACE = ("item_id", "output_index", "content_index", "summary_index")
_IMAGE = "image_generation_call"


class Output(WithCalls[ItemCall, Said]):
    """The items of one stream's output, as far as its records have come.

    *kind* is the class of the text that is being written, if any is. A piece of it can be added with *write* alone,
    which is what `take` does; *place* has the fields of the event for it, besides the piece. *lacks_calls* is true
    once the answer has ended and one of its calls may have been cut.
    """

    __slots__ = (
        "_annotations",
        "_at",
        "_cited",
        "_fields",
        "_images",
        "_item",
        "_items",
        "_logprobs",
        "_media",
        "_part_fields",
        "_parts",
        "_reasoning",
        "_stream_id",
        "_text",
        "kind",
        "lacks_calls",
        "place",
        "rest",
        "write",
    )

    def __init__(self, stream_id: str) -> None:
        super().__init__(ItemCall)
        self._stream_id = stream_id
        self._items: list[Said] = []
        self._item: Said | None = None  # the message or the reasoning that is open
        self._at = 0  # its place
        self._text = StringIO()  # of the part that is open: it holds a long text without an object for each piece
        self._logprobs: list[Any] = []
        self._annotations: list[Any] = []
        self._part_fields: dict[str, Any] = {}  # the upstream's other fields of that part
        self._images: list[Media] = []  # the upstream's own items for them may come with the next record
        self._media: list[Media] = []  # those that are fields of the message that is open
        self._fields: dict[str, Any] = {}  # other fields of that
        self._reasoning = Joined()  # what the upstream says of its reasoning, and no item has said yet
        self._parts = 0  # how many of the reasoning's have come
        self._cited = Cited()  # what is among the annotations
        self.lacks_calls = False
        self.kind: type[Text] | None = None
        self.place: Said = {}
        self.write: Callable[[str], int] = self._text.write
        self.rest: dict[str, Any] = {}

    def take(self, event: Event) -> list[Said]:
        """Add what *event* says, and return the events that say so. Of those for a text, the last has the text."""
        if self._images and not _has_image_data(event):
            images, self._images = self._images, []
            before = self._say_images(images, event)
        else:
            images, before = [], []
        match event:
            case Delta() | Reasoning() | Refusal():
                before += [] if type(event) is self.kind else self._open(type(event))
                self.write(event.text)
                return [*before, {**self.place, "delta": event.text}]
            case ToolCall():
                return before + self._piece(event)
            case Annotation():
                return before + self._notes(event)
            case Logprobs():
                return before + self._weights(event)
            case Media():
                return before + self._show(event)
            case Extra():
                return before + self._note(event, images=len(images))
            case Start():
                return before
            case Done():
                return before + self._end(event.finish_reason)
            case Failure():
                return before + self._end(FAILED)
            case _:
                assert_never(event)

    @property
    def size(self) -> int:
        """How many characters the text has that is being written."""
        return self._text.tell() if self.kind is not None else 0

    @property
    def items(self) -> list[Said]:
        """The items, each as far as it has come."""
        items = list(self._items)
        for call in self._calls.values():
            if call.at is not None and items[call.at]["status"] == "in_progress":
                items[call.at] = call.item(self._stream_id, "in_progress")
        if self._item is not None:
            items[self._at] = self._so_far(self._item)
        return items

    # Messages and reasoning.

    def _open(self, kind: type[Text]) -> list[Said]:
        """Close what is open, and open a part for texts of *kind*."""
        if issubclass(kind, Reasoning):
            return self._open_reasoning(kind)
        events = self._open_message()
        part = {"type": "refusal", "refusal": ""} if kind is Refusal else text_part("")
        assert self._item is not None  # noqa: S101 - it was opened just now
        at = {"item_id": self._item["id"], "output_index": self._at, "content_index": len(self._item["content"])}
        self._begin_part(kind, {"type": "response.refusal.delta", **at})
        if kind is Delta:
            self.place = {"type": "response.output_text.delta", **at, "logprobs": []}
        return [*events, {"type": "response.content_part.added", **at, "part": part}]

    def _open_message(self) -> list[Said]:
        """Return the events after which a message is open, and no part of it."""
        if self._item is not None and self._item["type"] == "message":
            return self._close_part()
        item: Said = {"status": "in_progress", "role": "assistant", "content": []}
        return [*self._close(), *self._add("message", item)]

    def _open_reasoning(self, kind: type[Reasoning]) -> list[Said]:
        closed = self._close()
        added = self._add("reasoning", {"status": "in_progress", "summary": []})
        assert self._item is not None  # noqa: S101 - it was added just now
        self._reasoning.add({REASONING_FIELD: kind.FIELD})
        at = {"item_id": self._item["id"], "output_index": self._at, "summary_index": 0}
        self._begin_part(kind, {"type": "response.reasoning_summary_text.delta", **at})
        part = {"type": "summary_text", "text": ""}
        return [*closed, *added, {"type": "response.reasoning_summary_part.added", **at, "part": part}]

    def _begin_part(self, kind: type[Text], place: Said) -> None:
        self.kind = kind
        self.place = place
        self._text = StringIO()
        self.write = self._text.write

    def _add(self, kind: str, fields: Said) -> list[Said]:
        """Open an item."""
        self._at = len(self._items)
        self._item = self._new(kind, fields)
        self._items.append(self._item)
        added = {name: [] if isinstance(value, list) else value for name, value in self._item.items()}
        return [{"type": "response.output_item.added", "output_index": self._at, "item": added}]

    def _new(self, kind: str, fields: Mapping[str, Any]) -> Said:
        return {"id": f"{_PREFIXES.get(kind, 'item')}_{self._stream_id}_{len(self._items)}", "type": kind, **fields}

    def _close_part(self) -> list[Said]:
        """Close the part that is open."""
        if self.kind is None or self._item is None:
            return []
        kind = self.kind
        place = {name: value for name, value in self.place.items() if name in _PLACE}
        text = long(self._text.getvalue())
        part = self._part(text)
        self.kind = None
        self._logprobs = []
        self._annotations = []
        self._part_fields = {}
        if issubclass(kind, Reasoning):
            self._item["summary"].append(part)
            return [
                {"type": "response.reasoning_summary_text.done", **place, "text": text},
                {"type": "response.reasoning_summary_part.done", **place, "part": part},
            ]
        self._item["content"].append(part)
        said: Said = {"type": "response.refusal.done", **place, "refusal": text}
        if kind is Delta:
            said = {"type": "response.output_text.done", **place, "text": text, "logprobs": part["logprobs"]}
        return [said, {"type": "response.content_part.done", **place, "part": part}]

    def _part(self, text: str) -> Said:
        """Return the part that is open, with its *text*."""
        assert self.kind is not None  # noqa: S101 - it is asked of an open part only
        if issubclass(self.kind, Reasoning):
            return {"type": "summary_text", "text": text}
        if self.kind is Refusal:
            logprobs = {"logprobs": self._logprobs} if self._logprobs else {}
            return {"type": "refusal", "refusal": text, **logprobs, **self._part_fields}
        return {**text_part(text, self._annotations, self._logprobs), **self._part_fields}

    def _so_far(self, item: Said) -> Said:
        """Return *item*, which is open, with the part that is open."""
        if self.kind is None:
            return item
        name = "summary" if item["type"] == "reasoning" else "content"
        return {**item, name: [*item[name], self._part(self._text.getvalue())]}

    def _close_text(self, status: str = "completed") -> list[Said]:
        """Close the item that is open."""
        if self._item is None:
            return []
        events = self._close_part()
        item = self._item
        index = self._at
        item["status"] = status
        if item["type"] == "reasoning":
            item["encrypted_content"] = seal(self._reasoning.value)
            self._reasoning = Joined()
        else:
            more = fields_of(self._media) | self._fields
            item.update({name: value for name, value in more.items() if name not in _OWN})
            self._media = []
            self._fields = {}
        self._item = None
        return [*events, {"type": "response.output_item.done", "output_index": index, "item": dict(item)}]

    # Calls.

    def _begin_call(self, call: ItemCall) -> list[Said]:
        call.at = len(self._items)
        item = call.item(self._stream_id, "in_progress")
        self._items.append(item)
        begun = {**item, call.field: ""}
        return [{"type": "response.output_item.added", "output_index": call.at, "item": begun}]

    def _arguments(self, call: ItemCall, arguments: str) -> list[Said]:
        return call.delta(self._stream_id, arguments)

    def _end_call(self, call: ItemCall, reason: str) -> list[Said]:
        events = [] if call.at is not None else self._start(call)
        assert call.at is not None  # noqa: S101 - it has started
        arguments = runnable(call, reason)
        if arguments is None:
            self.lacks_calls = True
            self._items[call.at] = call.item(self._stream_id, "incomplete")
            return events
        if arguments != call.arguments:
            call.pieces = [arguments]
            events += self._arguments(call, arguments)
        item = self._items[call.at] = call.item(self._stream_id, "completed")
        at = {"output_index": call.at}
        done: Said = {"type": f"response.{call.event}.done", "item_id": item["id"], **at, call.field: item[call.field]}
        return [*events, done, {"type": "response.output_item.done", **at, "item": item}]

    # Notes, log probabilities, media, and other fields.

    def _text_place(self) -> tuple[list[Said], Said]:
        """Return the events after which a text part is open, and where that is."""
        events = [] if self.kind is Delta else self._open(Delta)
        return events, {name: value for name, value in self.place.items() if name in _PLACE}

    def _notes(self, notes: Annotation) -> list[Said]:
        """Return the events of *notes*. Perplexity's belong to the whole response, and their URLs are notes as well."""
        if notes.citations:
            self.rest["citations"] = notes.citations
        if notes.search_results:
            self.rest["search_results"] = notes.search_results
        found = [annotation(note) for note in notes.annotations]
        for url, result in self._cited.add(notes):
            found.append(annotation({"type": URL, "url": url, "title": string_in(result, "title")}))
        if not found:
            return []
        events, place = self._text_place()
        for note in found:
            at = len(self._annotations)
            self._annotations.append(note)
            added: Said = {"annotation_index": at, "annotation": note}
            events.append({"type": "response.output_text.annotation.added", **place, **added})
        return events

    def _weights(self, weights: Logprobs) -> list[Said]:
        """Return the event with log probabilities: a piece of text without a text, since they follow theirs."""
        if weights.refusal and self.kind is Refusal:
            self._logprobs += weights.refusal
        if not weights.content:
            return []
        events, _ = self._text_place()
        self._logprobs += weights.content
        return [*events, {**self.place, "delta": "", "logprobs": list(weights.content)}]

    def _show(self, media: Media) -> list[Said]:
        """Return the events of an image, a sound or a file. An image whose data came is an item; others are fields."""
        if _has_image_data(media):
            self._images.append(media)
            return self._close()  # now, because nothing else looks at the next text if it goes on with an open part
        events = self._open_message() if self._item is None or self._item["type"] != "message" else []
        self._media.append(media)
        return events

    def _say_images(self, images: Sequence[Media], event: Event) -> list[Said]:
        """Return the events of the *images* that have waited for *event*, which may have their items in that order."""
        output = event.delta.get("output") if isinstance(event, Extra) else None
        items = (item for item in (output if isinstance(output, (list, tuple)) else ()) if _is_image_item(item))
        events: list[Said] = []
        for image in images:
            _, _, data = image.url.partition(",")
            own: Said = {
                "status": "completed",
                "result": long(data),
                "output_format": image.media_type.partition("/")[2],
            }
            events += self._whole_item(_IMAGE, {**own, **_without_name(next(items, {}))})
        return events

    def _whole_item(self, kind: str, fields: Mapping[str, Any]) -> list[Said]:
        """Return the events of an item that came as a whole."""
        closed = self._close()
        item = self._new(kind, fields)
        at = len(self._items)
        self._items.append(item)
        return [
            *closed,
            {"type": "response.output_item.added", "output_index": at, "item": item},
            {"type": "response.output_item.done", "output_index": at, "item": item},
        ]

    def _note(self, extra: Extra, *, images: int) -> list[Said]:
        """Return the events of other fields: the items of an upstream that speaks Responses, and parts of messages.

        The first items of *images* among them have been said with the images.
        """
        events: list[Said] = []
        self.rest.update(extra.chunk)
        self.rest.update(extra.choice)
        for name, value in extra.delta.items():
            if name == "output" and isinstance(value, (list, tuple)):
                for item in value:
                    if images and _is_image_item(item):
                        images -= 1
                    elif isinstance(item, Mapping):
                        events += self._upstream_item(item)
            elif name == CONTENT_PARTS:
                for part in parts_in(value):
                    events += self._upstream_part(part)
            elif is_of_reasoning(name):
                self._reasoning.add({name: value})
            else:
                self._fields[name] = value
        return events

    def _upstream_item(self, item: Mapping[str, Any]) -> list[Said]:
        kind = string_in(item, "type")
        if kind == "message":  # other fields of the message that has been written, and ends here
            self._fields |= {name: value for name, value in item.items() if name not in _OWN}
            return self._close() if self._item is not None and self._item["type"] == kind else []
        return self._whole_item(kind, _without_name(item))

    def _upstream_part(self, part: Said) -> list[Said]:
        """Return the events of a part that no chat has, or of the other fields of a text, which has been said."""
        if is_thought(part):
            self._reasoning.add({CONTENT_PARTS: [{**part, "index": self._parts}]})
            self._parts += 1
            return []
        if text_in(part):
            self._fields.setdefault(CONTENT_PARTS, []).append(part)
            return []
        kind = _TEXT_PARTS.get(string_in(part, "type"))
        if kind is not None and part.keys().isdisjoint(("text", "refusal")):
            events = [] if self.kind is kind else self._open(kind)
            self._part_fields |= {name: value for name, value in part.items() if name not in _OWN_OF_PART}
            return events
        events = self._open_message()
        assert self._item is not None  # noqa: S101 - it was opened just now
        at = {"item_id": self._item["id"], "output_index": self._at, "content_index": len(self._item["content"])}
        self._item["content"].append(part)
        added: Said = {"type": "response.content_part.added", **at, "part": part}
        return [*events, added, {**added, "type": "response.content_part.done"}]

    def _end(self, reason: str) -> list[Said]:
        """Close all that is open. What an upstream wants back, and no item has said, is an item of its own."""
        events = self._start(self._waiting) if self._waiting is not None else []
        events += self._close_text("incomplete" if reason in CUT else "completed")
        if self._reasoning:
            events += self._add("reasoning", {"status": "in_progress", "summary": []})
            events += self._close()
        for call in self._calls.values():
            events += self._end_call(call, reason)
        self.rest.update(self._fields)
        return events


def _has_image_data(event: Event) -> bool:
    """Whether *event* is an image whose data came, and no link to it."""
    return isinstance(event, Media) and event.type == "image" and event.url.startswith("data:")


def _is_image_item(item: Any) -> bool:
    return isinstance(item, Mapping) and item.get("type") == _IMAGE


def _without_name(item: Mapping[str, Any]) -> Said:
    """Return the fields of an upstream's *item*, except its type and its id: items have ids of ours."""
    return {name: value for name, value in item.items() if name not in ("id", "type")}
