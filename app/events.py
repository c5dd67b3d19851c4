"""What a stream says: the events, and their place in the stream's log.

A stream is an append-only log of *records*, numbered from 1 without a gap. A record holds one *event*. The last record
of a stream is *terminal* (`Done` or `Failure`), and no other record is.

An event is never changed once it is made. The classes are not `frozen`, because one event is made per delta and a
frozen dataclass takes twice as long to make (225 ns instead of 100 ns, CPython 3.11).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, ClassVar, Self, cast

from app.errors import StreamError
from app.usage import Usage


@dataclass(slots=True)
class Start:
    """The first record of a stream that got an answer, or whose commit deadline passed.

    *model* is the model that the client asked for. *created* is in Unix seconds. *fallback* is the name of the upstream
    that answers in place of the first choice, or "".
    """

    model: str
    created: int
    fallback: str = ""


@dataclass(slots=True)
class Delta:
    """A piece of the answer's text; never empty."""

    text: str


@dataclass(slots=True)
class Reasoning:
    """A piece of the model's reasoning, which is not part of the answer. *FIELD* is what the upstream calls it."""

    FIELD: ClassVar[str] = "reasoning_content"

    text: str


@dataclass(slots=True)
class PlainReasoning(Reasoning):
    """A piece of reasoning from an upstream that sends it as `reasoning`.

    Clients read one name or the other, and those that read both would show the text twice if it came under both.
    """

    FIELD: ClassVar[str] = "reasoning"


@dataclass(slots=True)
class ReasoningText(PlainReasoning):
    """A piece of reasoning from GitHub Copilot, which wants it back under this name."""

    FIELD: ClassVar[str] = "reasoning_text"


@dataclass(slots=True)
class Thinking(PlainReasoning):
    """A piece of reasoning that comes as `thinking`."""

    FIELD: ClassVar[str] = "thinking"


@dataclass(slots=True)
class ThinkingContent(PlainReasoning):
    """A piece of reasoning that comes as `thinking_content`."""

    FIELD: ClassVar[str] = "thinking_content"


@dataclass(slots=True)
class Thoughts(PlainReasoning):
    """A piece of reasoning that comes as `thoughts`."""

    FIELD: ClassVar[str] = "thoughts"


@dataclass(slots=True)
class Refusal:
    """A piece of a refusal, which OpenAI sends in place of the answer's text."""

    text: str


@dataclass(slots=True)
class ToolCall:
    """A piece of one tool call.

    *index* tells parallel calls apart: it counts them from 0 in the order in which they appear. *id* comes with the
    first piece of a call and is empty after that. *name* and *arguments* are pieces of text; the pieces are joined.
    *type* is `function`, or `custom` for a call whose *arguments* are the text that is its input. *extra* are the
    upstream's other fields of the call, such as a thought signature, at the places where they stood: those of the
    call's `function` are in an object of that name.
    """

    index: int
    id: str
    name: str
    arguments: str
    type: str = "function"
    extra: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Logprobs:
    """Log probabilities of the tokens of a text, as the upstream gave them: OpenAI's objects, untouched.

    *content* is about the answer's text, *refusal* about a refusal's. They follow the text that they are about. They
    keep the upstream's pieces even where re-chunking cuts that text into others.
    """

    content: Sequence[Mapping[str, Any]] = ()
    refusal: Sequence[Mapping[str, Any]] = ()


@dataclass(slots=True)
class Annotation:
    """Notes on the answer, such as citations: the upstream's objects as they came.

    *citations* and *search_results* are Perplexity's, which belong to the chunk. They are here only if they are new, or
    differ from those before them, and replace those.
    """

    annotations: Sequence[Any] = ()
    citations: Sequence[Any] = ()
    search_results: Sequence[Any] = ()


@dataclass(slots=True)
class Media:
    """An image, a sound or a file, whole or (a sound) a piece of it.

    *type* is `image`, `audio` or `file`. *url* is a data URL or a link, or "" for a piece of a sound's transcript.
    *field* is where it stood in OpenAI's delta or message (`images`, `audio`, `content`), or "" if it came from
    elsewhere. *raw* is the upstream's object, an element of the list if *field* is a list, where that holds more than
    the URL.
    """

    type: str
    media_type: str
    url: str
    field: str = ""
    raw: Any = None


@dataclass(slots=True)
class Extra:
    """Fields of an upstream's chunk, of its choice and of its delta (or message) that this service has no word for.

    Empty and null values are left out, and so are padding and what is repeated. Pieces of reasoning in the *delta*
    stay, such as `reasoning_details`: one that equals the piece before it is another one. An `Extra` follows the text,
    calls and media of the chunk that it came with, in the same batch: some clients read the two as one.
    """

    chunk: Mapping[str, Any] = field(default_factory=dict)
    choice: Mapping[str, Any] = field(default_factory=dict)
    delta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Done:
    """Terminal: the answer is whole, or the client cancelled it.

    *finish_reason* is one of `stop`, `length`, `content_filter`, `tool_calls`, `cancelled`, `unknown`, `other`. With
    `other`, *raw_reason* is what the upstream said, at most 64 characters of it. *model* is the name that the upstream
    gave, or "". The times are whole milliseconds since the stream was opened; the relay fills them in.
    """

    finish_reason: str
    raw_reason: str | None = None
    usage: Usage | None = None
    model: str = ""
    first_token_ms: int | None = None
    duration_ms: int | None = None


@dataclass(slots=True)
class Failure:
    """Terminal: the stream broke. This is the record form of a `StreamError`.

    *status* and *retry_after* (seconds) matter only while no byte was sent, because the failure can still be an HTTP
    status then. *told* is what the upstream itself called it (see `StreamError`).
    *retried*: this service has asked more than once, in vain, and the upstream named no longer wait.
    """

    message: str
    type: str
    code: str
    retryable: bool
    status: int
    param: str | None = None
    retry_after: float | None = None
    usage: Usage | None = None
    told: Mapping[str, Any] | None = None
    retried: bool = False

    @classmethod
    def of(cls, error: StreamError, usage: Usage | None = None, retried: bool = False) -> Self:
        """Return the record form of *error*."""
        return cls(
            message=error.text,
            type=error.type,
            code=error.code,
            retryable=error.retryable,
            status=error.status,
            param=error.param,
            retry_after=error.retry_after,
            usage=usage,
            told=error.told,
            retried=retried,
        )


Text = Delta | Reasoning | Refusal
Content = Text | ToolCall | Logprobs | Annotation | Media | Extra
Terminal = Done | Failure
Event = Start | Content | Terminal

REASONING = (Reasoning, PlainReasoning, ReasoningText, Thinking, ThinkingContent, Thoughts)
REASONING_FIELDS = frozenset(kind.FIELD for kind in REASONING)
TEXT = (Delta, *REASONING, Refusal)
CONTENT_PARTS = "content_parts"
"""The field of an `Extra`'s delta, and of a message, with parts of the content that have more in them than text."""
TERMINAL = (Done, Failure)


def is_answer(end: Event | None) -> bool:
    """Whether *end* is that of an answer, if only of hidden reasoning. Else the stream failed, or was stopped."""
    return isinstance(end, Done) and end.finish_reason != "cancelled"


def values(event: Event) -> list[Any]:
    """Return the values of an event's fields, in their order."""
    return [getattr(event, name) for name in event.__match_args__]  # found sooner than `fields`


def merged(events: Iterable[Event], first: int = 1) -> Iterator[tuple[int, Event]]:
    """Yield *events*, the first of which is number *first*, with neighbouring texts of one kind joined.

    Each comes with its number; a joined text has the number of the last one in it.
    """
    number = first - 1
    for kind, run in groupby(events, type):
        same = list(run)
        if kind in TEXT:
            texts = cast("list[Text]", same)  # all are of this *kind*
            number += len(same)
            yield number, type(texts[0])("".join([event.text for event in texts]))
        else:
            yield from enumerate(same, number + 1)
            number += len(same)


@dataclass(slots=True)
class Batch:
    """Consecutive records of one stream's log; the first of *events* has the number *first*.

    A log is written and read in batches. A record's place in its batch gives its number, so a replay of ten thousand
    records makes no object for each of them.
    """

    first: int
    events: Sequence[Event]

    @property
    def last(self) -> int:
        """The number of the last record in it."""
        return self.first + len(self.events) - 1


_STREAM_ID = re.compile("[A-Za-z0-9_-]{22}", re.ASCII)
_EVENT_ID = re.compile(r"([A-Za-z0-9_-]{22})-([1-9][0-9]{0,11})(?:\.([1-9][0-9]{0,5}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class EventId:
    """A position in one stream, which is what the SSE field `id:` carries.

    It prints as `<stream id>-<number>`, after the whole record of that number; or, in a dialect in which the record
    becomes several events, as `<stream id>-<number>.<place>`, after so many of them.
    """

    stream_id: str
    seq: int
    place: int = 0

    def __str__(self) -> str:
        return f"{self.stream_id}-{self.seq}" + (f".{self.place}" if self.place else "")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str()` printed. Raises ValueError for anything else."""
        match = _EVENT_ID.fullmatch(text)
        if match is None:
            raise ValueError("not an event id of this service")
        return cls(match[1], int(match[2]), int(match[3] or 0))


def new_stream_id() -> str:
    """Return 128 random bits as 22 characters that need no escaping in a URL, a header, JSON or CSS."""
    return secrets.token_urlsafe(16)


def is_stream_id(text: str) -> bool:
    """Return whether *text* may be what `new_stream_id` returned."""
    return _STREAM_ID.fullmatch(text) is not None
