"""Images, sounds and files in OpenAI's form."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from app.events import Media
from app.wire.joined import Joined

# The field that an image, a sound or a file is in which came from elsewhere.
_FIELDS = {"image": "images", "audio": "audio", "file": "files"}
_LISTS = frozenset(("images", "files", "videos", "content"))  # other fields are one object, as long as there is one


def fields_of(media: Sequence[Media]) -> dict[str, Any]:
    """Return the fields of a delta, or of a message, that *media* are."""
    found: dict[str, list[Media]] = {}
    for each in media:
        found.setdefault(each.field or _FIELDS[each.type], []).append(each)
    fields: dict[str, Any] = {}
    for field, of_field in found.items():
        if field == "audio":
            fields[field] = _sound(of_field)
        elif field in _LISTS or len(of_field) > 1:
            fields[field] = [object_of(each) for each in of_field]
        else:
            fields[field] = object_of(of_field[0])
    return fields


def object_of(media: Media) -> Any:
    """Return the upstream's object; one in its form, if the upstream's said no more than the URL."""
    if media.raw is not None:
        return media.raw
    match media.type:
        case "audio":
            return {"data": media.url.partition(",")[2]} if media.url.startswith("data:") else {"url": media.url}
        case "image":
            return {"type": "image_url", "image_url": {"url": media.url}}
        case _:
            return {"type": "file", "file": {"file_data": media.url}}


def sound_url(pieces: Sequence[Media]) -> tuple[str, str]:
    """Return the media type and the URL of a sound that came in *pieces*; empty ones if only its transcript came."""
    known = [piece for piece in pieces if piece.url]
    if not known:
        return "", ""
    links = [piece.url for piece in known if not piece.url.startswith("data:")]
    if links:
        return known[0].media_type, links[-1]
    head = known[0].url.partition(",")[0]
    return known[0].media_type, f"{head},{_data([piece.url.partition(',')[2] for piece in known])}"


def _sound(pieces: Sequence[Media]) -> Any:
    if len(pieces) == 1:
        return object_of(pieces[0])
    joined = Joined()
    data: list[str] = []
    for piece in pieces:
        found = object_of(piece)
        if isinstance(found, Mapping):
            joined.add(found)
            data += [found["data"]] if isinstance(found.get("data"), str) else []
    return {**joined.value, **({"data": _data(data)} if data else {})}


def _data(pieces: Sequence[str]) -> str:
    """Return *pieces* of base64, each of which may have padding of its own, as one."""
    try:
        return base64.b64encode(b"".join([base64.b64decode(piece, validate=True) for piece in pieces])).decode()
    except binascii.Error:  # it was divided within a group of four
        return "".join(pieces)
