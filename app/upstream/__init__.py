"""Where answers come from: asks upstreams over HTTP, and makes events of the bytes that they send.

`sources` has one file for each kind of upstream. `reading` is plain synchronous code; only `http` touches a socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from app.errors import Blank, Empty, Malformed, TimedOut, UpstreamError
from app.events import Content, Done
from app.request import StreamRequest
from app.usage import Usage

Batches = AsyncGenerator[Sequence[Content | Done], None]
"""What a network read brought, each time."""

Begun = tuple[Sequence[Content | Done], Batches]
"""The first batch with something in it, and the generator that yielded it."""


class Kept(Protocol):
    """An answer that its upstream keeps, and goes on with when its reader is gone."""

    @property
    def note(self) -> Mapping[str, Any] | None:
        """What `Resumable.resume` takes: JSON without a key or a prompt. None before the upstream has named it."""

    def leave(self) -> None:
        """Have the upstream go on with it after this reader, too: another process will read it."""


@dataclass(slots=True)
class Attempt:
    """What one attempt to get an answer from one upstream has brought so far. Written by its source, and its opener.

    *upstream* is the upstream's name, *fallback* says that it is not the first choice, and *last* that no other
    upstream will be asked after it. *answers* has an item for each request that was sent: the HTTP status, or the
    error's code if no response came, or "" as long as neither has. (A source asks otherwise if the upstream refuses
    `stream_options` or `stream`.) *status* is the HTTP status of the last request, or None. *answered_at* is when the
    upstream first said that an answer comes (loop time), and *failed* that none came. *cause* is why, as
    `StreamError.cause` has it.

    *sent* says that the last request has been sent, if not answered. *complete* says that the upstream has ended the
    answer, so that its usage is final. *free* says that it failed, and that it has made no tokens as far as is known.

    *kept* is the answer, if the upstream keeps it.

    *usage* and *model* are what the upstream has said of them. *done* is how the answer will end, known as soon as a
    finish reason came. *cut_after_finish* says that the connection broke after that. *replaced_bytes* counts invalid
    UTF-8.
    """

    upstream: str = ""
    fallback: bool = False
    last: bool = True
    answers: list[str] = field(default_factory=list)
    status: int | None = None
    answered_at: float | None = None
    failed: bool = False
    cause: str = ""
    sent: bool = False
    complete: bool = False
    free: bool = False
    request_id: str | None = None
    kept: Kept | None = None
    usage: Usage | None = None
    model: str = ""
    done: Done | None = None
    cut_after_finish: bool = False
    replaced_bytes: int = 0

    @property
    def note(self) -> Mapping[str, Any] | None:
        """What another process needs to go on with the answer, if the upstream keeps it and has named it."""
        return None if self.kept is None else self.kept.note

    @property
    def costs(self) -> tuple[Usage | None, ...]:
        """The final usage as the only item, None in its place if it is not known, or nothing if this cost nothing.

        The upstream may have made tokens if it accepted the request, or had it and was not waited for.
        """
        if self.complete and self.usage is not None and self.usage.made_tokens:
            return (self.usage,)
        accepted = self.sent if self.status is None else 200 <= self.status < 300
        return (None,) if accepted and not self.free else ()


class Source(Protocol):
    """An upstream that can be asked for an answer."""

    def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
        """Ask, and yield one batch per network read.

        The first batch is empty and comes with the response headers. A later batch is empty if bytes came, but no
        content: the relay, which keeps the clocks, needs to know the difference. The last batch is a lone `Done`; every
        other end raises an `UpstreamError`, after all content that came before it was yielded. Closing the generator,
        at any point, aborts the request. After content the source does not read for the *request*'s pause.
        """
        ...


@runtime_checkable
class Resumable(Protocol):
    """A `Source` whose upstream keeps its answers."""

    def resume(self, note: Mapping[str, Any], request: StreamRequest, attempt: Attempt) -> Batches:
        """Read an answer from its start that an earlier process has asked for, as `Source.stream` does.

        *note* is what that process's `Attempt.note` was. No messages are in the *request*. The first batch, which is
        empty, comes before the upstream is asked: to close the generator then is to tell the upstream that the answer
        is not wanted. Raises ProducerLost if the upstream does not know the answer any more, or cannot be reached for
        as long as after a cut.
        """
        ...

    def secrets(self, request: StreamRequest) -> Sequence[str]:
        """Return the texts of the operator's in *request* as it is sent, which the upstream may quote."""
        ...


Afford = Callable[[StreamRequest, Sequence[Attempt]], Awaitable[StreamRequest]]
"""Returns the request for one attempt more, with what that may spend as its limit. Raises BudgetSpent or JournalDown.

It is called before an upstream is asked again after an attempt that may have cost something.
"""


class Opener(Protocol):
    """Gets the answer to one request."""

    async def begin(
        self, request: StreamRequest, attempts: list[Attempt], changed: Callable[[], None], afford: Afford
    ) -> Begun:
        """Return the first batch with something in it, and the source's own generator, suspended after that batch.

        A generator around the source's would cost every batch a microsecond. Appends an `Attempt` to *attempts* for
        each time that an upstream is asked, and calls *changed* when an attempt is answered or has failed. Raises what
        *afford* does, and what `Source.stream` does before there is content.
        """
        ...

    async def abandon(self, request: StreamRequest, attempts: list[Attempt]) -> None:
        """Take note that the stream has ended before `begin`.

        An upstream that makes the answer already is told to stop. Its `Attempt` is appended to *attempts*, because it
        may have cost something. Raises nothing.
        """
        ...


class Upstreams(Opener, Protocol):
    """Chooses the upstream that answers a request."""

    def resumption(self, note: Mapping[str, Any]) -> Opener:
        """Return what goes on with an answer that an earlier process has asked for.

        *note* is `Attempt.note`, with the `upstream` and the `fallback` of the attempt. The opener's `begin` raises
        ProducerLost, too, if there is no such upstream any more, or if it keeps no answers.
        """
        ...

    def secrets_at(self, upstream: str, request: StreamRequest) -> Sequence[str]:
        """Return the texts of the operator's in *request* as *upstream* gets it, if that keeps its answers."""
        ...


async def first_content(batches: Batches, attempt: Attempt, changed: Callable[[], None]) -> Sequence[Content | Done]:
    """Return the first batch that has something in it. Raises UpstreamError: what raised it is closed already.

    Notes in *attempt* whether it is answered or has failed, and calls *changed* then, and when there is a note.
    """
    noted = False
    try:
        async for batch in batches:
            if batch:
                return batch
            if attempt.answered_at is None:  # this batch came with the headers, later ones are heartbeats
                attempt.answered_at = asyncio.get_running_loop().time()
                changed()
            elif not noted and attempt.note is not None:
                noted = True
                changed()
        raise Empty
    except UpstreamError as error:
        attempt.failed = True
        attempt.cause = error.cause
        # A client can provoke these after many tokens, by what it asks for. Of the others, the upstream's are its own.
        attempt.free = attempt.status is None or not isinstance(error, (Malformed, Blank, TimedOut))
        changed()
        raise
