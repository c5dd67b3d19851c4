"""What has been understood of one answer so far: its content, its usage, and how it ends.

A dialect writes an answer, and the code that asked for it reads it. Section 7 of the upstream README has the rules by
which `result` decides how an answer ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import Any, Final

import orjson

from app.errors import Empty, Malformed, Truncated, UpstreamError
from app.events import Content, Delta, Done, Reasoning, Refusal, ToolCall
from app.upstream.reading.errors import read_error
from app.upstream.reading.values import bounded_json, encodable
from app.usage import Usage

MAX_TOOL_CALLS: Final = 256
MAX_USAGE: Final = 8 * 1024  # bytes

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
    """One answer. *secrets* are strings that the upstream may quote, such as prompts; no error message may hold them.

    *content* is what was found since the last `take`. *halves* are high surrogates that wait for their other half, by
    the kind of their text, or by the index of their tool call (row C16). `end` explains *error*, *fault* and
    *complete*.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.state = OPEN
        self.model = ""
        self.content: list[Content] = []
        self.usage_fields: dict[str, Any] | None = None  # the upstream's; the last ones count
        self.halves: dict[TextKind | int, str] = {}
        self.complete = False
        self.error: UpstreamError | None = None
        self.fault: UpstreamError | None = None
        self._secrets = tuple(secrets)
        self._finish: tuple[str, str] | None = None  # the reason in our words and in the upstream's
        self._has_content = False

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
            self.content.append(kind(text))

    def add_call(self, index: int, id: str, name: str, arguments: str) -> None:
        """Take a piece of a tool call, as `ToolCall` has it; it may be empty."""
        if self.halves or not arguments.isascii():
            arguments = self._mend(index, arguments)
        if index >= MAX_TOOL_CALLS:
            self.end(fault=Malformed(f"The upstream service sent more than {MAX_TOOL_CALLS} tool calls."))
        elif id or name or arguments:
            self.content.append(ToolCall(index, id, name, arguments))

    def finish(self, reason: str, raw: str) -> None:
        """Take a finish reason, in our words and in the upstream's. The first one counts."""
        if self._finish is None:
            self._finish = reason, encodable(raw[:64])
        if self.state is OPEN:
            self.state = FINISHED

    def judge(self, payload: object, certain: bool = False) -> bool:
        """Return whether *payload* is an error, which ends the answer. *certain*: it is one, whatever it looks like."""
        error = read_error(payload, certain=certain, secrets=self._secrets)
        if error is not None:
            self.end(error=error)
        return error is not None

    def end(
        self, *, error: UpstreamError | None = None, fault: UpstreamError | None = None, complete: bool = False
    ) -> None:
        """End the answer, for good.

        *error* is what the upstream told; *fault* is how its stream broke, which matters only if no finish reason came
        before. *complete*: the upstream marked the end itself, by `[DONE]` or by sending one JSON object.
        """
        if self.state is not ENDED:
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
        if content:
            self._has_content = True
        return content

    @property
    def usage(self) -> Usage | None:
        """The upstream's usage object, bounded."""
        fields = bounded_json(self.usage_fields, depth=3)
        if len(orjson.dumps(fields)) > MAX_USAGE:
            fields = bounded_json(self.usage_fields, depth=1)
        return Usage(fields) if fields else None

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
        if (done := self.done) is not None:
            return done
        if self.fault is not None:
            raise self.fault
        if not self._has_content:
            raise without_content or Empty()  # row H8
        if not self.complete:
            raise Truncated
        return Done("unknown", None, self.usage, self.model)  # row C21

    def _mend(self, key: TextKind | int, text: str) -> str:
        """Return *text* joined to the half character before it; half a character at its end is kept back."""
        text = self.halves.pop(key, "") + text
        if "\ud800" <= text[-1:] <= "\udbff":
            self.halves[key] = text[-1]
            text = text[:-1]
        return encodable(text)
