"""What an upstream wants back with the next request, and a client only passes on: one text that says nothing to it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import orjson

_MARK = "chat-sse:"
_OF_REASONING = re.compile("reason|think|thought|signature|encrypted", re.IGNORECASE)


def is_of_reasoning(name: str) -> bool:
    """Whether a field of a delta is about the reasoning, by its *name*."""
    return _OF_REASONING.search(name) is not None


def seal(fields: Mapping[str, Any]) -> str:
    """Return *fields* as one text."""
    return _MARK + base64.b64encode(orjson.dumps(fields)).decode()


def sealed_json(text: object) -> bytes:
    """Return the JSON that is in *text*, if that looks as if `seal` made it, else nothing."""
    if not isinstance(text, str) or not text.startswith(_MARK):
        return b""
    try:
        return base64.b64decode(text.removeprefix(_MARK), validate=True)
    except (binascii.Error, ValueError):
        return b""


def unseal(text: object) -> dict[str, Any] | None:
    """Return the fields that `seal` made *text* of; None for any other value."""
    try:
        fields = orjson.loads(sealed_json(text))
    except orjson.JSONDecodeError:
        return None
    return fields if isinstance(fields, dict) else None
