"""How one answer is put into bytes: what the two APIs have in common, and all that a script knows of either.

Texts travel as `pieces`: the JSON of each delta's text, in quotes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from app.simulator.steps import Reply


class Counts(NamedTuple):
    """Tokens: of the question, of the answer with its reasoning, of the reasoning alone."""

    prompt: int
    said: int
    thought: int


class Voice(Protocol):
    """One answer in one API's form. What returns bytes returns whole events."""

    id: str
    # Whether the last event went out.
    ended: bool

    def opening(self) -> bytes:
        """Return what comes before any text."""
        ...

    def text(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the event of each delta of the answer."""
        ...

    def thinking(self, pieces: Iterator[bytes], *, summary: bool) -> Iterator[bytes]:
        """Yield those of the reasoning, in OpenAI's form (*summary*) or that of open models."""
        ...

    def refusing(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield those of a refusal."""
        ...

    def calling(self, at: int, name: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield those of tool call number *at*; *pieces* are its arguments."""
        ...

    def frame(self) -> tuple[bytes, bytes]:
        """Return what comes before and after the JSON of a delta's text, for texts that are none."""
        ...

    def finish(self, reason: str, counts: Counts | None) -> bytes:
        """Return the event that ends the answer; *reason* is chat's."""
        ...

    def after(self, counts: Counts | None) -> Iterator[bytes]:
        """Yield what comes after it."""
        ...

    def error(self, text: str = "") -> bytes:
        """Return an error in mid-stream, in the form it really has."""
        ...

    def after_error(self) -> bytes:
        """Return what comes after it."""
        ...

    def heartbeat(self) -> bytes:
        """Return what says nothing."""
        ...

    def collecting(self) -> Voice:
        """Return the same voice, to keep what is said for a reply."""
        ...

    def reply(self, reason: str, counts: Counts | None) -> Reply:
        """Return the answer as a whole."""
        ...
