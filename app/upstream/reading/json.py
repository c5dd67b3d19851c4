"""JSON that is not quite JSON, read with patience. Nothing here raises anything but ValueError."""

from __future__ import annotations

import json
import re
from typing import Any, Final

DONE: Final = object()
"""Stands for `[DONE]`, which is not JSON."""

MAX_DEPTH: Final = 256  # orjson's own limit
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


def parse(data: bytes) -> Any:
    """Return the JSON in *data*; NaN, lone surrogates and broken UTF-8 are tolerated."""
    text = data.decode("utf-8-sig", "replace")
    # Row C15. RecursionError is no guard: since Python 3.13, json descends thousands of levels before it raises that.
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise ValueError("nested too deeply")
    return json.loads(text)


def payloads(data: bytes) -> list[Any]:
    """Return what the data of one event holds: one JSON value, or one per line (row F6); DONE for `[DONE]`."""
    try:
        return [_payload(data)]
    except ValueError:
        if b"\n" not in data:
            raise
        return [_payload(line) for line in data.split(b"\n")]


def _payload(text: bytes) -> Any:
    text = text.strip()
    if not text or (text.startswith(b":") and b"\n" not in text):
        return None  # rows F10, F11: the same as `null` (F27)
    # Row F21: nothing but an exact match, because a model may write "[DONE]" in its answer.
    return DONE if text == b"[DONE]" else parse(text)


def _depth(text: str) -> int:
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest
