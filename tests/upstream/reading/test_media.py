"""Images, sounds and files, in the forms in which upstreams send them."""

from __future__ import annotations

from typing import Any

import pytest

from app.events import Media
from app.upstream.reading.media import kind_of, media_of

PNG = "iVBORw0KGgoAAAA"
LINK = "https://images.example/a.jpg?size=1"


@pytest.mark.parametrize(
    ("value", "kind", "media_type", "url"),
    [
        (LINK, "image", "image/jpeg", LINK),
        ("https://images.example/a", "image", "image/*", "https://images.example/a"),
        ("https://images.example/a", "file", "application/octet-stream", "https://images.example/a"),
        ("data:image/webp;base64,UklGR", "image", "image/webp", "data:image/webp;base64,UklGR"),
        ("data:,x", "image", "image/png", "data:,x"),
        (PNG, "image", "image/png", f"data:image/png;base64,{PNG}"),
        ("/9j/4AAQ", "image", "image/jpeg", "data:image/jpeg;base64,/9j/4AAQ"),
        ("JVBERi0x", "file", "application/pdf", "data:application/pdf;base64,JVBERi0x"),
        ("AAAA", "image", "image/png", "data:image/png;base64,AAAA"),
        ("AAAA", "audio", "audio/pcm", "data:audio/pcm;base64,AAAA"),
        ({"data": "AAAA", "format": "mp3"}, "audio", "audio/mpeg", "data:audio/mpeg;base64,AAAA"),
        ({"data": "AAAA", "format": "wav"}, "audio", "audio/wav", "data:audio/wav;base64,AAAA"),
        ({"b64_json": "AAAA", "output_format": "jpg"}, "image", "image/jpeg", "data:image/jpeg;base64,AAAA"),
        ({"file_data": "AAAA", "mime_type": "text/csv"}, "file", "text/csv", "data:text/csv;base64,AAAA"),
        ({"file_data": "AAAA", "format": "csv"}, "file", "application/csv", "data:application/csv;base64,AAAA"),
        ({"data": PNG, "format": "no such / type"}, "image", "image/png", f"data:image/png;base64,{PNG}"),
        ({"format": "mp3", "audio": {"data": "AAAA"}}, "audio", "audio/mpeg", "data:audio/mpeg;base64,AAAA"),
        ({"b64_json": "AAAA", "url": LINK}, "image", "image/jpeg", LINK),
        ({"image_url": {"url": LINK, "detail": "low"}}, "image", "image/jpeg", LINK),
        ({"source": {"media_type": "image/gif", "data": "AAAA"}}, "image", "image/gif", "data:image/gif;base64,AAAA"),
        ({"inlineData": {"mimeType": "image/gif", "data": "AAAA"}}, "image", "image/gif", "data:image/gif;base64,AAAA"),
    ],
)
def test_media(value: object, kind: str, media_type: str, url: str) -> None:
    """The URL, or the data as one, and the type: as declared, by the URL's end, or by how the data begins."""
    media = media_of(value, kind)
    assert media is not None
    assert (media.type, media.media_type, media.url) == (kind, media_type, url)


@pytest.mark.parametrize("value", [None, "", {}, [], 7, {"url": ""}, {"url": 3}, {"text": "x"}, [LINK]])
def test_no_media(value: object) -> None:
    """Where there is neither a URL nor data, there is no image and no file."""
    assert media_of(value, "image") is None
    assert media_of(value, "file") is None


def test_how_deep() -> None:
    """It is looked for three objects deep."""
    assert media_of({"image": {"source": {"url": LINK}}}, "image") is not None
    assert media_of({"image": {"source": {"file": {"url": LINK}}}}, "image") is None


def test_a_piece_of_a_sound() -> None:
    """A sound's transcript, or the time at which it expires, comes without data; nothing at all is no piece."""
    said = {"transcript": "hi", "expires_at": float("nan")}
    expected = Media("audio", "audio/pcm", "", "audio", {"transcript": "hi", "expires_at": None})
    assert media_of(said, "audio", "audio") == expected
    assert media_of({}, "audio") is None


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"type": "image_url", "image_url": {"url": LINK}}, "image"),
        ({"data": "AAAA"}, "audio"),
        ({"type": "file", "file": {"file_data": "data:text/csv;base64,AAAA"}}, "file"),
    ],
)
def test_usual_forms(value: dict[str, Any], kind: str) -> None:
    """Of what says no more than the URL does, the upstream's object is not kept. Of anything else it is."""
    media = media_of(value, kind)
    assert media is not None
    assert media.raw is None
    more = media_of(value | {"id": "a\ud800"}, kind)
    assert more is not None
    assert more.raw == value | {"id": "a\ufffd"}


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "image_url"}, "image"),
        ({"type": "output_image"}, "image"),
        ({"type": "INPUT_AUDIO"}, "audio"),
        ({"type": "file"}, "file"),
        ({"type": "video_url"}, "file"),
        ({"type": "document"}, "file"),
        ({"inline_data": {"mime_type": "image/png"}}, "image"),
        ({"inlineData": {"mimeType": "application/pdf"}}, "file"),
        ({"image": "AAAA"}, "image"),
        ({"file": {"url": LINK}}, "file"),
        ({"type": "text", "text": "x"}, None),
        ({"type": "images"}, None),
        ({"image": ""}, None),
        ({}, None),
    ],
)
def test_kinds(part: dict[str, Any], kind: str | None) -> None:
    """A part says what it is by its type, or by the field that the rest is in."""
    assert kind_of(part) == kind
