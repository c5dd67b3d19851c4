"""How dialects say an answer's calls in which a call starts with its name, and a text is open until something else is.

An upstream sends a call in pieces. A name may come in several, so a call waits until its name is complete: until its
arguments follow, or anything else does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

import orjson

from app.events import ToolCall
from app.wire.long import LONG
from app.wire.transcript import Call

FAILED = "failed"
"""Stands for the finish reason where an answer ends with an error."""
CUT = frozenset(("length", "content_filter", "cancelled", FAILED))
"""The finish reasons after which no call is to be run: it may lack its end."""
SURE = frozenset(("stop", "tool_calls"))
"""The finish reasons of a whole answer. After any other, such as one that is not known, a call may lack its end."""

AnyCall = TypeVar("AnyCall", bound=Call)
Said = TypeVar("Said")


def runnable(call: Call, reason: str) -> str | None:
    """Return the arguments with which a client may run *call*, now that the answer ended for *reason*.

    None if no client may run it. If the answer is surely whole, the arguments are as they came, and an empty object for
    none: some models say nothing where a tool takes nothing, and a model that made a mistake has to be told of it. If
    it may have been cut, they must be whole JSON. The input of a custom tool is any text.
    """
    if reason in CUT:
        return None
    arguments = call.arguments
    if call.type == "custom":
        return arguments
    if reason in SURE:
        return arguments if arguments.strip() else "{}"
    return arguments if _is_json(arguments) else None


def _is_json(text: str) -> bool:
    """Return whether *text* is JSON. Of a long one, which would take too long to read, the end alone tells."""
    if len(text) > LONG:
        return text.rstrip().endswith(("}", "]"))
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


class WithCalls(ABC, Generic[AnyCall, Said]):
    """What is open in an answer: a text, or a call that waits, and the calls that have started.

    *create* makes a call, given its index.
    """

    __slots__ = ("_calls", "_create", "_waiting")

    def __init__(self, create: Callable[[int], AnyCall]) -> None:
        self._create = create
        self._calls: dict[int, AnyCall] = {}
        self._waiting: AnyCall | None = None  # the call whose name may still grow

    def _piece(self, piece: ToolCall) -> list[Said]:
        """Add the next piece of a call, and return what says it."""
        call = self._calls.setdefault(piece.index, self._create(piece.index))
        others = [] if self._waiting is call else self._close()
        started = bool(call.names) and call is not self._waiting
        call.add(piece)
        if started:
            return [*others, *self._arguments(call, piece.arguments)]
        if not call.names:
            return others
        self._waiting = call
        return [*others, *(self._start(call) if call.arguments else ())]

    def _close(self) -> list[Said]:
        """Close the text that is open, or start the call whose name is complete now."""
        return self._close_text() if self._waiting is None else self._start(self._waiting)

    def _start(self, call: AnyCall) -> list[Said]:
        """Start *call*, with the arguments that it has."""
        self._waiting = None
        return [*self._begin_call(call), *self._arguments(call, call.arguments)]

    @abstractmethod
    def _close_text(self) -> list[Said]:
        """Close the text that is open, if one is."""

    @abstractmethod
    def _begin_call(self, call: AnyCall) -> list[Said]:
        """Return the beginning of *call*, without arguments."""

    @abstractmethod
    def _arguments(self, call: AnyCall, arguments: str) -> list[Said]:
        """Return what says a piece of the *arguments* of *call*; nothing, if that is empty."""
