"""Which tool call a piece belongs to, in a Responses stream: the one that is open at the index of its item.

The rows cited are those of `reference/upstream.md`.
"""

from __future__ import annotations

from typing import Any, Final

from app.events import ToolCall
from app.upstream.reading.values import encodable, text_of

ARGUMENTS: Final = {"function_call": "arguments", "custom_tool_call": "input"}
"""The items that are calls of the client's own tools, and where their arguments are."""


class _Call:
    __slots__ = ("has_arguments", "id", "index", "name")

    def __init__(self, index: int) -> None:
        self.index, self.id, self.name, self.has_arguments = index, "", "", False


class ResponseCalls:
    """The calls of one response: gives each our own index, dense and in order of appearance."""

    def __init__(self) -> None:
        self._count = 0
        self._open: dict[int, _Call] = {}

    def __len__(self) -> int:
        return self._count

    def added(self, at: int, item: dict[str, Any]) -> ToolCall:
        """Take a call's beginning. Its arguments are not in it yet, or come again."""
        call, id = self._open.get(at), _id(item)
        if call is not None and call.id and call.id != id:
            del self._open[at]  # X2: a new call at a used index
        return self.piece(at, id, text_of(item.get("name")))

    def whole(self, at: int, item: dict[str, Any]) -> ToolCall:
        """Take a call's end, with everything in it: what of that did not come before is news."""
        arguments = text_of(item.get(ARGUMENTS[item["type"]]))
        return self.end(at, arguments, _id(item), text_of(item.get("name")))

    def lacks(self, at: int, item: dict[str, Any]) -> bool:
        """Whether *item* is the call at that index, of which no arguments came."""
        call = self._open.get(at)
        return call is not None and call.id == encodable(_id(item)) and not call.has_arguments

    def end(self, at: int, arguments: str, id: str = "", name: str = "") -> ToolCall:
        """Take all arguments of a call, which are news only if no piece of them came (R7)."""
        call = self._open.get(at)
        return self.piece(at, id, name, "" if call is not None and call.has_arguments else arguments)

    def piece(self, at: int, id: str = "", name: str = "", arguments: str = "") -> ToolCall:
        """Return the piece under our own index, id and name only where they are news."""
        call = self._open.get(at)
        if call is None:
            if not (id or name or arguments):
                return ToolCall(0, "", "", "")
            call = self._open[at] = _Call(self._count)
            self._count += 1
        new_id, new_name = ("" if call.id else encodable(id)), ("" if call.name else encodable(name))
        call.id, call.name = call.id or new_id, call.name or new_name
        call.has_arguments = call.has_arguments or bool(arguments)
        return ToolCall(call.index, new_id, new_name, arguments)


def _id(item: dict[str, Any]) -> str:
    return text_of(item.get("call_id")) or text_of(item.get("id"))
