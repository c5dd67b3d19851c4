"""JSON that is not quite JSON, read with patience. Nothing here raises anything but ValueError."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import orjson

DONE: Final = object()
"""Stands for `[DONE]`, which is not JSON."""

MAX_DEPTH: Final = 256  # orjson's own limit
# Parsing and reading take their time for each value, and not for each byte: a text of 8 MB is read within 20 ms, but
# half a million empty objects fit into 1.5 MB. An answer that comes in one event, with the 20 likeliest tokens for each
# of 700, has about so many.
MAX_CONTAINERS: Final = 32_768  # objects and lists of one event
MAX_COMMAS: Final = 131_072
MAX_PATIENT: Final = 512 * 1024  # bytes of what orjson refuses; the rest is not worth the time
MAX_LINES: Final = 1024  # of one event that is no JSON as a whole
_PIECE = 512 * 1024  # bytes whose values are counted in one step: a few milliseconds
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse(data: bytes) -> Any:
    """Return the JSON in *data*; NaN, lone surrogates and broken UTF-8 are tolerated."""
    if len(data) > MAX_PATIENT:
        raise ValueError("not JSON, and too long to be read with patience")
    # Row C15. RecursionError is no guard: since Python 3.13, json descends thousands of levels before it raises that.
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        raise ValueError("nested too deeply")
    return json.loads(data.decode("utf-8-sig", "replace"))


def parse_whole(data: bytes) -> Any:
    """Return the JSON in *data*, of which nearly all is as orjson takes it. Raises ValueError."""
    try:
        return orjson.loads(data)
    except ValueError:
        return parse(data)


def crowding(data: bytes) -> Iterator[bool]:
    """Count the values of the JSON in *data*, in steps. Yield after each step whether there are more than are read."""
    pieces = range(0, len(data), _PIECE)
    containers = commas = 0
    for start in pieces:
        containers, commas = _counted(data[start : start + _PIECE], containers, commas)
        if _is_crowd(containers, commas):
            break
        yield False
    else:
        return
    # A text may have any number of commas and brackets. A value has up to two strings, its name and itself.
    containers = commas = quotes = 0
    in_text = escaped = False
    for start in pieces:
        piece = data[start + escaped : start + _PIECE]
        escaped = (len(piece) - len(piece.rstrip(b"\\"))) % 2 == 1  # the first byte of the next piece
        parts = piece[: len(piece) - escaped].replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        quotes += len(parts) - 1
        containers, commas = _counted(b"".join(parts[in_text::2]), containers, commas)
        in_text ^= len(parts) % 2 == 0
        yield quotes > 4 * (MAX_COMMAS + MAX_CONTAINERS) or _is_crowd(containers, commas)


def _counted(data: bytes, containers: int, commas: int) -> tuple[int, int]:
    return containers + data.count(b"[") + data.count(b"{"), commas + data.count(b",")


def _is_crowd(containers: int, commas: int) -> bool:
    return containers > MAX_CONTAINERS or commas > MAX_COMMAS


def _outside(plain: bytes) -> bytes:
    """Return what is outside of the strings of *plain*, in which no quote is escaped."""
    return b"".join(plain.split(b'"')[::2])


def payloads(data: bytes) -> list[Any]:
    """Return what the data of one event holds: one JSON value, or one per line (row F6); DONE for `[DONE]`."""
    try:
        return [_payload(data)]
    except ValueError:
        if not 0 < data.count(b"\n") < MAX_LINES:
            raise
        return [_payload(line) for line in data.split(b"\n")]


def _payload(text: bytes) -> Any:
    text = text.strip()
    if not text or (text.startswith(b":") and b"\n" not in text):
        return None  # rows F10, F11: the same as `null` (F27)
    # Row F21: nothing but an exact match, because a model may write "[DONE]" in its answer.
    return DONE if text == b"[DONE]" else parse(text)


def _depth(data: bytes) -> int:
    depth = deepest = 0
    plain = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    for bracket in _outside(plain).translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
