"""Images, sounds and files in OpenAI's form."""

from __future__ import annotations

from typing import Any

import pytest

from app.events import Media
from app.wire.media import fields_of, object_of, sound_url

LINK = "https://images.example/a"
PCM = "audio/pcm"


def image(url: str = LINK, field: str = "", raw: Any = None) -> Media:
    return Media("image", "image/png", url, field, raw)


def sound(url: str = "", raw: Any = None) -> Media:
    return Media("audio", PCM, url, "audio", raw)


@pytest.mark.parametrize(
    ("media", "expected"),
    [
        (image(), {"type": "image_url", "image_url": {"url": LINK}}),
        (image(raw={"url": LINK, "id": "a"}), {"url": LINK, "id": "a"}),
        (sound("data:audio/pcm;base64,AAAA"), {"data": "AAAA"}),
        (sound(LINK), {"url": LINK}),
        (Media("file", "text/csv", LINK), {"type": "file", "file": {"file_data": LINK}}),
    ],
)
def test_object(media: Media, expected: object) -> None:
    """The upstream's object, or, where that said no more than the URL, one in OpenAI's form."""
    assert object_of(media) == expected


@pytest.mark.parametrize(
    ("media", "fields"),
    [
        ([], {}),
        ([image(raw=1)], {"images": [1]}),
        ([image(raw=1), image(raw=2)], {"images": [1, 2]}),
        ([image(field="image", raw=1)], {"image": 1}),
        ([image(field="image", raw=1), image(field="image", raw=2)], {"image": [1, 2]}),
        ([image(field="content", raw=1)], {"content": [1]}),
        ([Media("file", "text/csv", LINK, raw=1)], {"files": [1]}),
        ([image(raw=1), sound(LINK)], {"images": [1], "audio": {"url": LINK}}),
    ],
)
def test_fields(media: list[Media], fields: dict[str, Any]) -> None:
    """They stand where the upstream had put them, or in the usual field of their type: a list, or a single object."""
    assert fields_of(media) == fields


def test_a_sound_in_pieces() -> None:
    """Its transcript and its data are joined, and what names it is kept. Each piece of base64 may have padding."""
    pieces = [
        sound("data:audio/pcm;base64,YQ==", {"id": "s", "data": "YQ=="}),
        sound("", {"id": "s", "transcript": "he"}),
        sound("data:audio/pcm;base64,YmM=", {"data": "YmM=", "transcript": "llo"}),
    ]
    assert fields_of(pieces) == {"audio": {"id": "s", "transcript": "hello", "data": "YWJj"}}
    assert fields_of(pieces[1:2]) == {"audio": {"id": "s", "transcript": "he"}}


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        ([], ("", "")),
        ([""], ("", "")),
        (["", LINK], (PCM, LINK)),
        ([f"{LINK}/1", f"{LINK}/2"], (PCM, f"{LINK}/2")),
        (["data:audio/pcm;base64,YQ==", "", "data:audio/pcm;base64,YmM="], (PCM, "data:audio/pcm;base64,YWJj")),
        (["data:audio/pcm;base64,YW", "data:audio/pcm;base64,Jj"], (PCM, "data:audio/pcm;base64,YWJj")),
        (["data:audio/pcm;base64,YQ==", LINK], (PCM, LINK)),
    ],
)
def test_sound_url(urls: list[str], expected: tuple[str, str]) -> None:
    """The last link, or all data in one URL, also where it was divided within a group of four; nothing without both."""
    assert sound_url([sound(url) for url in urls]) == expected
