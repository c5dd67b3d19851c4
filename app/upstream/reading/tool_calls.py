"""Which tool call a piece belongs to, when upstreams leave out, repeat or renumber what should say so.

The rows cited (X1–X6) are those of `reference/upstream.md` section 6.
"""

from __future__ import annotations

from app.events import ToolCall


class ToolCalls:
    """The calls of one stream: gives each piece our own index, dense and in order of appearance."""

    def __init__(self) -> None:
        self._calls: list[list[str]] = []  # what was sent of each: its id, its name
        self._last_at: dict[int | None, int] = {}  # upstream's index, or None for any, to ours
        self._known: dict[tuple[int | None, str], int] = {}

    def take(self, index: int | None, id: str, name: str, arguments: str) -> ToolCall:
        """Return the piece under our own index, id and name only where they are news."""
        ours = self._find(index, id, name)
        if ours is None:
            ours = len(self._calls)
            self._calls.append(["", ""])
        self._last_at[index] = self._last_at[None] = ours
        call = self._calls[ours]
        new_id, new_name = (id if not call[0] else ""), (name if not call[1] else "")
        if new_id:
            call[0] = id
            self._known[index, id] = self._known[None, id] = ours
        if new_name:
            call[1] = name
        return ToolCall(ours, new_id, new_name, arguments)

    def _find(self, index: int | None, id: str, name: str) -> int | None:
        known = self._known.get((index, id))
        if known is not None:
            return known
        last = self._last_at.get(index)
        if last is None:
            return None
        last_id, last_name = self._calls[last]
        if id and last_id:
            return None  # X2: a new id at a used index
        if (id or index is None) and name and last_name and not (id and name == last_name):
            return None  # X1: nothing to tell two whole calls apart by but that each is named
        return last
