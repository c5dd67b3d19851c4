"""What has been understood of one answer so far: its content, its usage, and how it ends.

A dialect writes an answer, and the code that asked for it reads it. Section 7 of the upstream README has the rules by
which `result` decides how an answer ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import Any, Final

import orjson

from app.errors import Blank, Empty, Malformed, Truncated, UpstreamError
from app.events import (
    CONTENT_PARTS,
    Annotation,
    Content,
    Delta,
    Done,
    Extra,
    Logprobs,
    Media,
    Reasoning,
    Refusal,
    ToolCall,
)
from app.upstream.reading.errors import read_error
from app.upstream.reading.extras import Noted, quotes
from app.upstream.reading.finish import FAILED, read_finish
from app.upstream.reading.pieces import Part, says_something
from app.upstream.reading.redaction import presenter
from app.upstream.reading.usage import counts_nothing, in_our_words, merge_usage, visible_tokens
from app.upstream.reading.values import bounded_json, encodable, kept
from app.usage import Usage

LIMITS: Final = ("length", "content_filter")
"""The finish reasons of an answer that was cut."""
MAX_TOOL_CALLS: Final = 256
MAX_USAGE: Final = 8 * 1024  # bytes
MAX_ITEMS: Final = 4096  # choices, parts, images, notes or pieces of calls in one event
MAX_EARLY: Final = 64  # events that are kept back until the answer begins

TextKind = type[Delta] | type[Reasoning] | type[Refusal]


class State(Enum):
    """How far an answer has come."""

    OPEN = auto()
    FINISHED = auto()
    """A finish reason came. Usage, `[DONE]` and even content may follow, but need not: wait for them only briefly."""
    ENDED = auto()
    """Nothing more is wanted: the end came, an error, or bytes that make no sense."""


# By these names, because CPython 3.11 takes 200 ns to look a member up in its class.
OPEN = State.OPEN
FINISHED = State.FINISHED
ENDED = State.ENDED


class Answer:
    """One answer. *secrets* are strings of the operator's that the upstream may quote; no error message may hold them.

    *own* returns the client's words (see `presenter`). *content* is what was found since the last `take`. *halves* are
    high surrogates that wait for their other half, by the kind of their text, or by the index of their tool call (row
    C16). *part* is the one whose pieces are coming (row C36). `end` explains *error*, *fault* and *complete*.
    """

    def __init__(self, secrets: Iterable[str] = (), own: Callable[[], Iterable[str]] = tuple) -> None:
        self.state = OPEN
        self.model = ""
        self.content: list[Content] = []
        self.halves: dict[TextKind | int, str] = {}
        self.part: Part | None = None
        self.complete = False
        self.error: UpstreamError | None = None
        self.fault: UpstreamError | None = None
        self._secrets = tuple(secrets)
        self._show = presenter(self._secrets, own)
        self._usage: dict[str, Any] = {}
        self._counts: dict[str, Any] = {}  # the same in our words, bounded; empty while that is not known
        self._finish: tuple[str, str] | None = None  # the reason in our words and in the upstream's
        self._went_on = False  # whether content came after it
        self._calls = 0
        self._named: set[int] = set()  # those of them that have a name
        self._noted = Noted()
        self._parts = 0  # how many were kept
        self._has_item = False  # an item that is for the client to act upon
        self._has_content = False  # something that a reader can be shown
        # What comes before that is kept back: until then, another upstream may be asked, and the status may change.
        self._early: list[Content] = []
        self._keeps_back = True

    # What a dialect tells.

    def set_model(self, name: object) -> None:
        """Take the model's name, if it is one and the first."""
        if not self.model and isinstance(name, str):
            self.model = encodable(name[:256])

    def add_text(self, kind: TextKind, text: str) -> None:
        """Take a piece of text, which may be empty."""
        # No surrogate is printable, and most text is.
        if self.halves or not (text.isascii() or text.isprintable()):
            text = self._mend(kind, text)
        if text:
            self._went_on = True
            self.content.append(kind(text))

    def add_call(
        self,
        index: int,
        id: str,
        name: str,
        arguments: str,
        type: str = "function",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a piece of a tool call, as `ToolCall` has it; it may be empty."""
        if self.halves or not arguments.isascii():
            arguments = self._mend(index, arguments)
        if index >= MAX_TOOL_CALLS:
            self.end(fault=Malformed(f"The upstream service sent more than {MAX_TOOL_CALLS} tool calls."))
        elif id or name or arguments or extra:
            self._went_on = True
            self._calls = max(self._calls, index + 1)
            if name:
                self._named.add(index)
            self.content.append(ToolCall(index, id, name, arguments, type, extra or None))

    def add_media(self, media: Media) -> None:
        """Take an image or a file, which may come again, or a piece of a sound."""
        # An image may have megabytes, which Python hashes in a third of the time that a digest takes.
        if media.type == "audio" or self._noted.is_new([media.type, len(media.url), hash(media.url)]):
            self._went_on = True
            self.content.append(media)

    def add_notes(self, annotations: Sequence[Any], citations: Any = (), search_results: Any = ()) -> None:
        """Take annotations, which may come again, and Perplexity's two lists, which are news."""
        news = [note for note in annotations if note and self._noted.is_new(note)]
        if news or citations or search_results:
            self.content.append(Annotation(news, citations, search_results))

    def add_piece(self, part: dict[str, Any]) -> None:
        """Take a part of the content as it came, besides its text, or the next piece of one."""
        if self.part is not None and self.part.add(part):
            return
        self.close_part()
        if says_something(part):
            self.part = Part(part)

    def close_part(self) -> None:
        """Take the end of the part whose pieces came, if there is one: other content follows."""
        if self.part is not None:
            part = kept(self.part.value)
            self.part = None
            self._keep_part(part)

    def add_item(self, item: Mapping[str, Any], *, is_content: bool) -> None:
        """Take an item of a response that there is no word for. *is_content*: it is for the client to act upon."""
        self._has_item = self._has_item or is_content
        self.add_extra({}, {}, {"output": [item]})

    def add_part(self, part: Mapping[str, Any], at: int) -> None:
        """Take a part, of the item at place *at*, that there is no word for, and that may come again."""
        if self._noted.is_new([at, part]):
            self._keep_part(part)

    def _keep_part(self, part: Mapping[str, Any]) -> None:
        # Clients that join lists, such as openai-python, tell the parts apart by their index.
        self.add_extra({}, {}, {CONTENT_PARTS: [{**part, "index": self._parts}]})
        self._parts += 1

    def add_extra(self, chunk: Mapping[str, Any], choice: Mapping[str, Any], delta: Mapping[str, Any]) -> None:
        """Take what there is no word for. What quotes the prompt or the operator's own fields is left out."""
        if chunk:
            chunk = {name: value for name, value in chunk.items() if not quotes(value, self._secrets)}
        if choice:
            choice = {name: value for name, value in choice.items() if not quotes(value, self._secrets)}
        if chunk or choice or delta:
            self.content.append(Extra(chunk, choice, delta))

    def add_usage(self, said: object) -> None:
        """Take a usage object, if it is one. What was said last counts."""
        if isinstance(said, dict):
            self._usage = merge_usage(self._usage, said)
            self._counts = {}

    def finish(self, reason: str, raw: str) -> None:
        """Take a finish reason, in our words and in the upstream's. The first one after the last content counts."""
        self.close_part()
        if self._finish is None or self._went_on:
            self._finish = reason, encodable(raw[:64])
            self._went_on = False
        if self.state is OPEN:
            self.state = FINISHED

    def finish_as(self, said: object) -> None:
        """Take a finish reason as the upstream spells it, which may be none yet, or mean a failure (row E11)."""
        reason, raw = read_finish(said)
        if reason == FAILED:
            self.end(error=UpstreamError("The upstream service broke off its answer."))
        elif reason:
            self.finish(reason, raw)

    def judge(self, payload: object, certain: bool = False) -> bool:
        """Return whether *payload* is an error, which ends the answer. *certain*: it is one, whatever it looks like."""
        error = read_error(payload, certain=certain, show=self._show)
        if error is not None:
            self.end(error=error)
        return error is not None

    def few(self, items: list[Any]) -> list[Any]:
        """Return *items* of one event, each of which costs microseconds; too many make the answer malformed."""
        if len(items) <= MAX_ITEMS:
            return items
        self.end(fault=Malformed(f"The upstream service sent a list of more than {MAX_ITEMS} items in one event."))
        return []

    def refuse(self) -> None:
        """End the answer because of content that is not empty and cannot be understood."""
        self.end(error=Malformed("The upstream service sent content of a kind that this service does not know."))

    def end(
        self, *, error: UpstreamError | None = None, fault: UpstreamError | None = None, complete: bool = False
    ) -> None:
        """End the answer, for good.

        *error* is what the upstream told; *fault* is how its stream broke, which matters only if no finish reason came
        before. *complete*: the upstream marked the end itself, by `[DONE]` or by sending one JSON object.
        """
        if self.state is not ENDED:
            self.close_part()
            self.state = ENDED
            self.error = error
            self.fault = fault
            self.complete = complete

    # What the code that asked reads.

    def take(self) -> list[Content]:
        """Return the content since the last time. Half a character that lost its other half becomes U+FFFD."""
        if self.state is ENDED and self.halves:
            for key in self.halves:
                self.content.append(ToolCall(key, "", "", "\ufffd") if isinstance(key, int) else key("\ufffd"))
            self.halves = {}
        content = self.content
        self.content = []
        return content if self._has_content else self._begin(content)

    @property
    def has_content(self) -> bool:
        """Whether any content was taken."""
        return self._has_content or not self._keeps_back

    @property
    def usage(self) -> Usage | None:
        """The upstream's usage object, bounded; None if it counts nothing although there is an answer."""
        if self._usage and not self._counts:
            said = in_our_words(self._usage)
            self._counts = bounded_json(said, depth=3)
            if len(orjson.dumps(self._counts)) > MAX_USAGE:
                self._counts = bounded_json(said, depth=1)
        if not self._counts or (self._has_content and counts_nothing(self._counts)):
            return None
        return Usage(self._counts)

    @property
    def cut_after_finish(self) -> bool:
        """Whether the stream broke after a finish reason (row H13)."""
        return self.fault is not None and self._finish is not None

    @property
    def ended_by_upstream(self) -> bool:
        """Whether the upstream said how the answer ends."""
        return self._finish is not None or self.error is not None or self.complete

    @property
    def done(self) -> Done | None:
        """How the answer ends; None while no finish reason has come, and if it ends with an error."""
        if self._finish is None or self.error is not None:
            return None
        reason, raw = self._finish
        return Done(reason, raw if reason == "other" else None, self.usage, self.model)

    def result(self, without_content: UpstreamError | None = None) -> Done:
        """Return how the answer ended, or raise the reason why it did not.

        *without_content* (`Empty` by default) is raised if nothing came at all.
        """
        if self.error is not None:
            raise self.error
        done = self.done
        if done is None and self.fault is not None:
            raise self.fault
        if not self._has_content and self._is_lost(done):
            raise Blank
        if done is not None:
            return self._with_names(done)
        if not self._has_content:
            raise without_content or Empty()  # row H8
        if not self.complete:
            raise Truncated
        return self._with_names(Done("unknown", None, self.usage, self.model))  # row C21

    def _with_names(self, done: Done) -> Done:
        """Return *done*. Raises Malformed if a call that may be whole has no name, which says what to run."""
        if len(self._named) < self._calls and done.finish_reason not in LIMITS:
            raise Malformed("The upstream service sent a tool call without a name.")
        return done

    def _is_lost(self, done: Done | None) -> bool:
        """Return whether an answer without content should have some: tokens were made that are no reasoning (E8)."""
        ends_well = self.complete if done is None else done.finish_reason in ("stop", "tool_calls", "unknown")
        return ends_well and visible_tokens(in_our_words(self._usage)) > 0

    def _begin(self, content: list[Content]) -> list[Content]:
        """Return *content* after what came early, if there is something in it that a reader can be shown."""
        self._has_content = self._has_item or any(map(_is_shown, content))
        early = self._early + content
        if self._has_content or len(early) > MAX_EARLY:
            self._keeps_back = False
        elif self.state is ENDED and self._keeps_back and (self.done is None or self._is_lost(self.done)):
            early = []
        elif self.state is not ENDED and self._keeps_back:
            self._early = early
            return []
        self._early = []
        return early

    def _mend(self, key: TextKind | int, text: str) -> str:
        """Return *text* joined to the half character before it; half a character at its end is kept back."""
        text = self.halves.pop(key, "") + text
        if "\ud800" <= text[-1:] <= "\udbff":
            self.halves[key] = text[-1]
            text = text[:-1]
        return encodable(text)


def _is_shown(event: Content) -> bool:
    return bool(event.url) if isinstance(event, Media) else not isinstance(event, (Annotation, Extra, Logprobs))
