"""How long a prompt is, and what of it is media: alike wherever in a message a picture, a sound or a file stands."""

from __future__ import annotations

from typing import Any

import pytest

from app.edge.access.prompt import is_text, parts_in, prompt_sizes, prompt_tokens

USER = {"role": "user", "content": "hello"}


def content(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": [*parts]}


def picture(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def file(data: str) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": data}}


def sound(size: int) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"format": "mp3", "data": "x" * size}}


def test_parts() -> None:
    """Every part that is more than text is found, with its place and its type, in any field of a message."""
    shown = picture("https://x")
    messages = [
        content({"type": "text", "text": "a"}, shown, {"type": "text", "text": "b", "cache_control": {}}),
        {"role": "assistant", "content": None, "images": [{"url": "data:image/png,x"}, shown], "audio": {"id": "a"}},
        {"role": "assistant", "content": "x", "files": file("x"), "videos": None, "image": ["https://x", "https://y"]},
        content({"type": "text", "text": "", "image_url": {"url": "https://x"}}),
    ]
    found = [(part.place, part.kind, is_text(part.part)) for part in parts_in(messages)]
    assert found == [
        ("messages[0].content[1]", "image_url", False),
        ("messages[0].content[2]", "text", True),
        ("messages[1].images[0]", "image_url", False),
        ("messages[1].images[1]", "image_url", False),
        ("messages[1].audio", "input_audio", False),
        ("messages[2].image", "image_url", False),
        ("messages[2].files", "file", False),
        ("messages[3].content[0]", "text", False),
    ]


@pytest.mark.parametrize(
    ("message", "counted"),
    [
        (USER, "hello"),
        ({"role": "user", "content": "日本\U0001f600"}, "日本\U0001f600"),
        ({"role": "assistant", "content": None}, ""),
        (content({"type": "text", "text": "ab"}, {"type": "text", "text": "c"}), "abc"),
        (content(picture("data:image/png;base64," * 99)), '{"type":"image_url","image_url":{"url":""}}'),
        (content({"type": "image_url", "image_url": "https://a" + "x" * 99}), '{"type":"image_url","image_url":""}'),
        (content(sound(99)), '{"type":"input_audio","input_audio":{"format":"mp3","data":""}}'),
        (content(file("data:application/pdf;base64," * 99)), '{"type":"file","file":{"file_data":""}}'),
        (
            {"role": "assistant", "content": "", "images": [picture("data:image/x")]},
            '{"type":"image_url","image_url":{"url":""}}',
        ),
        ({"role": "assistant", "audio": {"data": "x" * 9999, "transcript": "hm"}}, '{"data":"","transcript":"hm"}'),
        ({"role": "assistant", "files": file("data:application/pdf,x")}, '{"type":"file","file":{"file_data":""}}'),
        ({"role": "user", "content": "a", "name": "bc", "n": [1.5, True]}, 'a{"name":"bc","n":[1.5,true]}'),
    ],
)
def test_messages(message: Any, counted: str) -> None:
    """A text counts as it is and everything else as its JSON, except the payload of media."""
    assert prompt_sizes([message, {"role": "user", "content": "."}], {}) == {"messages": len(counted) + 1}


@pytest.mark.parametrize(
    "message",
    [
        content({"type": "x" * 99, "text": ""}),
        content({"type": "text", "text": "", "x" * 99: 1}),
        content({"type": "text", "text": {"x" * 99: 1}}),
        content({"type": "text", "text": "", "more": [0] * 99}),
        content(picture("x" * 99)),
        content(picture("data:text/plain," + "x" * 99)),
        content(picture("https://x", data="x" * 99)),
        content(picture("https://x", detail="x" * 99)),
        content(picture("https://x") | {"text": "x" * 99}),
        content(file("data:text/plain;base64," + "x" * 99)),
        content(file("x" * 99)),
        content({"type": "file", "file": {"file_data": "https://x", "filename": "https://" + "x" * 99}}),
        content({"type": "input_audio", "input_audio": {"format": "x" * 99}}),
        {"role": "user", "content": "", "note": {"url": "https://x" + "x" * 99}},
        content(picture("data:image/svg+xml," + "x" * 99)),
        content({"type": "text", "text": [picture("https://x" + "x" * 99)]}),
        {"role": "assistant", "content": "", "audio": {"id": "audio_1", "transcript": "x" * 99}},
        {"role": "assistant", "content": "", "audio": {"id": "audio_1", "transcript": "https://" + "x" * 99}},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "x" * 99}}]},
        {"role": "assistant", "content": "", "thinking_blocks": [{"thinking": "x" * 99}]},
        {"role": "user", "content": "", "images": ["x" * 99]},
    ],
)
def test_text_hides_nowhere(message: Any) -> None:
    """Text counts wherever in a message it stands, and in a payload that is no picture, sound or PDF."""
    assert prompt_sizes([message], {})["messages"] >= 99


def test_text_in_parameters() -> None:
    """Parameters count, with names and numbers; OpenAI's that are a number do not, since that is bounded."""
    long = "x" * 99
    schema = {"type": "json_schema", "json_schema": {"schema": {"enum": list(range(10_000))}}}
    parameters = {"temperature": 0.5, "seed": 1, "logprobs": True, "stop": long, "top_k": 20, "tools": [{long: {}}]}
    sizes = prompt_sizes([USER], parameters | {"response_format": schema})
    assert sizes.pop("response_format") > 48_000
    assert sizes == {"messages": 5, "stop": 99, "top_k": 7, "tools": len('[{"":{}}]') + 99}


@pytest.mark.parametrize("size", [10, 5_000_000])
@pytest.mark.parametrize(
    "message",
    [
        lambda data: content(picture(f"data:image/png;base64,{data}")),
        lambda data: content({"type": "image_url", "image_url": f"data:image/png;base64,{data}"}),
        lambda data: content({"type": "input_image", "image_url": f"data:image/png;base64,{data}", "detail": "low"}),
        lambda data: content({"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}}),
        lambda data: content(sound(len(data))),
        lambda data: content(file(f"data:application/pdf;base64,{data}")),
        lambda data: {"role": "assistant", "content": "", "images": [picture(f"data:image/png;base64,{data}")]},
        lambda data: {"role": "assistant", "content": "", "audio": {"id": "a", "data": data}},
    ],
)
def test_media_cost_alike(message: Any, size: int) -> None:
    """A picture, a sound or a PDF costs the same tokens wherever it stands, and however large its data is."""
    assert 1500 < prompt_tokens([message("A" * size)], {}) < 1535


def test_tokens() -> None:
    """Texts count by their bytes, a message four tokens besides, and parameters with their names and numbers."""
    assert prompt_tokens([USER, USER], {}) == (16 + 5 + 16 + 5 + 3) // 4
    assert prompt_tokens([{"role": "user", "content": "漢" * 400}], {}) == (16 + 1200 + 3) // 4
    numbers = {"response_format": {"enum": [1.5] * 1000}, "temperature": 0.5}
    assert prompt_tokens([USER], numbers) == (16 + 5 + len('{"enum":[]}') + 1000 * len("1.5,") - 1 + 3) // 4
    assert 250_000 < prompt_tokens([content(file("data:text/plain;base64," + "x" * 1_000_000))], {}) < 252_000
