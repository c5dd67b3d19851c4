"""Bodies: what is taken, and that what is not is refused by name, without quoting it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel
from starlette.requests import Request
from starlette.types import Message

from app.edge.bodies import Defaults, parse_smooth, read_body, stream_request, validated
from app.edge.dialects.ai_sdk import UIChatBody
from app.edge.dialects.native import ChatBody
from app.edge.dialects.openai import CompletionBody
from app.edge.json import MAX_VALUES, parse_json
from app.errors import BadRequest, StreamError, TooLarge, UnsupportedMedia
from tests.watchdog import watching


async def read_json(request: Request, limit: int) -> Any:
    return await parse_json(await read_body(request, limit, 0.2))


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


ZEROS: list[Any] = [0] * MAX_VALUES
NUMBERS: dict[str, Any] = {str(number): None for number in range(MAX_VALUES)}
USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("model", "data", "param"),
    [
        (ChatBody, {"messages": [{**USER, "content": ZEROS}]}, "messages[0].content"),
        (ChatBody, {"messages": ZEROS}, "messages[0]"),
        (ChatBody, {"prompt": "x", "tools": ZEROS}, "tools"),
        (ChatBody, {"prompt": "x", "stop": ZEROS}, "stop"),
        (ChatBody, {"prompt": "x", "logit_bias": NUMBERS}, "logit_bias.0"),
        (ChatBody, {"prompt": "x", "metadata": NUMBERS}, "metadata.0"),
        (ChatBody, {"prompt": "x", **NUMBERS}, None),
        (CompletionBody, {"messages": [USER], "modalities": ZEROS}, "modalities"),
        (CompletionBody, {"messages": [USER], **NUMBERS}, None),
        (UIChatBody, {"id": "c", "messages": [{"role": "user", "parts": ZEROS}]}, "messages[0].parts[0]"),
        (UIChatBody, {"id": "c", "messages": ZEROS}, "messages[0]"),
        (UIChatBody, {"id": "c", "messages": [{"role": "user", "parts": []}], "tools": NUMBERS}, "tools.0"),
    ],
)
def test_thousands_of_mistakes(model: type[BaseModel], data: Any, param: str | None) -> None:
    """The first of many mistakes is named, and the others are not looked for: that would hold the event loop."""

    async def validate() -> None:
        validated(model, data)

    with watching(), pytest.raises(BadRequest) as raised:
        asyncio.run(validate())
    assert raised.value.param == param


def test_parts_go_back() -> None:
    """In every dialect, an answer whose client kept its parts goes upstream with them in its content."""
    thought = {"type": "thinking", "thinking": "hm"}
    user = {"role": "user", "content": "hi"}
    said = {"role": "assistant", "content": "a", "reasoning_content": "hm", "content_parts": [{**thought, "index": 0}]}
    defaults = Defaults(model="m", chunk="auto", grace=10, max_grace=60)
    stream, _ = stream_request(defaults, [user, said], {}, None, None, None, keyed=False, returns=True)
    content = [thought, {"type": "text", "text": "a"}]
    assert stream.messages == (user, {"role": "assistant", "content": content})
