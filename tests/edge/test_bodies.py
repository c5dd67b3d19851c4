"""Bodies: what is taken, and that what is not is refused by name, without quoting it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from app.edge.bodies import parse_json, parse_position, parse_smooth, read_body
from app.errors import BadRequest, StreamError, TooLarge, UnsupportedMedia
from app.events import EventId


async def read_json(request: Request, limit: int) -> Any:
    return parse_json(await read_body(request, limit, 0.2))


def test_smooth() -> None:
    """A query's `smooth` is whole milliseconds, and becomes seconds."""
    assert parse_smooth("250") == 0.25
    for text in ("", "0", "-1", "1.5", "10000", "٣", "x"):
        with pytest.raises(BadRequest):
            parse_smooth(text)


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


def request(body: list[bytes], **headers: str) -> Request:
    messages: list[Message] = [{"type": "http.request", "body": part, "more_body": True} for part in body]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return messages.pop(0)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw}, receive)


@pytest.mark.anyio
async def test_read() -> None:
    """A JSON body is read over several parts; without Origin its content type does not matter."""
    assert await read_json(request([b'{"a"', b":1}"]), 100) == {"a": 1}
    assert await read_json(request([b"1"], content_type="application/x-www-form-urlencoded"), 100) == 1
    assert await read_json(request([b"1"], origin="http://a", content_type="Application/JSON; charset=utf-8"), 9) == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "headers", "error"),
    [
        ([b""], {}, BadRequest),
        ([b"{"], {}, BadRequest),
        ([b'{"a": NaN}'], {}, BadRequest),
        ([b'"\xff"'], {}, BadRequest),
        ([b'"\xed\xa0\x80"'], {}, BadRequest),
        ([b"\xef\xbb\xbf\xef\xbb\xbf1"], {}, BadRequest),
        ([b'"\\ud800'], {}, BadRequest),
        ([b'["\\ud800", NaN]'], {}, BadRequest),
        ([b"[" * 90], {}, BadRequest),
        ([b"x" * 60, b"x" * 60], {}, TooLarge),
        ([b"1"], {"content_length": "101"}, TooLarge),
        ([b"1"], {"origin": "http://a"}, UnsupportedMedia),
        ([b"1"], {"origin": "null", "content_type": "text/plain"}, UnsupportedMedia),
    ],
)
async def test_read_refused(body: list[bytes], headers: dict[str, str], error: type[StreamError]) -> None:
    """What is not JSON, is too large, or comes from a page that could not declare it, is refused."""
    with pytest.raises(error):
        await read_json(request(body, **headers), 100)


@pytest.mark.anyio
async def test_a_byte_order_mark() -> None:
    """What PowerShell and editors on Windows write before JSON is ignored, also if it comes in pieces."""
    assert await read_json(request([b"\xef\xbb\xbf1"]), 10) == 1
    assert await read_json(request([b"\xef", b"\xbb", b"\xbf", b"1"]), 10) == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_other_encodings(encoding: str) -> None:
    """JSON in another encoding than UTF-8 is refused by a sentence that says so."""
    with pytest.raises(BadRequest, match="UTF-8"):
        parse_json('{"prompt":"hi"}'.encode(encoding))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (rb'"cut \ud83d"', "cut \ufffd"),
        (rb'"\uDE00 first"', "\ufffd first"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (rb'"\ude00\ud83d"', "\ufffd\ufffd"),
        (rb'["\ud83d", "\\ud83d", "\\\ud83d"]', ["\ufffd", "\\ud83d", "\\\ufffd"]),
        (rb'{"\ud83d": [{"x": {"\udc00": "\udc00"}}]}', {"\ufffd": [{"x": {"\ufffd": "\ufffd"}}]}),
    ],
)
def test_lone_surrogates(text: bytes, read: Any) -> None:
    """A half of a pair becomes U+FFFD, in values, in keys and at any depth. Pairs and escaped backslashes stay."""
    assert parse_json(text) == read


escapes = st.sampled_from(["\\\\", "\\ud83d", "\\uDE00", "\\n", '\\"', "\\u0041", "u", "d83d", "x"])


@given(st.lists(escapes, max_size=12))
def test_any_escapes(pieces: list[str]) -> None:
    """Whatever surrounds it, no more than a lone surrogate changes."""
    text = f'"{"".join(pieces)}"'
    mended = json.loads(text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert parse_json(text.encode()) == mended
