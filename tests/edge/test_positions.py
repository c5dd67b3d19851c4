"""Positions in requests: where they stand, and that what is none is refused."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from starlette.requests import Request

from app.edge.positions import parse_position
from app.errors import BadRequest
from app.events import EventId


def asked_after(header: str | None = None, query: str = "") -> Request:
    headers = [] if header is None else [(b"last-event-id", header.encode("latin-1", "replace"))]
    return Request({"type": "http", "headers": headers, "query_string": query.encode()})


ID = "A" * 22


@pytest.mark.parametrize(
    "text",
    ["1", "-1", "x-1", ID, ID + "-", ID + "-0", ID + "-01", ID + "--1", ID + "-1.0", ID + "-1.", ID + "-1.1.1"]
    + [ID + "-1" + bad for bad in ("\n", "\r", "\0", " ", ",", "9" * 12, ".1111111")]
    + ["A" * 21 + "\n-1", ID + "-٣"],
)
def test_position_refused(text: str) -> None:
    """A last event id that this service cannot have sent is refused, wherever it stands, and not echoed."""
    for request in (asked_after(text), asked_after(None, urlencode({"last_event_id": text}))):
        with pytest.raises(BadRequest) as raised:
            parse_position(request)
        assert raised.value.param == "last_event_id"
        assert "A" not in raised.value.text


def test_position() -> None:
    """A position is in the header, or in the query by either name; the header wins, and what is empty is none."""
    other = f"last_event_id={'B' * 22}-1"
    assert parse_position(asked_after(f"{ID}-7", other)) == EventId(ID, 7)
    assert parse_position(asked_after(f"{ID}-7.2")) == EventId(ID, 7, 2)
    assert parse_position(asked_after("", f"last_event_id={ID}-7")) == EventId(ID, 7)
    assert parse_position(asked_after(None, f"lastEventId={ID}-7.11")) == EventId(ID, 7, 11)
    for none in (asked_after(), asked_after(""), asked_after(None, "last_event_id=&lastEventId=")):
        assert parse_position(none) is None
