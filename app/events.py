"""The words every room speaks: what a stream is made of.

A stream is an append-only log of *records*, numbered from 1 without a gap. A record holds one *event*. The last
record of a stream is *terminal* (`Done` or `Failure`) and there is exactly one of those. Nothing here does I/O or knows
a clock.

Events are NamedTuples because one is made per delta: no `__dict__`, no validation, immutable.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Self

from app.errors import StreamError


class Usage(NamedTuple):
    """What a stream consumed.

    *fields* is the upstream's own usage object, untouched, or the three OpenAI counts where they were counted here;
    then *estimated* is true.
    """

    fields: Mapping[str, Any]
    estimated: bool = False


class Start(NamedTuple):
    """First record of a stream whose upstream answered, or whose commit deadline passed.

    *model* is the model that was asked for; *created* is in Unix seconds. *fallback* names the upstream that answers
    instead of the first choice, or is "".
    """

    model: str
    created: int
    fallback: str = ""


class Delta(NamedTuple):
    """A piece of the answer's text; never empty."""

    text: str


class Reasoning(NamedTuple):
    """A piece of the model's reasoning; never part of the answer."""

    text: str


class Refusal(NamedTuple):
    """A piece of a refusal, which OpenAI sends beside the content and never in it."""

    text: str


class ToolCall(NamedTuple):
    """A piece of one tool call.

    *index* tells parallel calls apart (dense, from 0, in order of appearance). *id* and *name* come with the call's
    first piece and are empty later; *arguments* is opaque text, to be joined.
    """

    index: int  # type: ignore[assignment]  # OpenAI's word; tuple.index is of no use to anyone here
    id: str
    name: str
    arguments: str


class Logprobs(NamedTuple):
    """Log probabilities of the tokens of a text, as upstream gave them; never a piece of it.

    OpenAI's objects, untouched: of the answer's tokens in *content*, of a refusal's in *refusal*. They come right after
    the text that they are of, as upstream cut it, and where that is cut anew, they are not.
    """

    content: Sequence[Mapping[str, Any]] = ()
    refusal: Sequence[Mapping[str, Any]] = ()


class Done(NamedTuple):
    """Terminal: the answer is whole, or was cancelled by the client.

    *finish_reason* is one of `stop`, `length`, `content_filter`, `tool_calls`, `cancelled`, `unknown`, `other`; with
    `other`, *raw_reason* is what upstream said, bounded. *model* is the name upstream gave, or "". The times are whole
    milliseconds since the stream was opened; the relay fills them in.
    """

    finish_reason: str
    raw_reason: str | None = None
    usage: Usage | None = None
    model: str = ""
    first_token_ms: int | None = None
    duration_ms: int | None = None


class Failure(NamedTuple):
    """Terminal: the stream broke.

    The in-band form of a `StreamError`. *status* and *retry_after* (seconds) matter only while no byte was sent, when
    the failure is still an HTTP answer.
    """

    message: str
    type: str
    code: str
    retryable: bool
    status: int
    param: str | None = None
    retry_after: float | None = None
    usage: Usage | None = None

    @classmethod
    def of(cls, error: StreamError, usage: Usage | None = None) -> Self:
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
        )


Text = Delta | Reasoning | Refusal
Content = Text | ToolCall | Logprobs
Terminal = Done | Failure
Event = Start | Content | Terminal

# One is made per delta, and the constructor of a NamedTuple is a function in Python, at twice the price.
make_delta: Callable[[tuple[str]], Delta] = partial(tuple.__new__, Delta)

TEXT = (Delta, Reasoning, Refusal)
TERMINAL = (Done, Failure)


class Batch(NamedTuple):
    """Consecutive records of one stream's log: *events* are numbered from *first* on.

    The log is read in batches, and a record's number is implied by its place, so that a replay of ten thousand records
    costs slices instead of ten thousand objects.
    """

    first: int
    events: Sequence[Event]

    @property
    def last(self) -> int:
        """The number of the last record in it."""
        return self.first + len(self.events) - 1


make_batch: Callable[[tuple[int, Sequence[Event]]], Batch] = partial(tuple.__new__, Batch)

_EVENT_ID = re.compile(r"([A-Za-z0-9_-]{22})-([1-9][0-9]{0,11})", re.ASCII)


class EventId(NamedTuple):
    """A position in one stream; prints as `<stream id>-<seq>` and is what SSE's `id:` carries."""

    stream_id: str
    seq: int

    def __str__(self) -> str:
        return f"{self.stream_id}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str()` printed. Raises ValueError for anything else."""
        match = _EVENT_ID.fullmatch(text)
        if match is None:
            raise ValueError("not an event id of this service")
        return cls(match[1], int(match[2]))


def new_stream_id() -> str:
    """Return 128 random bits as 22 characters that need no escaping in a URL, a header, JSON or CSS."""
    return secrets.token_urlsafe(16)


@dataclass(slots=True)
class Trace:
    """What became known of a stream's upstream side. Written by the source, read by the relay when the stream ends.

    *upstream* is the name of the one that was asked last, *fallback* whether it is not the first choice, and *settled*
    whether no other one may yet be asked. *answers* are all that were asked, with the HTTP status or the error's code
    each time. *status* is the last HTTP status upstream answered with; *usage* and *model* are what it said of them so
    far, which an answer that breaks off keeps; *done* is how the stream will end, known as soon as a finish reason was
    seen; *cut_after_finish* says that the connection broke after it.
    """

    attempts: int = 0
    upstream: str = ""
    fallback: bool = False
    settled: bool = True
    answers: list[tuple[str, str]] = field(default_factory=list)
    status: int | None = None
    request_id: str | None = None
    usage: Usage | None = None
    model: str = ""
    done: Done | None = None
    cut_after_finish: bool = False
    replaced_bytes: int = 0
