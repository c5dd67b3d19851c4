"""What the converters of other dialects' messages share: the words of OpenAI's messages, and how a field is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from app.errors import BadRequest
from app.events import REASONING_FIELDS, Reasoning

LEFT_OUT = frozenset(
    (
        *("role", "content", "name", "refusal", "tool_calls", "tool_call_id", "function_call"),  # the message's own
        "output",  # of a Responses upstream's own tools, which no upstream takes back
    )
)
"""Fields of a message that nothing which a client returns may stand for."""
DATA_URL = re.compile("data:([^,;]{0,128})[^,]{0,256};base64,", re.ASCII | re.IGNORECASE)
"""How a data URL begins that is in base64, with its media type."""

_AUDIO = {"audio/wav": "wav", "audio/wave": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}


def string_of(fields: Mapping[str, Any], name: str, where: str) -> str:
    """Return the string that *fields*, which are at *where*, have by a *name*. Raises BadRequest, which names it."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise wrong(f"{where}.{name}", "has to be a string")
    return value


def wrong(field: str, what: str) -> BadRequest:
    """Return the error that says *what* is wrong with a *field*."""
    return BadRequest(f"'{field}' {what}.", param=field)


def reasoning_field(name: Any) -> str:
    """Return the field of a message that has reasoning, which its upstream called by a *name*, if that is one."""
    return name if isinstance(name, str) and name in REASONING_FIELDS else Reasoning.FIELD


def image_part(url: str) -> dict[str, Any]:
    """Return an image as a part of a message."""
    return {"type": "image_url", "image_url": {"url": url}}


def sound_part(data: str, media_type: str, where: str) -> dict[str, Any]:
    """Return a sound, *data* in base64, as a part of a message. Raises BadRequest, which names *where* its type is."""
    if media_type not in _AUDIO:
        raise wrong(where, "is none that OpenAI's API takes")
    return {"type": "input_audio", "input_audio": {"data": data, "format": _AUDIO[media_type]}}


def document_part(url: str, name: str) -> dict[str, Any]:
    """Return a document, a data URL, as a part of a message."""
    return {"type": "file", "file": {"filename": name, "file_data": url}}


def add_fields(message: dict[str, Any], fields: Mapping[str, Any]) -> None:
    """Add *fields* to a *message* of several parts. The lists of several parts are one list."""
    for name, value in fields.items():
        before = message.get(name)
        if isinstance(before, list) and isinstance(value, list):
            before += value
        else:
            message[name] = [*value] if isinstance(value, list) else value
