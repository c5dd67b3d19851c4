"""Bodies: what is taken, and that what is not is refused by name, without quoting it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from app.edge.bodies import parse_json, parse_smooth, read_body
from app.errors import BadRequest, StreamError, TooLarge, UnsupportedMedia


async def read_json(request: Request, limit: int) -> Any:
    return parse_json(await read_body(request, limit, 0.2))


def test_smooth() -> None:
    """A query's `smooth` is whole milliseconds, and becomes seconds."""
    assert parse_smooth("250") == 0.25
    for text in ("", "0", "-1", "1.5", "10000", "٣", "x"):
        with pytest.raises(BadRequest):
            parse_smooth(text)


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
