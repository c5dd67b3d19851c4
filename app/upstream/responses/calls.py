"""Which tool call a piece belongs to in a Responses stream, and whose it is to run.

A piece belongs to the call that is open at the place of its item. A call to a tool that the request did not offer is
the upstream's own if the upstream goes on with its answer after it, or if the request asked for tools of the
upstream's (row R11). Until that is known, the call is kept back.
"""

from __future__ import annotations

from typing import Any, Final

from app.upstream.reading.answer import Answer
from app.upstream.reading.extras import unknown
from app.upstream.reading.tool_calls import unused
from app.upstream.reading.values import arguments_field, arguments_of, encodable, list_of, object_of, text_of

CALLS: Final = {"function_call": "function", "custom_tool_call": "custom"}
"""The items that are calls of the client's own tools, and the types of these calls."""
_OWN: Final = frozenset(["id", "type", "call_id", "name", "arguments", "input", "status"])
MAX_KEPT_BACK: Final = 64


class _Call:
    __slots__ = ("extra", "has_arguments", "id", "index", "name", "type")

    def __init__(self, index: int, type: str) -> None:
        self.index = index
        self.type = type
        self.id = ""
        self.name = ""
        self.has_arguments = False
        self.extra: dict[str, Any] = {}


class ResponseCalls:
    """The calls of one response, numbered by us: densely, in order of appearance. They go into *answer*."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._count = 0
        self._open: dict[int, _Call] = {}  # by the place of the item
        self._sent_ids: set[str] = set()
        self._offered: set[str] | None = None  # the names of the client's tools; None if all are
        self._upstream_has_tools = False
        self._kept_back: dict[int, dict[str, Any]] = {}  # calls to other tools, by the place of the item
        self._settled: set[str] = set()  # the ids of those that are the upstream's own

    def __len__(self) -> int:
        return self._count

    def offer(self, tools: object) -> None:
        """Note the *tools* that the request offers, in Responses' words."""
        self._offered = self._offered or set()
        for tool in map(object_of, list_of(tools)):
            if tool.get("type") in ("function", "custom"):
                self._offered.add(text_of(tool.get("name")))
            elif tool.get("type") == "namespace":
                self.offer(tool.get("tools"))
            else:
                self._upstream_has_tools = True

    @property
    def offered(self) -> list[dict[str, str]]:
        """What `offer` needs to know of the tools that were offered."""
        tools = [{"type": "function", "name": name} for name in sorted(self._offered or ())]
        return [*tools, {"type": "upstream"}] if self._upstream_has_tools else tools

    def begin(self, at: int, item: dict[str, Any]) -> None:
        """Take the beginning of a call. Its arguments are not there yet, or come again."""
        call = self._open.get(at)
        if call is not None and call.id and call.id != _id(item):
            del self._open[at]  # row X2: a new call at a used place
        if self._keeps_back(at, item):
            return
        self.add(at, id=_id(item), name=_name(item), type=CALLS[_kind(item)])

    def complete(self, at: int, item: dict[str, Any]) -> None:
        """Take a whole call, of which only what did not come before is news."""
        if self._keeps_back(at, item):
            return
        kind = _kind(item)
        field = arguments_field(item)
        arguments = arguments_of(item.get(field))
        self._end(at, arguments, _id(item), _name(item), CALLS[kind], unknown(item, _OWN | {field}))

    def lacks(self, at: int, item: dict[str, Any]) -> bool:
        """Return whether *item* is the call at that place, and no arguments of it came."""
        call = self._open.get(at)
        return call is not None and call.id == _id(item) and not call.has_arguments

    def end(self, at: int, arguments: str) -> None:
        """Take all arguments of a call, which are news only if no piece of them came (row R7)."""
        if at not in self._kept_back:
            self._end(at, arguments)

    def add(self, at: int, arguments: str = "", id: str = "", name: str = "", type: str = "") -> None:
        """Take a piece of a call."""
        if at not in self._kept_back:
            self._add(at, arguments, id, name, type)

    def take_upstream_calls(self) -> list[dict[str, Any]]:
        """Return the calls that were kept back. The upstream has gone on after them: they are its own."""
        calls = list(self._kept_back.values())
        self._settled |= {_id(item) for item in calls}
        self._kept_back = {}
        return calls

    def release(self) -> None:
        """Take the calls that were kept back as the client's, because the answer ends with them."""
        kept_back = self._kept_back
        self._kept_back = {}
        self._offered = None
        for at, item in kept_back.items():
            self.complete(at, item)

    @property
    def are_upstream_calls(self) -> bool:
        """Whether the calls that are kept back are the upstream's own, whatever follows."""
        return self._upstream_has_tools

    def _keeps_back(self, at: int, item: dict[str, Any]) -> bool:
        if self._offered is None or _name(item) in self._offered or at in self._open:
            return False
        if _id(item) in self._settled:
            return True
        same = next((place for place, other in self._kept_back.items() if _id(other) == _id(item)), at)
        if len(self._kept_back) + len(self._settled) >= MAX_KEPT_BACK and same not in self._kept_back:
            return False
        self._kept_back[same] = item
        return True

    def _end(
        self,
        at: int,
        arguments: str,
        id: str = "",
        name: str = "",
        type: str = "",
        extra: dict[str, Any] | None = None,
    ) -> None:
        call = self._open.get(at)
        has_arguments = call is not None and call.has_arguments
        self._add(at, "" if has_arguments else arguments, id, name, type, extra)

    def _add(
        self,
        at: int,
        arguments: str,
        id: str,
        name: str,
        type: str,
        extra: dict[str, Any] | None = None,
    ) -> None:
        call = self._open.get(at)
        if call is None:
            if not (id or name or arguments):
                return
            call = self._open[at] = _Call(self._count, type or "function")
            self._count += 1
        new_id = ""
        if id and not call.id:
            call.id = id
            new_id = unused(id, self._sent_ids)
            self._sent_ids.add(new_id)
        new_name = "" if call.name else name
        call.name = call.name or name
        call.has_arguments = call.has_arguments or bool(arguments)
        news = {name: value for name, value in (extra or {}).items() if call.extra.get(name) != value}
        call.extra |= news
        self._answer.add_call(call.index, new_id, new_name, arguments, call.type, news)


def _kind(item: dict[str, Any]) -> str:
    return text_of(item.get("type"))


def _id(item: dict[str, Any]) -> str:
    return encodable(text_of(item.get("call_id")) or text_of(item.get("id")))


def _name(item: dict[str, Any]) -> str:
    return encodable(text_of(item.get("name")))
