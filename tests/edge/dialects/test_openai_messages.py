"""What the converters of messages share."""

from __future__ import annotations

from typing import Any

import pytest

from app.edge.dialects.openai_messages import DATA_URL, add_fields, reasoning_field, sound_part, string_of
from app.errors import BadRequest


@pytest.mark.parametrize("value", [None, 3, ["a"]])
def test_what_is_no_string(value: object) -> None:
    """The error names the field."""
    with pytest.raises(BadRequest) as caught:
        string_of({"name": value}, "name", "messages[2]")
    assert (str(caught.value), caught.value.param) == ("'messages[2].name' has to be a string.", "messages[2].name")


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("reasoning_content", "reasoning_content"),
        ("reasoning", "reasoning"),
        ("reasoning_text", "reasoning_text"),
        ("thoughts", "thoughts"),
        ("content", "reasoning_content"),
        (None, "reasoning_content"),
        (["reasoning"], "reasoning_content"),
    ],
)
def test_the_field_of_reasoning(name: object, field: str) -> None:
    """It is the one that the upstream has for it, and no other field of a message."""
    assert reasoning_field(name) == field


@pytest.mark.parametrize(("media_type", "form"), [("audio/mpeg", "mp3"), ("audio/x-wav", "wav"), ("audio/ogg", None)])
def test_sounds(media_type: str, form: str | None) -> None:
    """OpenAI's API takes two forms of sound."""
    if form is None:
        with pytest.raises(BadRequest, match="'there' is none"):
            sound_part("eA==", media_type, "there")
    else:
        assert sound_part("eA==", media_type, "")["input_audio"] == {"data": "eA==", "format": form}


@pytest.mark.parametrize(
    ("url", "media_type"),
    [
        ("data:image/png;base64,eA==", "image/png"),
        ("DATA:;base64,", ""),
        ("data:text/plain;charset=utf-8;base64,eA==", "text/plain"),
        ("data:text/plain,x", None),
        ("https://a.example/data:;base64,", None),
    ],
)
def test_data_urls(url: str, media_type: str | None) -> None:
    """One in base64 has its media type at its beginning."""
    found = DATA_URL.match(url)
    assert (found and found[1]) == media_type


def test_fields_of_several_parts() -> None:
    """Lists are joined, and anything else is replaced. What was given stays as it is."""
    given = {"list": [1], "text": "a"}
    message: dict[str, Any] = {}
    add_fields(message, given)
    add_fields(message, {"list": [2], "text": "b", "more": True})
    assert message == {"list": [1, 2], "text": "b", "more": True}
    assert given == {"list": [1], "text": "a"}
