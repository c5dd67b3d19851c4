"""Which item of a response an event is about: by the item's index, or where that is missing, by its id (row R10)."""

from __future__ import annotations

from typing import Any, Final

from app.upstream.reading.values import index_of, text_of

MAX_ITEMS: Final = 1024
MAX_ID: Final = 256  # characters


class Places:
    """The places of a response's items: their indexes, or numbers of ours."""

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}
        self._named: set[int] = set()  # the places of items that have ids
        self._last = 0
        self._next = 0

    def of(self, event: dict[str, Any], item: dict[str, Any] | None = None, *, begins: bool = False) -> int:
        """Return the place of the item that *event* is about, and holds as *item*; *begins*: it is a new one."""
        ids = [text_of(event.get("item_id"))]
        if item is not None:
            ids += [text_of(item.get("id")), text_of(item.get("call_id"))]
        place = index_of(event.get("output_index"))
        if place is None:
            place = next((self._by_id[id] for id in ids if id in self._by_id), None)
        if place is None:
            is_new = begins or (any(ids) and self._last in self._named)
            place = self._next if is_new else self._last
        for id in ids:
            if id and len(id) <= MAX_ID and len(self._by_id) < MAX_ITEMS:
                self._by_id[id] = place
                self._named.add(place)
        self._last = place
        self._next = max(self._next, place + 1)
        return place
