"""Which item of a response an event is about (row R10)."""

from __future__ import annotations

from typing import Any

import pytest

from app.upstream.responses.places import MAX_ID, MAX_ITEMS, Places

Told = tuple[dict[str, Any], dict[str, Any] | None, bool]
"""An event, the item in it, and whether it begins one."""


@pytest.mark.parametrize(
    ("told", "places"),
    [
        # by the index, as a number or as its digits
        (
            [
                ({"output_index": 3}, None, True),
                ({"output_index": "1"}, None, True),
                ({"output_index": 3}, None, False),
            ],
            [3, 1, 3],
        ),
        # by the item's id, the call's id, or the id that the event names
        (
            [
                ({}, {"id": "a"}, True),
                ({}, {"id": "b", "call_id": "c"}, True),
                ({"item_id": "a"}, None, False),
                ({"item_id": "c"}, None, False),
            ],
            [0, 1, 0, 1],
        ),
        # an index goes before an id, and an id is known by the index that it came with
        ([({"output_index": 5}, {"id": "a"}, True), ({"item_id": "a"}, None, False)], [5, 5]),
        ([({}, {"id": "a"}, True), ({"output_index": 7, "item_id": "a"}, None, False)], [0, 7]),
        # with neither, it is about the last one; what begins is new
        ([({}, None, False), ({}, None, False), ({}, {}, True), ({}, None, False)], [0, 0, 1, 1]),
        # a new id after an item that has one is a new item; after one that has none, it is that item's
        ([({"item_id": "a"}, None, False), ({"item_id": "b"}, None, False)], [0, 1]),
        ([({}, None, True), ({"item_id": "a"}, None, False), ({"item_id": "b"}, None, False)], [0, 0, 1]),
        # our numbers come after the upstream's
        ([({"output_index": 4}, None, True), ({}, {"id": "a"}, True)], [4, 5]),
        # ids and indexes that are none
        ([({"output_index": -1, "item_id": {}}, {"id": None}, True), ({"output_index": "x"}, None, False)], [0, 0]),
    ],
)
def test_places(told: list[Told], places: list[int]) -> None:
    """Every event about one item has one place."""
    found = Places()
    assert [found.of(event, item, begins=begins) for event, item, begins in told] == places


def test_what_is_remembered() -> None:
    """So many ids, none of which is too long."""
    places = Places()
    assert places.of({"item_id": "x" * (MAX_ID + 1), "output_index": 5}) == 5
    assert places.of({"output_index": 6}) == 6
    assert places.of({"item_id": "x" * (MAX_ID + 1)}) == 6
    for number in range(MAX_ITEMS + 1):
        places.of({"item_id": str(number), "output_index": number})
    assert places.of({"item_id": str(MAX_ITEMS - 1)}) == MAX_ITEMS - 1
    places.of({"output_index": 3})
    assert places.of({"item_id": str(MAX_ITEMS)}) == MAX_ITEMS + 1  # a new one
