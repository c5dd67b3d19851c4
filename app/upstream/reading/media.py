"""Images, sounds and files, in the forms in which upstreams send them."""

from __future__ import annotations

import mimetypes
import re
from typing import Any, Final

from app.events import Media
from app.upstream.reading.values import encodable, kept, text_of

FIELDS: Final = {
    "images": "image",
    "image": "image",
    "image_url": "image",
    "audio": "audio",
    "video": "file",
    "videos": "file",
    "files": "file",
    "file": "file",
}
"""The type of what a delta or a message has in a field."""
_OF_PART: Final = re.compile("(?:input_|output_)?(image|audio|file|video|document)(?:_url|_file)?", re.IGNORECASE)
_URLS = ("url", "uri", "image_url", "audio_url", "video_url", "file_url", "document_url", "href")
_DATA = ("b64_json", "data", "base64", "file_data", "image_base64", "result", "blob", "image", "audio")
_MEDIA_TYPES = ("media_type", "mime_type", "mimeType", "mediaType", "format", "output_format", "content_type")
# Where the object that holds the URL or the data may be.
_INSIDE = (
    *("image_url", "image", "audio", "input_audio", "output_audio", "audio_url", "video_url", "file", "source"),
    *("inline_data", "inlineData", "document_url", "file_url", "url"),
)
_FALLBACK: Final = {"image": "image/png", "audio": "audio/pcm", "file": "application/octet-stream"}
# How the base64 of some formats begins.
_MAGIC: Final = {
    "iVBORw0KGgo": "image/png",
    "/9j/": "image/jpeg",
    "R0lGOD": "image/gif",
    "UklGR": "image/webp",
    "SUQz": "audio/mpeg",
    "T2dnUw": "audio/ogg",
    "JVBERi": "application/pdf",
}
_FORMATS: Final = {"jpg": "jpeg", "mp3": "mpeg", "pcm16": "pcm"}


def media_of(value: object, kind: str, field: str = "") -> Media | None:
    """Return the image, sound or file (*kind*) that *value* is, found in *field*; None if it is none.

    A sound may have no data: in pieces, its transcript and the time at which it expires come alone.
    """
    found = _locate(value, depth=3)
    if found is None:
        is_piece = kind == "audio" and isinstance(value, dict) and bool(value)
        return Media("audio", _FALLBACK["audio"], "", field, kept(value)) if is_piece else None
    place, said = found
    media_type = _media_type(place, said, kind)
    url = said if _is_url(said) else f"data:{media_type};base64,{said}"
    return Media(kind, media_type, url, field, _more(value, kind, url, said))


def kind_of(part: dict[str, Any]) -> str | None:
    """Return whether a part of a content is an image, a sound or a file; None if it is none of them."""
    match = _OF_PART.fullmatch(text_of(part.get("type")))
    if match is not None:
        kind = match[1].lower()
        return kind if kind in ("image", "audio") else "file"
    for name in ("inline_data", "inlineData"):  # of Gemini
        inline = part.get(name)
        if isinstance(inline, dict):
            kind = text_of(inline.get("mime_type") or inline.get("mimeType")).partition("/")[0]
            return kind if kind in ("image", "audio") else "file"
    return next((FIELDS[name] for name in ("image_url", "image", "audio", "file") if part.get(name)), None)


def _locate(value: object, depth: int) -> tuple[dict[str, Any], str] | None:
    """Return the object that holds the URL or the data, and which that is."""
    if isinstance(value, str):
        return ({}, encodable(value)) if value else None
    if not isinstance(value, dict) or not depth:
        return None
    for names in (_URLS, _DATA):
        for name in names:
            said = value.get(name)
            if isinstance(said, str) and said:
                return value, encodable(said)
    for name in _INSIDE:
        found = _locate(value.get(name), depth - 1) if isinstance(value.get(name), dict) else None
        if found is not None:
            return {**value, **found[0]}, found[1]
    return None


def _is_url(said: str) -> bool:
    return said.startswith("data:") or re.match("[a-z][a-z0-9+.-]*://", said[:32], re.IGNORECASE) is not None


def _media_type(place: dict[str, Any], said: str, kind: str) -> str:
    if said.startswith("data:"):
        declared = re.match(r"data:([\w.+-]+/[\w.+-]+)", said[:128])
        return declared[1] if declared else _FALLBACK[kind]
    for name in _MEDIA_TYPES:
        declared_as = place.get(name)
        if isinstance(declared_as, str) and re.fullmatch(r"[\w.+-]{1,64}(/[\w.+-]{1,64})?", declared_as):
            if "/" in declared_as:
                return declared_as
            return f"{'application' if kind == 'file' else kind}/{_FORMATS.get(declared_as, declared_as)}"
    if _is_url(said):
        guessed, _ = mimetypes.guess_type(said[:4096].partition("?")[0])
        return guessed or (f"{kind}/*" if kind != "file" else _FALLBACK["file"])
    return next((known for magic, known in _MAGIC.items() if said.startswith(magic)), _FALLBACK[kind])


def _more(value: object, kind: str, url: str, said: str) -> Any:
    """Return *value* if it says more than the URL in the usual form of its kind does."""
    usual: dict[str, object] = {
        "image": {"type": "image_url", "image_url": {"url": url}},
        "audio": {"data": said},
        "file": {"type": "file", "file": {"file_data": url}},
    }
    return None if value == usual[kind] else kept(value)
