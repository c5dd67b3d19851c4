"""Log probabilities, which both of OpenAI's dialects have, in the shape of chat completions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from app.upstream.reading.values import encodable

MAX_TOP = 20  # what OpenAI gives at most
MAX_TOKEN = 1024  # characters; a token of OpenAI's has 128 at most


def read_logprobs(value: object) -> Sequence[dict[str, Any]]:
    """Return the tokens that *value* lists: `token`, `logprob`, `bytes` (or None) and `top_logprobs` of each.

    All other fields are left out, so that the result can always be encoded. It is empty if *value* is not a list of
    tokens, or if one of them has no finite number (row C14): with a token missing, the rest is of no use.
    """
    if not isinstance(value, list):
        return ()
    tokens: list[dict[str, Any]] = []
    for item in value:
        token = _token(item)
        if token is None:
            return ()
        top = item.get("top_logprobs")
        others = [_token(other) for other in top[:MAX_TOP]] if isinstance(top, list) else []
        tokens.append(token | {"top_logprobs": [other for other in others if other is not None]})
    return tokens or ()


def _token(item: object) -> dict[str, Any] | None:
    if not isinstance(item, dict):
        return None
    token = item.get("token")
    logprob = item.get("logprob")
    raw = item.get("bytes")
    if not isinstance(token, str) or len(token) > MAX_TOKEN or isinstance(logprob, bool):
        return None
    if not isinstance(logprob, (int, float)) or abs(logprob) > 1e9 or not math.isfinite(logprob):
        return None
    if not isinstance(raw, list) or len(raw) > 4 * MAX_TOKEN or not all(type(x) is int and 0 <= x < 256 for x in raw):
        raw = None
    return {"token": encodable(token), "logprob": logprob, "bytes": raw}
