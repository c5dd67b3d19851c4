"""What a field's value is taken for. Upstreams send any JSON anywhere; nothing here raises."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

_MAX_INDEX = 1 << 31


def text_of(value: object, *names: str) -> str:
    """Return *value* if it is text, or else the texts under *names* in the objects that it lists; "" for the rest."""
    if isinstance(value, list):
        return "".join(text_of(part.get(name)) for part in value if isinstance(part, dict) for name in names)
    return value if isinstance(value, str) else ""


def object_of(value: object) -> dict[str, Any]:
    """Return *value* if it is an object, or else an empty one."""
    return value if isinstance(value, dict) else {}


def list_of(value: object) -> list[Any]:
    """Return *value* if it is a list, or else an empty one."""
    return value if isinstance(value, list) else []


def index_of(value: object) -> int:
    """Return *value* if it is an index within reason, or else 0."""
    return value if type(value) is int and 0 <= value < _MAX_INDEX else 0


def encodable(text: str) -> str:
    """Return *text* with surrogate pairs joined and lone surrogates replaced (row C16)."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def bounded_json(value: Any, depth: int) -> Any:
    """Return the part of *value* that every JSON encoder takes, up to *depth* levels and 32 items a level.

    The rest is left out; None if nothing remains (rows C14, C15).
    """
    match value:
        case dict() if depth:
            pairs = ((encodable(name[:64]), bounded_json(item, depth - 1)) for name, item in value.items())
            return {name: item for name, item in islice(pairs, 32) if item is not None}
        case list() if depth:
            return [item for item in (bounded_json(item, depth - 1) for item in value[:32]) if item is not None]
        case str():
            return encodable(value[:128])
        case float() if math.isfinite(value):
            return value
        case int() if abs(value) < 2**53:
            return value
    return None
