"""The pieces of JSON that dialects share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from app.events import Failure
from app.usage import Usage


def dumps(data: object) -> bytes:
    """Return one line of JSON that survives readers which take more than CR and LF for a line end.

    orjson escapes the ASCII controls; U+0085, U+2028 and U+2029 are legal in JSON but cut by `str.splitlines`, which
    httpx's own line iterator and other hand-made readers use (row F4 of the upstream README).
    """
    return one_line(orjson.dumps(data))


def text(said: str) -> bytes:
    """Return what `dumps` returns for a string, only faster: nearly all texts are ASCII, and those need no escapes."""
    line = orjson.dumps(said)
    return line if said.isascii() else one_line(line)


integer: Callable[[int], bytes] = orjson.dumps  # a third of what %d costs


def one_line(line: bytes) -> bytes:
    """Return a *line* of JSON with the line ends escaped that JSON does not escape."""
    if line.isascii():  # a fiftieth of what the searches cost, of which a response of megabytes has several
        return line
    if b"\xe2\x80" in line or b"\xc2\x85" in line:
        line = line.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
        line = line.replace(b"\xc2\x85", b"\\u0085")
    return line


def given(**fields: Any) -> dict[str, Any]:
    """Return those *fields* that are not empty."""
    return {name: value for name, value in fields.items() if value}


def string_in(found: Any, name: str) -> str:
    """Return the string that an object has by a *name*; "" if it has none, or if what was *found* is no object."""
    value = found.get(name) if isinstance(found, Mapping) else None
    return value if isinstance(value, str) else ""


def error_object(failure: Failure) -> dict[str, Any]:
    """Return the members of the error object that the in-band event and the HTTP body share."""
    return {
        "message": failure.message,
        "type": failure.type,
        "code": failure.code,
        "retryable": failure.retryable,
    }


def usage_object(usage: Usage | None) -> dict[str, Any] | None:
    """Return *usage* as clients see it: an estimate says that it is one."""
    if usage is None:
        return None
    return {**usage.fields, "estimated": True} if usage.estimated else dict(usage.fields)
