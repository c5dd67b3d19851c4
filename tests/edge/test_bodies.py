"""Bodies: what is taken, and that what is not is refused by name, without quoting it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from app.edge.bodies import Defaults, parse_chat, parse_json, parse_position, parse_smooth, read_body
from app.errors import BadRequest, StreamError, TooLarge, UnsupportedMedia
from app.events import EventId, new_stream_id
from app.request import StreamRequest

DEFAULTS = Defaults(model="default", chunk="auto", grace=10, max_grace=60)


async def read_json(request: Request, limit: int) -> Any:
    return parse_json(await read_body(request, limit, 0.2))


def parse(**body: Any) -> StreamRequest:
    return parse_chat(body, DEFAULTS).stream


def test_prompt() -> None:
    """A prompt is one user message; model and cut have defaults."""
    request = parse(prompt="hi")
    assert request == StreamRequest("default", ({"role": "user", "content": "hi"},), {}, "auto", 10)


def test_messages_and_parameters_pass_as_they_are() -> None:
    """Messages and OpenAI's parameters go through unchanged, unknown fields inside messages too."""
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}], "vendor": 1},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
    ]
    request = parse(messages=messages, model="m", temperature=0, stop=["a"], max_tokens=3, chunk="word,50ms")
    assert list(request.messages) == messages
    assert request.parameters == {"temperature": 0, "stop": ["a"], "max_tokens": 3}
    assert (request.model, request.chunk) == ("m", "word,50ms")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 1}, "prompt"),
        ({"prompt": None, "messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "b"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "b"}, {"role": "pope", "content": "b"}]}, "messages[1].role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [7]}, "messages[0]"),
        ({"prompt": "a", "temperature": "hot"}, "temperature"),
        ({"prompt": "a", "temperature": 3}, "temperature"),
        ({"prompt": "a", "temperature": True}, "temperature"),
        ({"prompt": "a", "n": 2}, "n"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 1.5}, "max_tokens"),
        ({"prompt": "a", "stop": [1]}, "stop"),
        ({"prompt": "a", "logit_bias": {"5": "x"}}, "logit_bias.5"),
        ({"prompt": "a", "tools": {}}, "tools"),
        ({"prompt": "a", "chunk": "paragraph"}, "chunk"),
        ({"prompt": "a", "chunk": "word,smooth:0"}, "chunk"),
        ({"prompt": "a", "chunk": "smooth:x"}, "chunk"),
        ({"prompt": "a", "chunk": "wordsmooth:40"}, "chunk"),
        ({"prompt": "a", "chunk": ",smooth:40"}, "chunk"),
        ({"prompt": "a", "chunk": "auto,"}, "chunk"),
        ({"prompt": "a", "chunk": "smooth:100,word"}, "chunk"),
        ({"prompt": "a", "on_disconnect": "maybe"}, "on_disconnect"),
        ({"prompt": "a", "on_disconnect": "continue"}, "on_disconnect"),
        ({"prompt": "a", "on_disconnect": "grace:61"}, "on_disconnect"),
        ({"prompt": "a", "on_disconnect": 5}, "on_disconnect"),
        ({"prompt": "a", "temprature": 1}, "temprature"),
        ({"prompt": "a", "stream": True}, "stream"),
    ],
)
def test_bad_field(body: dict[str, Any], field: str) -> None:
    """What is wrong is refused with 400, and the field is named as the client wrote it."""
    with pytest.raises(BadRequest) as raised:
        parse(**body)
    assert raised.value.param == field
    assert f"'{field}'" in raised.value.text


@pytest.mark.parametrize(("policy", "grace"), [("cancel", 0), ("grace:0.5", 0.5), ("grace:60", 60)])
def test_policy(policy: str, grace: float) -> None:
    """What happens when nobody reads is the request's, within the server's bound."""
    assert parse(prompt="a", on_disconnect=policy).grace == grace


@pytest.mark.parametrize(
    ("chunk", "cut", "smooth"),
    [("word", "word", 0), ("smooth:200", "auto", 0.2), ("word,80ms,smooth:300", "word,80ms", 0.3)],
)
def test_smooth_is_the_readers_side(chunk: str, cut: str, smooth: float) -> None:
    """`smooth:MS` may follow a cut, or stand alone; it is no part of how the stream is cut."""
    asked = parse_chat({"prompt": "a", "chunk": chunk}, DEFAULTS)
    assert (asked.stream.chunk, asked.smooth) == (cut, smooth)
    assert parse_smooth("250") == 0.25
    for text in ("", "0", "-1", "1.5", "10000", "٣", "x"):
        with pytest.raises(BadRequest):
            parse_smooth(text)


@pytest.mark.parametrize(
    "text",
    ["", "1", "-1", "x-1", "A" * 22, "A" * 22 + "-", "A" * 22 + "-0", "A" * 22 + "-01", "A" * 22 + "--1"]
    + ["A" * 22 + "-1" + bad for bad in ("\n", "\r", "\0", " ", ",", "9" * 12)]
    + ["A" * 21 + "\n-1", "A" * 22 + "-٣"],
)
def test_position_refused(text: str) -> None:
    """A last event id that this service cannot have sent is refused, and not echoed."""
    with pytest.raises(BadRequest) as raised:
        parse_position(text)
    assert "A" not in raised.value.text


def test_position() -> None:
    """An event id prints and parses."""
    stream_id = new_stream_id()
    assert parse_position(f"{stream_id}-7") == EventId(stream_id, 7)


@pytest.mark.parametrize("body", [None, [], "prompt", 1])
def test_not_an_object(body: Any) -> None:
    """A body that is JSON but no object is refused."""
    with pytest.raises(BadRequest, match="object"):
        parse_chat(body, DEFAULTS)


def test_values_are_not_quoted() -> None:
    """An error names the field, not what stood in it; an endless field name is cut."""
    secret = "secret" * 1000
    for body in ({"prompt": [secret]}, {"prompt": "a", "stop": secret}, {"prompt": "a", "user": secret}):
        with pytest.raises(BadRequest) as raised:
            parse(**body)
        assert "secret" not in raised.value.text
    with pytest.raises(BadRequest) as raised:
        parse(prompt="a", **{secret: 1})
    assert len(raised.value.text) < 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
fields = st.sampled_from(["prompt", "messages", "stop", "tools", "chunk", "model", "logit_bias", "on_disconnect", "x"])


@given(st.dictionaries(fields, json_values, max_size=4) | json_values)
def test_any_body_is_taken_or_refused(body: Any) -> None:
    """No JSON whatever makes parsing fail in any other way than BadRequest."""
    try:
        assert isinstance(parse_chat(body, DEFAULTS).stream, StreamRequest)
    except BadRequest as error:
        assert len(error.text) < 500


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
        ([b'"\\ud800"'], {}, BadRequest),
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
