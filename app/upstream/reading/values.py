"""What a field's value is taken for, whatever JSON it is: one rule for each kind of field. Nothing here raises.

Upstreams send any JSON anywhere. A number where a text belongs is the text that it was before somebody took it for a
number. What cannot be coerced gives nothing, and `is_empty` tells whether there was something: then the reader decides
whether the answer is malformed (content) or the value is kept as it is (everything else).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

MAX_DEPTH: Final = 32  # of what is kept as it is
_MAX_INDEX = 1 << 31
# Where the text of an object is.
_TEXTS = ("text", "thinking", "summary", "refusal", "reasoning", "reasoning_content", "content", "value")

_ARGUMENTS = ("arguments", "input", "parameters", "args")


def text_of(value: object) -> str:
    """Return the text that *value* is: a string, a number or a boolean as JSON writes it, or a list of those, joined.

    Anything else gives "".
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if isinstance(value, list) and not any(isinstance(item, (dict, list)) for item in value):
        return "".join([text_of(item) for item in value])
    return ""


def text_within(value: object, depth: int = 4) -> str:
    """Return the text that *value* is or that is in it: in an object, under the first of the usual names that has one.

    Booleans are no text here, because `"reasoning": false` is a switch.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list) and depth:
        return "".join([text_within(item, depth - 1) for item in value])
    if isinstance(value, dict) and depth:
        return next((text for name in _TEXTS if name in value and (text := text_within(value[name], depth - 1))), "")
    return "" if isinstance(value, bool) else text_of(value)


def arguments_of(value: object) -> str:
    """Return the arguments of a tool call: a text, or the JSON text of an object or a list that came in its place."""
    text = text_of(value)
    if text or value is None or value in ("", []):
        return text
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def arguments_field(call: Mapping[str, Any]) -> str:
    """Return the name of the field that has the arguments of *call*: the first of the usual ones that is not null."""
    return next((name for name in _ARGUMENTS if call.get(name) is not None), "arguments")


def object_of(value: object) -> dict[str, Any]:
    """Return *value* if it is an object, or else an empty one."""
    return value if isinstance(value, dict) else {}


def list_of(value: object) -> list[Any]:
    """Return *value* if it is a list, or a list of it if it is an object, or else an empty one."""
    if isinstance(value, dict):
        return [value] if value else []
    return value if isinstance(value, list) else []


def index_of(value: object) -> int | None:
    """Return the index that *value* is, as a number or as its digits; None if it is none within reason."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 11:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < _MAX_INDEX else None


def number_of(value: object) -> float | None:
    """Return the number that *value* is, as a number or as a text; None if it is none."""
    if isinstance(value, str) and len(value) < 16:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**53:
        return value
    return None


def count_of(value: object) -> int | None:
    """Return the count of tokens that *value* is; None if it is none."""
    number = number_of(value)
    return None if number is None or number < 0 else int(number)


def is_empty(value: object) -> bool:
    """Return whether nothing is said by *value*: null, an empty text, or a list or an object of nothing else."""
    if isinstance(value, dict):
        return all(is_empty(item) for item in value.values())
    if isinstance(value, list):
        return all(is_empty(item) for item in value)
    return value is None or value == ""


def encodable(text: str) -> str:
    """Return *text* with surrogate pairs joined and lone surrogates replaced (row C16)."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def kept(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Return *value* as it is, except what some JSON encoder refuses: NaN, half characters, endless numbers or depth.

    Those become null, U+FFFD, floats, and null.
    """
    match value:
        case str():
            return encodable(value)
        case dict():
            return {encodable(name): kept(item, depth - 1) for name, item in value.items()} if depth else None
        case list():
            return [kept(item, depth - 1) for item in value] if depth else None
        case float():
            return value if math.isfinite(value) else None
        case int() if not -(2**63) <= value < 2**63:
            return float(value) if value.bit_length() < 1000 else None
    return value


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
