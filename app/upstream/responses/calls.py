"""Which tool call a piece belongs to in a Responses stream: the one that is open at the index of its item."""

from __future__ import annotations

from typing import Any, Final

from app.upstream.reading.answer import Answer
from app.upstream.reading.values import encodable, text_of

ARGUMENTS: Final = {"function_call": "arguments", "custom_tool_call": "input"}
"""The items that are calls of the client's own tools, and the field that holds their arguments."""


class _Call:
    __slots__ = ("has_arguments", "id", "index", "name")

    def __init__(self, index: int) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.has_arguments = False


class ResponseCalls:
    """The calls of one response, numbered by us: densely, in order of appearance. They go into *answer*."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._count = 0
        self._open: dict[int, _Call] = {}  # by the index of the item

    def __len__(self) -> int:
        return self._count

    def begin(self, at: int, item: dict[str, Any]) -> None:
        """Take the beginning of a call. Its arguments are not there yet, or come again."""
        call = self._open.get(at)
        if call is not None and call.id and call.id != _id(item):
            del self._open[at]  # row X2: a new call at a used index
        self.add(at, id=_id(item), name=_name(item))

    def complete(self, at: int, item: dict[str, Any]) -> None:
        """Take a whole call, of which only what did not come before is news."""
        arguments = text_of(item.get(ARGUMENTS[item["type"]]))
        self.end(at, arguments, id=_id(item), name=_name(item))

    def lacks(self, at: int, item: dict[str, Any]) -> bool:
        """Return whether *item* is the call at that index, and no arguments of it came."""
        call = self._open.get(at)
        return call is not None and call.id == _id(item) and not call.has_arguments

    def end(self, at: int, arguments: str, id: str = "", name: str = "") -> None:
        """Take all arguments of a call, which are news only if no piece of them came (row R7)."""
        call = self._open.get(at)
        has_arguments = call is not None and call.has_arguments
        self.add(at, "" if has_arguments else arguments, id, name)

    def add(self, at: int, arguments: str = "", id: str = "", name: str = "") -> None:
        """Take a piece of a call."""
        call = self._open.get(at)
        if call is None:
            if not (id or name or arguments):
                return
            call = self._open[at] = _Call(self._count)
            self._count += 1
        new_id = "" if call.id else id
        new_name = "" if call.name else name
        call.id = call.id or id
        call.name = call.name or name
        call.has_arguments = call.has_arguments or bool(arguments)
        self._answer.add_call(call.index, new_id, new_name, arguments)


def _id(item: dict[str, Any]) -> str:
    return encodable(text_of(item.get("call_id")) or text_of(item.get("id")))


def _name(item: dict[str, Any]) -> str:
    return encodable(text_of(item.get("name")))
