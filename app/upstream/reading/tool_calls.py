"""Which tool call a piece belongs to, where upstreams leave out, repeat or renumber what should tell."""

from __future__ import annotations


class ToolCalls:
    """The calls of one stream, numbered by us: densely, in order of appearance."""

    def __init__(self) -> None:
        self._calls: list[list[str]] = []  # what was sent of each: its id, its name
        self._last_at: dict[int | None, int] = {}  # our index, by the upstream's; by None for the last call of all
        self._known: dict[tuple[int | None, str], int] = {}  # our index, by the upstream's index, or None, and the id

    def place(self, index: int | None, id: str, name: str) -> tuple[int, str, str]:
        """Return our index for a piece, and its id and its name if they are news, else ""."""
        ours = self._find(index, id, name)
        if ours is None:
            ours = len(self._calls)
            self._calls.append(["", ""])
        self._last_at[index] = ours
        self._last_at[None] = ours
        call = self._calls[ours]
        new_id = "" if call[0] else id
        new_name = "" if call[1] else name
        if new_id:
            call[0] = id
            self._known[index, id] = ours
            self._known[None, id] = ours
        if new_name:
            call[1] = name
        return ours, new_id, new_name

    def _find(self, index: int | None, id: str, name: str) -> int | None:
        known = self._known.get((index, id))
        if known is not None:
            return known
        last = self._last_at.get(index)
        if last is None:
            return None
        last_id, last_name = self._calls[last]
        if id and last_id:
            return None  # row X2: a new id at a used index
        if (id or index is None) and name and last_name and not (id and name == last_name):
            return None  # row X1: nothing but its name tells one whole call from another
        return last
