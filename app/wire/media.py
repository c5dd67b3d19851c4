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
_OBJECT = "audio"  # the field that is one object; all others are lists


def fields_of(media: Sequence[Media]) -> dict[str, Any]:
    """Return the fields of a delta, or of a message, that *media* are."""
    fields: dict[str, Any] = {}
    for each in media:
        field = each.field or _FIELDS[each.type]
        if field != _OBJECT:
            fields.setdefault(field, []).append(object_of(each))
    sounds = [each for each in media if (each.field or _FIELDS[each.type]) == _OBJECT]
    if sounds:
        fields[_OBJECT] = _sound(sounds)
    return fields


def object_of(media: Media) -> Any:
    """Return the upstream's object; one in its form, if the upstream's said no more than the URL."""
    if media.raw is not None:
        return media.raw
    match media.type:
        case "audio":
            return {"data": media.url.partition(",")[2]}
        case "image":
            return {"type": "image_url", "image_url": {"url": media.url}}
        case _:
            return {"type": "file", "file": {"file_data": media.url}}


def joined_audio(pieces: Sequence[Media]) -> Media:
    """Return a sound that came in *pieces*, of which there is at least one."""
    head = pieces[0].url.partition(",")[0]
    data = _data([piece.url.partition(",")[2] for piece in pieces if piece.url.startswith("data:")])
    url = f"{head},{data}" if data else pieces[0].url
    return Media("audio", pieces[0].media_type, url, pieces[0].field)


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
