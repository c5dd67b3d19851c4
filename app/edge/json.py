"""JSON that clients send. Reading it never holds the event loop, whatever is in it.

Parsing and validating take their time for each value, and not for each byte: half a million values fit into 1 MB, and
a picture of 1 MB is one value. So the values are counted first.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Any, Final

import orjson

from app.errors import BadRequest
from app.turns import turn
from app.wire.opaque import sealed_json

MAX_DEPTH: Final = 64  # a deep tool schema has twenty; our own encoder takes 254
# Each of the steps that a body of so many values goes through takes up to 30 ms; tests/real/test_attacks_stalls.py
# shows how long.
MAX_VALUES: Final = 32_768

# Bytes that are counted in one step, and escapes that are looked at: a millisecond at most.
_SLICE: Final = 64 * 1024
_BATCH: Final = 2048
_STEP: Final = 400
"""What such a step is to `turn`."""

_BOM = b"\xef\xbb\xbf"
# The marks of UTF-16 and UTF-32, and the NUL that every other byte of theirs is in ASCII text.
_WIDE = re.compile(rb"\xff\xfe|\xfe\xff|\x00|.\x00", re.DOTALL)
# Escaped backslashes, whose last is no escape; a pair of surrogates; or, as group 1, a surrogate alone.
_ESCAPE = re.compile(
    rb"\\(?:\\(?:\\\\){0,63}+"
    rb"|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2}))"
)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


async def parse_json(body: bytes) -> Any:
    """Parse a JSON body. Raises BadRequest.

    A byte-order mark before it is ignored, as RFC 8259 allows in section 8.1: PowerShell and editors on Windows write
    one. A half of a surrogate pair becomes U+FFFD: JavaScript cuts an emoji in two and sends the half, and then sends
    it again with every message, because it stays in the history.
    """
    body = body.removeprefix(_BOM)
    if _WIDE.match(body):
        raise BadRequest("The body is not in UTF-8: it looks like UTF-16 or UTF-32.")
    values = await _count_values(body)
    work = values // 8 + (len(body) >> 10)
    if work:
        await turn(work)
    try:
        data = await _loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(
            f"The body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    if work:
        await turn(work)  # to validate it takes as long
    return data


async def check_sealed(texts: Iterable[object]) -> None:
    """Raise BadRequest if more is in sealed *texts* of a body, all together, than a body may hold.

    `app.wire.opaque` sealed them, or so they say: the client can have written them itself.
    """
    values = 0
    for text in texts:
        sealed = sealed_json(text)
        await turn(len(sealed) >> 7)
        values += await _count_values(sealed)
        if values > MAX_VALUES:
            raise BadRequest(f"The encrypted values of the body hold more than {MAX_VALUES} values.")


async def _count_values(body: bytes) -> int:
    """Return how many values there are. Raises BadRequest for too many, or for too many levels.

    They are counted on the bytes: each comma and each opening bracket outside of strings is one.
    """
    values = depth = 0
    in_string = False
    held_back = b""
    for start in range(0, len(body), _SLICE):
        if start:
            await turn(_STEP)
        piece = held_back + body[start : start + _SLICE]
        # A backslash at the end may belong to a quote that comes next.
        held_back = b"\\" if (len(piece) - len(piece.rstrip(b"\\"))) % 2 else b""
        piece = piece[: len(piece) - len(held_back)]
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        outside = b"".join(parts[in_string::2])
        in_string ^= len(parts) % 2 == 0
        values += sum(map(outside.count, (b",", b"[", b"{")))
        if values > MAX_VALUES:
            raise BadRequest(f"The body has more than {MAX_VALUES} values: elements of lists, and fields of objects.")
        for bracket in outside.translate(None, _NO_BRACKETS):
            depth += 1 if bracket in b"[{" else -1
            if depth > MAX_DEPTH:
                raise BadRequest(f"The body is nested more than {MAX_DEPTH} levels deep.")
    return values


async def _loads(body: bytes) -> Any:
    """Parse JSON. Only a body that is refused is searched for lone surrogates, so a good one costs nothing more."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        await asyncio.sleep(0)
        mended = await _without_lone_surrogates(body)
        if mended == body:
            raise
    await asyncio.sleep(0)
    return orjson.loads(mended)


async def _without_lone_surrogates(body: bytes) -> bytes:
    """Replace each by U+FFFD."""
    mended = bytearray()
    end = 0
    for number, escape in enumerate(_ESCAPE.finditer(body), 1):
        if escape[1]:
            mended += body[end : escape.start()] + rb"\ufffd"
            end = escape.end()
        if number % _BATCH == 0:
            await turn(_STEP)
    return bytes(mended + body[end:])
