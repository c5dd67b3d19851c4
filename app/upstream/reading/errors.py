"""What upstream says, read with patience: JSON that is not quite JSON, and errors in any of a dozen shapes.

`refusal` reads an HTTP error response, `read_error` an object met inside a stream or in place of one. Neither raises.

Invariant: text of upstream's gets into an error through `_presentable` only: bounded, one line, without markup, keys
and the caller's own secrets. Where that may not be enough (the text is about our key or our account) none of it does.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, Final

from app.errors import Malformed, RateLimited, Rejected, Unauthorized, Unpaid, UpstreamError

MAX_MESSAGE = 300
MAX_WAIT = 24 * 60 * 60.0
REDACTED = "[redacted]"
DONE: Final = object()
"""`[DONE]`, which is not JSON."""

# What the words in `code`, `type` and `status` would have been as an HTTP status. A word that is missing here means
# that upstream failed, which is what most of them mean. Where words disagree the first group wins: DeepSeek says
# `authentication_error` and `invalid_request_error` at once.
_STATUS_OF_WORD: dict[str, int] = {
    word: status
    for status, words in (
        (401, "invalid_api_key authentication_error unauthorized unauthenticated permission_error permission_denied"),
        (402, "payment_required insufficient_credits insufficient_balance billing_hard_limit_reached"),
        (402, "insufficient_quota"),
        (429, "rate_limit_exceeded rate_limit_error rate_limited too_many_requests resource_exhausted"),
        (429, "ratelimiterror throttling_error"),
        (413, "request_too_large"),
        (404, "model_not_found not_found_error notfounderror"),
        (400, "invalid_request_error context_length_exceeded badrequesterror invalid_prompt invalid_argument"),
        (400, "content_policy_violation unprocessable_entity"),
        (504, "timeout timeout_error deadline_exceeded"),
        (503, "overloaded overloaded_error unavailable service_unavailable"),
    )
    for word in words.split()
}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
MAX_DEPTH = 256  # what orjson takes, which the ordinary way goes through

_PRECEDENCE = (401, 402, 429, 413, 404, 400, 504, 503)


def parse(data: bytes) -> Any:
    """Read JSON as loosely as Python can: NaN, lone surrogates and broken UTF-8 included. Raises ValueError only."""
    text = data.decode("utf-8-sig", "replace")
    # C15. Not left to RecursionError: from Python 3.13 on, json takes thousands of levels before it gives up.
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise ValueError("nested too deeply")
    return json.loads(text)


def payloads(data: bytes) -> list[Any]:
    """Return what the data of one event holds: one JSON value, or one a line (F6); `DONE`. Raises ValueError only."""
    try:
        return [_payload(data)]
    except ValueError:
        if b"\n" not in data:
            raise
        return [_payload(line) for line in data.split(b"\n")]


def _payload(text: bytes) -> Any:
    text = text.strip()
    if not text or (text.startswith(b":") and b"\n" not in text):
        return None  # F10, F11: as good as `null` (F27)
    return DONE if text == b"[DONE]" else parse(text)  # F21: the whole of it, for a model may write it


def _depth(text: str) -> int:
    """Return how deeply *text* is nested, if it is JSON."""
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def encodable(text: str) -> str:
    """Join surrogate pairs and replace lone surrogates (C16)."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def presentable_json(value: Any, depth: int) -> Any:
    """Return of *value* what every JSON encoder takes, and not too much of it; None for the rest (C14, C15)."""
    match value:
        case dict() if depth:
            pairs = ((encodable(name[:64]), presentable_json(item, depth - 1)) for name, item in value.items())
            return {name: item for name, item in islice(pairs, 32) if item is not None}
        case list() if depth:
            return [item for item in (presentable_json(item, depth - 1) for item in value[:32]) if item is not None]
        case str():
            return encodable(value[:128])
        case float() if math.isfinite(value):
            return value
        case int() if abs(value) < 2**53:
            return value
    return None


def read_error(payload: object, *, certain: bool = False, secrets: Iterable[str] = ()) -> UpstreamError | None:
    """Return the error that *payload* is, or None if it is none (E1–E6, H2).

    *certain* says that it is one whatever it looks like (E5). *secrets* are strings that must not come back in its
    message, such as prompts and the key.
    """
    fields = _fields(payload, certain)
    return None if fields is None else _error(_status(fields), fields, secrets)


def refusal(status: int, headers: Mapping[str, str], body: bytes, secrets: Iterable[str] = ()) -> UpstreamError:
    """Return what an HTTP error response means (H1–H3, H9, H12). *headers* are asked for lower-case names."""
    try:
        payload = parse(body)
    except ValueError:
        payload = body.decode("utf-8", "replace")
    fields = _fields(payload, certain=True) or {}
    # Some say the one in a 400, and OpenAI the other in a 429 that no waiting heals.
    status = next((said for said in (401, 402) if said in _statuses(fields)), status)
    error = _error(status, fields, secrets)
    error.retry_after = retry_after(headers)
    return error


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds that upstream asks to wait, or None where it says nothing sensible (H9, H10)."""
    for name, per_second in (("retry-after-ms", 1000), ("retry-after", 1)):
        text = (headers.get(name) or "")[:64].strip()
        if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):  # float() would also take nan, inf, 1_0 and ٣
            wait = float(text) / per_second
        elif name == "retry-after" and text:
            try:
                wait = parsedate_to_datetime(text).timestamp() - (time.time() if now is None else now)
            except (ValueError, TypeError, OverflowError, OSError):
                continue
        else:
            continue
        if 0 < wait <= MAX_WAIT:
            return wait
    return None


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Take every secret of at least 8 characters out of *text*, escaped as in JSON too.

    Echoes are often cut short, so the first 24 characters of a secret betray it as well.
    """
    for secret in sorted(secrets, key=len, reverse=True):  # or a short one would hide the rest of a longer one
        if len(secret) < 8:
            continue
        for form in {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}:
            text = text.replace(form, REDACTED)
            while len(form) > 24 and (start := text.find(form[:24])) >= 0:
                pairs = enumerate(zip(text[start:], form, strict=False))
                end = next((at for at, (ours, theirs) in pairs if ours != theirs), min(len(text) - start, len(form)))
                text = text[:start] + REDACTED + text[start + end :]
    return text


def _fields(payload: object, certain: bool) -> Mapping[str, Any] | None:
    if isinstance(payload, dict):
        inner = payload.get("error")  # E12: it is the truth that counts, not the key
        if inner and isinstance(inner, dict):  # R3: each field from the nested object, else from around it
            return payload | {name: value for name, value in inner.items() if value is not None}
        if inner:
            return payload | {"message": inner}  # E2
        return payload if certain or _is_flat_error(payload) else None
    if isinstance(payload, list):  # Gemini wraps its errors (H2); only one level is looked at
        for item in payload:
            if isinstance(item, dict) and (fields := _fields(item, certain=False)) is not None:
                return fields
    return {"message": payload} if certain else None  # what else there is (F27)


def _is_flat_error(payload: Mapping[str, Any]) -> bool:
    if payload.get("choices") is not None:  # E3
        return False
    if "error" in (payload.get("object"), payload.get("type")) or payload.get("detail"):
        return True
    return bool(payload.get("message")) and payload.get("code") not in (None, "", 0, 200, "0", "200")


def _statuses(fields: Mapping[str, Any]) -> set[int]:
    words = (fields.get(name) for name in ("code", "type", "status", "error_type"))
    return {
        _STATUS_OF_WORD[word.lower()] for word in words if isinstance(word, str) and word.lower() in _STATUS_OF_WORD
    }


def _status(fields: Mapping[str, Any]) -> int | None:
    said = _statuses(fields)
    if ours := said & {401, 402}:  # not the client's doing, whatever else is said
        return min(ours)
    for name in ("code", "status", "http_status_code", "status_code"):
        match fields.get(name):
            case bool():
                continue
            case int(number) if 400 <= number < 600:
                return number
            case str(text) if re.fullmatch("[45][0-9][0-9]", text):  # E9
                return int(text)
    return next((status for status in _PRECEDENCE if status in said), None)


def _error(status: int | None, fields: Mapping[str, Any], secrets: Iterable[str]) -> UpstreamError:
    if status in (401, 403):
        return Unauthorized()
    if status == 402:
        return Unpaid()
    text = _presentable(fields.get("message") or fields.get("detail"), secrets)
    if status == 429:
        return RateLimited(text)
    if status is None:
        return UpstreamError(text)
    text = text or f"The upstream service answered with status {status}."
    if status in (408, 409, 425) or status >= 500:  # H12: what the SDKs try again
        return UpstreamError(text)
    if status >= 400:
        param = fields.get("param")
        return Rejected(
            text, param=param if isinstance(param, str) and re.fullmatch(r"[\w.\[\]-]{1,64}", param) else None
        )
    return Malformed(text)  # H20: a redirect is no stream


_PAGE = re.compile(r"<\s*(?:!doctype|html|head|body|title)\b", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+")
_KEY = re.compile(
    r"""
      (?i:\b(?:bearer|basic)\s+)[^\s"',;]{8,}
    | \b(?i:sk|pk|rk|gsk|csk|xai|pplx|nvapi|hf|r8|fw|ghp|org|proj)[-_][^\s"',;]{6,}
    | \bAIza[\w-]{20,}
    | \beyJ[\w-]{8,}[.\w-]*                                                      # a JSON Web Token
    | \b(?=[A-Za-z]*[0-9])[A-Za-z0-9+/]{24,}={0,2}                               # hexadecimal, base64
    | (?<![\w-])(?P<url>[A-Za-z0-9_-]{40,})={0,2}                               # base64 as in URLs: see `_redacted`
    """,
    re.VERBOSE | re.ASCII,
)


def _redacted(match: re.Match[str]) -> str:
    text = match["url"]
    # What has digits and both cases is no word. Asked here: as lookaheads this was quadratic.
    random = text is None or (re.search("[0-9]", text) and re.search("[a-z]", text) and re.search("[A-Z]", text))
    return REDACTED if random else match[0]


def _presentable(said: object, secrets: Iterable[str]) -> str | None:
    """Return *said* as a client may see it, or None if nothing of it is fit to be seen."""
    if isinstance(said, list):  # FastAPI's; its "input" is a piece of the prompt and stays behind
        items = [item for item in said[:8] if isinstance(item, dict)]
        said = "; ".join(
            f"{'.'.join(map(str, loc))}: {text}"
            for item in items
            for loc, text in [(item.get("loc"), item.get("msg"))]
            if isinstance(loc, list) and isinstance(text, str)
        )
    # What is longer than this is no message but an echo. H3: a page is for people before a browser.
    if not isinstance(said, str) or len(said) > 16 * 1024 or _PAGE.search(said):
        return None
    text = _UNPRINTABLE.sub(" ", _TAG.sub("", scrub(said, secrets)))
    text = " ".join(_KEY.sub(_redacted, text).split())
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"
