"""Which form of a stream a client wants, by its `Accept`."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from app.edge.accept import wants_json


def asked(*lines: str) -> bool:
    return wants_json(Request({"type": "http", "headers": [(b"accept", line.encode()) for line in lines]}))


@pytest.mark.parametrize(
    "lines",
    [
        ("application/json",),
        ("Application/JSON; charset=utf-8",),
        ("text/html, application/json;q=0.5",),
        ("application/json, text/event-stream;q=0",),
        ("application/json, */*; q=0.000",),
        ("application/json", "text/html"),
    ],
)
def test_json(lines: tuple[str, ...]) -> None:
    """A client that takes JSON and no events gets JSON."""
    assert asked(*lines)


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("",),
        ("*/*",),
        ("text/event-stream",),
        ("application/json, text/plain, */*",),  # axios
        ("application/json, */*;q=0.5",),  # HTTPie
        ("application/json, text/event-stream",),
        ("application/json, text/*;q=0.1",),
        ("application/json;q=0",),
        ("application/json;q=0.0, text/html",),
        ("application/jsonp",),
        ("application/*",),
        ("application/json", "text/event-stream"),
        ("text/html",),
    ],
)
def test_events(lines: tuple[str, ...]) -> None:
    """A client that takes anything, or events, or does not say, gets events."""
    assert not asked(*lines)
