"""Reads one answer: bytes in, content out, and at the end one verdict.

Invariant: the content does not depend on how the network cut the bytes; all content that came before a fault is
returned before `result` raises the fault; nothing here raises but `result`, which raises `UpstreamError` only; text is
always encodable.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

from app.errors import Malformed, UpstreamError
from app.events import Content, Delta, Done
from app.upstream.reading.answer import ENDED, OPEN, Answer
from app.upstream.reading.body import Body, Event, Mark
from app.upstream.reading.sse import MAX_EVENT
from app.upstream.reading.template import LESSONS, Template


class Dialect(Protocol):
    """What the events of one kind of upstream mean, and the *answer* that they make."""

    answer: Answer
    ready: bool
    """Whether `take_text` may be asked in place of `read`."""

    def take_text(self, event: Any) -> str | None:
        """Read an event that holds nothing but text, as most do, and return that. For any other, do nothing: None."""
        ...

    def read(self, name: bytes, event: Any) -> None:
        """Read one event, which may be any JSON, into the answer."""
        ...

    def read_whole(self, body: dict[str, Any]) -> None:
        """Read a body that came in place of a stream, if it is an answer, and end the answer then (row H5)."""
        ...


D = TypeVar("D", bound=Dialect)


class AnswerReader(Generic[D]):
    """Reads the body of one response into the answer of *dialect*; after `resume`, that of another response.

    *max_event* bounds one event, in bytes. *uniform* says that the text events of a stream differ in their text alone,
    so that a template may fit.
    """

    def __init__(self, dialect: D, max_event: int = MAX_EVENT, *, uniform: bool = False) -> None:
        self.answer = dialect.answer
        self.dialect = dialect
        self._take_text = dialect.take_text
        self._max_event = max_event
        self._body = Body(max_event)
        self._template = Template(dialect.take_text, LESSONS if uniform else 0)
        self.unread: Iterator[Event] | None = None
        """What is to be read by `go_on` before any more is fed: the rest of a large event, and what came after it."""
        self._by_template = False  # whether the next events may be recognised by the template

    @property
    def replaced_bytes(self) -> int:
        """How many U+FFFD took the place of broken UTF-8 (row F25)."""
        return self._body.replaced_bytes

    @property
    def is_whole(self) -> bool:
        """Whether the body is JSON in place of a stream, which is read at its end."""
        return self._body.is_json

    def feed(self, data: bytes) -> list[Content]:
        """Take one network read, and return the content in it, up to what is `unread`."""
        if self._by_template and len(data) <= self._max_event:
            found = self._template.texts(data)
            if found is not None:
                return found
        answer = self.answer
        if answer.state is ENDED:
            return []
        try:
            self.unread = self._read(self._body.feed(data))
        except Malformed as fault:
            answer.end(fault=fault)
        self._by_template = self._template.known and self._body.between and answer.state is OPEN
        return answer.take()

    def go_on(self) -> list[Content]:
        """Take the next step of what is `unread`, and return the content in it."""
        unread, self.unread = self.unread, None
        try:
            self.unread = self._read(unread or iter(()))
        except Malformed as fault:
            self.answer.end(fault=fault)
        self._by_template = self._template.known and self._body.between and self.answer.state is OPEN
        return self.answer.take()

    def parse(self) -> Iterator[None]:
        """Parse a body that came in place of a stream, before its `end`, as `Body.parse` does."""
        return iter(()) if self.answer.state is ENDED else self._body.parse()

    def end(self, fault: UpstreamError | None = None) -> list[Content]:
        """Take the end of the body, and return the content that was pending. *fault* is what cut the body, if any."""
        answer = self.answer
        if answer.state is not ENDED:
            try:
                self._read(self._body.end())
            except Malformed as malformed:
                fault = fault or malformed
            answer.end(fault=fault)
            self._by_template = False
        return answer.take()

    def resume(self) -> None:
        """Read on in the body of another response. What the last body left unfinished is dropped."""
        replaced_bytes = self._body.replaced_bytes
        self._body = Body(self._max_event)
        self._body.replaced_bytes = replaced_bytes
        self._by_template = False

    def result(self) -> Done:
        """Return how the answer ended, or raise the reason why it did not."""
        return self.answer.result(without_content=Malformed() if self._body.stray else None)  # row H7

    def _read(self, events: Iterator[Event]) -> Iterator[Event] | None:
        """Read *events* into the answer, until it has ended. Return the rest, if it is for later. Raises Malformed."""
        answer = self.answer
        dialect = self.dialect
        template = self._template
        take_text = self._take_text
        # The short cut would overtake half a character that is held back, and hide that content came after a finish
        # reason (row C19).
        plain = dialect.ready and not answer.halves and answer.state is OPEN
        for name, value, payload in events:
            text = take_text(value) if plain and payload and name != b"error" else None
            if text:
                answer.content.append(Delta(text))
                if template.lessons:
                    template.learn(payload, text)
                continue
            if name is Mark.STEP:
                return events
            template.known = False  # what it was learnt from no longer holds
            if isinstance(name, bytes):
                dialect.read(name, value)
            elif name is Mark.DONE:
                answer.end(complete=True)
            elif not answer.judge(value) and name is Mark.WHOLE and isinstance(value, dict):
                dialect.read_whole(value)
            if answer.state is ENDED:
                break
            plain = dialect.ready and not answer.halves and answer.state is OPEN
        return None
