"""Errors as upstreams tell them: in any of a dozen shapes, as an HTTP response or inside a stream.

Invariant: an upstream's words reach an error through `presentable` only. An error about our key or our account carries
none of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from app.errors import Malformed, RateLimited, Rejected, Unauthorized, Unpaid, UpstreamError
from app.upstream.reading.json import parse
from app.upstream.reading.redaction import presentable

MAX_WAIT: Final = 24 * 60 * 60.0  # seconds

# The HTTP statuses that the words in `code`, `type` and `status` stand for. Any other word means that the upstream
# failed. Where words disagree the first status wins: DeepSeek sends `authentication_error` and `invalid_request_error`
# at once.
_WORDS: Final = {
    401: "invalid_api_key authentication_error unauthorized unauthenticated permission_error permission_denied",
    402: "payment_required insufficient_credits insufficient_balance billing_hard_limit_reached insufficient_quota",
    429: "rate_limit_exceeded rate_limit_error rate_limited too_many_requests resource_exhausted ratelimiterror "
    "throttling_error",
    413: "request_too_large",
    404: "model_not_found not_found_error notfounderror",
    400: "invalid_request_error context_length_exceeded badrequesterror invalid_prompt invalid_argument "
    "content_policy_violation unprocessable_entity",
    504: "timeout timeout_error deadline_exceeded",
    503: "overloaded overloaded_error unavailable service_unavailable",
}
_STATUS_OF: Final = {word: status for status, words in _WORDS.items() for word in words.split()}


def read_error(payload: object, *, certain: bool = False, secrets: Iterable[str] = ()) -> UpstreamError | None:
    """Return the error that *payload* is, or None if it is none (rows E1–E6, H2).

    *certain* says that it is one, whatever it looks like (row E5). *secrets* are strings that must not come back in the
    error's message, such as prompts and the key.
    """
    fields = _fields(payload, certain)
    return None if fields is None else _error(_status(fields), fields, secrets)


def read_refusal(status: int, headers: Mapping[str, str], body: bytes, secrets: Iterable[str] = ()) -> UpstreamError:
    """Return what an HTTP error response means (rows H1–H3, H9, H12). *headers* have lower-case names."""
    try:
        payload = parse(body)
    except ValueError:
        payload = body.decode("utf-8", "replace")
    fields = _fields(payload, certain=True) or {}
    # Some send a wrong key as a 400. OpenAI sends a spent quota as a 429, which no waiting heals.
    ours = _statuses(fields) & {401, 402}
    error = _error(min(ours) if ours else status, fields, secrets)
    error.retry_after = retry_after(headers)
    return error


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds that the upstream asks to wait; None if it says nothing sensible (rows H9, H10)."""
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


def _fields(payload: object, certain: bool) -> Mapping[str, Any] | None:
    """Return the fields of an error, with those of a nested one over those around it; None if it is no error."""
    if isinstance(payload, dict):
        inner = _inner(payload)
        if isinstance(inner, dict):  # row R3
            return payload | {name: value for name, value in inner.items() if value is not None}
        if inner is not None:
            return payload | {"message": inner}  # row E2
        return payload if certain or _is_flat_error(payload) else None
    if isinstance(payload, list):  # row H2: Gemini wraps its errors in a list
        for item in payload:
            if isinstance(item, dict) and (fields := _fields(item, certain=False)) is not None:
                return fields
    return {"message": payload} if certain else None  # row F27


def _inner(payload: Mapping[str, Any]) -> Any:
    """Return the error that is in *payload*; None if there is none, or one in which everything is empty (E12, E16)."""
    groq = payload.get("x_groq")  # row E15
    for place in (payload, groq if isinstance(groq, dict) else {}):
        for name in ("error", "errors"):
            inner = place.get(name)
            if isinstance(inner, list):
                inner = next((item for item in inner if _says_something(item)), None)
            if _says_something(inner):
                return inner
    base = payload.get("base_resp")
    if isinstance(base, dict) and _failed_code(base.get("status_code")):
        return base
    return None


def _says_something(error: object) -> bool:
    """Return whether *error* is more than what a struct has that was never filled."""
    if isinstance(error, dict):
        return any(_says_something(value) for value in error.values())
    return bool(error) and error != "0"


def _is_flat_error(payload: Mapping[str, Any]) -> bool:
    if payload.get("choices"):  # row E3
        return False
    if "error" in (payload.get("object"), payload.get("type")) or payload.get("detail"):
        return True
    if payload.get("error_code") and _failed_code(payload["error_code"]):
        return True
    return _message(payload) is not None and (_failed_code(_code(payload)) or payload.get("success") is False)


def _failed_code(code: object) -> bool:
    return code not in (None, "", 0, 200, "0", "200")


def _code(fields: Mapping[str, Any]) -> Any:
    return _first(fields, "code", "error_code", "errcode", "err_code", "errorCode", "status_code")


def _message(fields: Mapping[str, Any]) -> Any:
    names = (
        "message",
        "msg",
        "detail",
        "error_msg",
        "errmsg",
        "err_msg",
        "error_message",
        "errorMessage",
        "status_msg",
    )
    return _first(fields, *names)


def _first(fields: Mapping[str, Any], *names: str) -> Any:
    return next((fields[name] for name in names if fields.get(name)), None)


def _statuses(fields: Mapping[str, Any]) -> set[int]:
    words = (fields.get(name) for name in ("code", "type", "status", "error_type"))
    found = (_STATUS_OF.get(word.lower()) for word in words if isinstance(word, str))
    return {status for status in found if status is not None}


def _status(fields: Mapping[str, Any]) -> int | None:
    said = _statuses(fields)
    if ours := said & {401, 402}:  # not the client's fault, whatever else is said
        return min(ours)
    for name in ("code", "status", "http_status_code", "status_code", "error_code"):
        match fields.get(name):
            case bool():
                continue
            case int(number) if 400 <= number < 600:
                return number
            case str(text) if re.fullmatch("[45][0-9][0-9]", text):  # row E9
                return int(text)
    return next((status for status in _WORDS if status in said), None)


def _error(status: int | None, fields: Mapping[str, Any], secrets: Iterable[str]) -> UpstreamError:
    if status in (401, 403):
        return Unauthorized()
    if status == 402:
        return Unpaid()
    text = presentable(_message(fields), secrets)
    if status == 429:
        return RateLimited(text)
    if status is None:
        return UpstreamError(text)
    text = text or f"The upstream service answered with status {status}."
    if status in (408, 409, 425) or status >= 500:  # row H12: what the official SDKs try again
        return UpstreamError(text)
    if status >= 400:
        param = fields.get("param")
        sayable = isinstance(param, str) and re.fullmatch(r"[\w.\[\]-]{1,64}", param)
        return Rejected(text, param=param if sayable else None)
    return Malformed(text)  # row H20: a redirect is no stream
