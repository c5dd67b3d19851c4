"""Errors as upstreams tell them: in any of a dozen shapes, as an HTTP response or inside a stream.

Invariant: an upstream's words reach an error's message through `presentable` only. An error about our key, our account
or our base URL carries none of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from itertools import chain
from typing import Any, Final

from app.errors import (
    Busy,
    Conflicting,
    Malformed,
    Misaddressed,
    RateLimited,
    Rejected,
    RequestTooLarge,
    Unauthorized,
    Unpaid,
    UpstreamError,
)
from app.upstream.reading.body import Body, kind_of
from app.upstream.reading.json import parse
from app.upstream.reading.redaction import Presenter, presenter
from app.upstream.reading.subjects import (
    CODES,
    disliked_by,
    first_of,
    is_about_credit,
    is_about_key,
    message_of,
    subject_of,
)

MAX_WAIT: Final = 24 * 60 * 60.0  # seconds
MAX_TOLD: Final = 128  # characters of a `code` or `type` that is passed on
_MOST_ITEMS: Final = 16  # of an object or a list that is passed on

# The HTTP statuses that the words in `code`, `type` and `status` stand for. Any other word means that the upstream
# failed. Where words disagree the first status wins: DeepSeek sends `authentication_error` and `invalid_request_error`
# at once.
_WORDS: Final = {
    401: "invalid_api_key authentication_error unauthorized unauthenticated permission_error permission_denied "
    "invalid_authentication_error invalidapikey",
    402: "payment_required insufficient_credits insufficient_balance billing_hard_limit_reached insufficient_quota "
    "insufficient_user_quota exceeded_current_quota_error billing_not_active billing_error arrearage "
    "budget_exceeded pre_consume_token_quota_failed",
    429: "rate_limit_exceeded rate_limit_error rate_limited too_many_requests resource_exhausted ratelimiterror "
    "throttling_error throttling throttling.ratequota throttling.allocationquota throttling.user",
    413: "request_too_large",
    404: "model_not_found not_found_error notfounderror model_not_available deploymentnotfound unknown_model",
    400: "invalid_request_error context_length_exceeded badrequesterror invalid_prompt invalid_argument "
    "content_policy_violation content_filter unprocessable_entity exceed_context_size_error string_above_max_length "
    "data_inspection_failed datainspectionfailed responsibleaipolicyviolation",
    504: "timeout timeout_error deadline_exceeded",
    503: "overloaded overloaded_error unavailable service_unavailable",
}
_STATUS_OF: Final = {word: status for status, words in _WORDS.items() for word in words.split()}

# Statuses that say that the upstream failed, or was in the way of itself, although they are below 500 (row H12). 424 is
# what TGI and others send when the generation failed, 499 what a proxy sends when its own client is gone.
_FAILED: Final = frozenset({408, 424, 425, 499})
# 498 is Groq's and 529 Anthropic's word for 503 (row H22).
_FULL: Final = frozenset({498, 503, 529})
_ELSEWHERE: Final = frozenset({404, 405, 410})

# What is said where all is well.
_SUCCESS: Final = frozenset(["0", "200", "20000", "none", "null", "ok", "success", "false"])

# What looks like an event stream, and not like a sentence.
_FIELD: Final = re.compile(r"(?m)^(?:data|event|id|retry|error)?:")


_SHOW: Final = presenter(())


def read_error(payload: object, *, certain: bool = False, show: Presenter = _SHOW) -> UpstreamError | None:
    """Return the error that *payload* is, or None if it is none (rows E1–E6, H2).

    *certain* says that it is one, whatever it looks like (row E5). *show* makes the upstream's words fit to be seen.
    """
    fields = _fields(payload, certain)
    if fields is None:
        return None
    cause = _cause(fields)
    status = _status(fields, cause)
    if status in _ELSEWHERE and subject_of(status, cause) is None:
        status = 400  # the address was right, because something answered there
    return _error(status, fields, cause, show)


def read_refusal(status: int, headers: Mapping[str, str], body: bytes, show: Presenter = _SHOW) -> UpstreamError:
    """Return what an HTTP error response means (rows H1–H3, H9, H12). *headers* have lower-case names.

    *show* is that of `read_error`.
    """
    fields = _refusal_fields(body, quotable="event-stream" not in headers.get("content-type", ""))
    # Some send a wrong key as a 400. OpenAI sends a spent quota as a 429, which no waiting heals.
    cause = _cause(fields)
    ours = _statuses(cause) & {401, 402}
    if ours and status == 403 and subject_of(403, cause) is not None:
        ours = set()  # `permission_denied`, and yet about the content or the model
    error = _error(min(ours) if ours else status, fields, cause, show)
    error.retry_after = retry_after(headers)
    return error


def _refusal_fields(body: bytes, quotable: bool) -> Mapping[str, Any]:
    """Return the fields of the error in a body; none if there is no error in it.

    A body may be an event stream, with an answer in it or not (row H28); a JSON object; a page; or a sentence, which is
    told if it is *quotable*. Nothing of an answer is.
    """
    with suppress(ValueError):
        return _fields_of_whole(parse(body))
    text = body.decode("utf-8", "replace")
    if quotable and kind_of(body) == "stream" and not _FIELD.search(text):
        return {"message": text}
    with suppress(Malformed):
        reader = Body()
        for name, value, _ in chain(reader.feed(body), reader.end()):
            fields = _fields(value, certain=name == b"error")
            if fields is not None:
                return fields
    return {}


def _fields_of_whole(payload: object) -> Mapping[str, Any]:
    """Return the fields of the error that *payload* is; none if it is an answer."""
    if isinstance(payload, dict) and payload.get("choices") and not payload.get("error"):
        return {}
    return _fields(payload, certain=True) or {}


def _cause(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return *fields* with those of the error behind it over them: OpenRouter has the provider's as `raw` (row H32)."""
    metadata = fields.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if isinstance(raw, str):
        behind = _refusal_fields(raw.encode(errors="replace"), quotable=True)
    else:
        behind = _fields_of_whole(raw) if isinstance(raw, (dict, list)) else {}
    message = message_of(behind) or message_of(fields)
    return {**fields, **{name: value for name, value in behind.items() if value is not None}, "message": message}


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
            return inner | payload | {name: value for name, value in inner.items() if value is not None}
        if isinstance(inner, str):
            return payload | {"message": inner}  # row E2
        return payload if certain or inner is not None or _is_flat_error(payload) else None
    if isinstance(payload, list):  # row H2: Gemini wraps its errors in a list
        for item in payload:
            fields = _fields(item, certain=False) if isinstance(item, dict) else None
            if fields is not None:
                return fields
    return {"message": payload} if certain else None  # row F27


def _inner(payload: Mapping[str, Any]) -> Any:
    """Return the error that is in *payload*; None if there is none, or one in which everything is empty (E12, E16)."""
    groq = payload.get("x_groq")  # row E15
    for place in (payload, groq if isinstance(groq, dict) else {}):
        for name in ("error", "errors", "fault"):
            inner = place.get(name)
            if isinstance(inner, list):
                inner = next((item for item in inner if _says_something(item)), None)
            if _says_something(inner):
                return inner
    base = payload.get("base_resp")
    if isinstance(base, dict) and _says_something(base.get("status_code")):
        return base
    return None


def _says_something(error: object) -> bool:
    """Return whether *error* is more than what a struct has that was never filled, or that says that all is well."""
    if isinstance(error, dict):
        return any(_says_something(value) for value in error.values())
    return bool(error) and _word(error) not in _SUCCESS


def _word(value: object) -> str:
    """Return a word or a number as a text in lower case; "" for anything else."""
    if isinstance(value, str) and len(value) <= MAX_TOLD:
        return value.lower().rstrip(".!")
    return str(value) if type(value) is int and abs(value) < 1 << 31 else ""


def _is_flat_error(payload: Mapping[str, Any]) -> bool:
    if payload.get("choices"):  # row E3
        return False
    detail = payload.get("detail")
    if not isinstance(detail, (str, list)):
        detail = message_of({"detail": detail})
    if detail or "error" in (_word(payload.get("object")), _word(payload.get("type"))):
        return True
    if _says_something(payload.get("error_code")):
        return True
    return _says_something(message_of(payload)) and (
        _says_something(_code(payload))
        or payload.get("success") is False
        or any(_failed_status(payload.get(name)) for name in ("status", "statusCode"))
    )


def _failed_status(status: object) -> bool:
    """Return whether *status* is that of a failure: `error`, or a number as HTTP has it."""
    return re.fullmatch("error|failed|[45][0-9][0-9]", _word(status)) is not None


def _code(fields: Mapping[str, Any]) -> Any:
    return first_of(fields, "code", "Code", "error_code", "errcode", "err_code", "errorCode", "status_code")


def _statuses(fields: Mapping[str, Any]) -> set[int]:
    words = (fields.get(name) for name in CODES)
    found = (_STATUS_OF.get(word.lower()) for word in words if isinstance(word, str))
    return {status for status in found if status is not None}


def _status(fields: Mapping[str, Any], cause: Mapping[str, Any]) -> int | None:
    said = _statuses(cause)
    ours = said & {401, 402}
    if ours:  # not the client's fault, whatever else is said
        return min(ours)
    for name in ("code", "status", "http_status_code", "status_code", "statusCode", "error_code"):
        match fields.get(name):
            case bool():
                continue
            case int(number) if 400 <= number < 600:
                return number
            case str(text) if re.fullmatch("[45][0-9][0-9]", text):  # row E9
                return int(text)
    return next((status for status in _WORDS if status in said), None)


def _error(status: int | None, fields: Mapping[str, Any], cause: Mapping[str, Any], show: Presenter) -> UpstreamError:
    error = _kind(status, cause)(_text(status, cause, show))
    error.disliked = disliked_by(cause)
    if isinstance(error, (Rejected, Conflicting, RateLimited, Busy)):
        param = cause.get("param")
        if isinstance(param, str) and re.fullmatch(r"[\w.\[\]-]{1,64}", param):
            error.param = param
        error.told = {
            "status": status or error.status,
            "type": _told(fields.get("type")),
            "code": _told(fields.get("code")),
        }
        if more := _report(fields, show):
            error.told["more"] = more
    return error


def _text(status: int | None, fields: Mapping[str, Any], show: Presenter) -> str | None:
    text = show(message_of(fields))
    if text or status is None or status == 429:
        return text
    return f"The upstream service answered with status {status}."


def _kind(status: int | None, fields: Mapping[str, Any]) -> Callable[[str | None], UpstreamError]:
    """Return the class of an error, or a function in its place that leaves out the upstream's words."""
    if status == 401 or (status in (None, 400, 403) and is_about_key(fields)):
        return lambda _: Unauthorized()
    if status == 402 or ((status is None or status < 500) and is_about_credit(fields)):
        return lambda _: Unpaid()
    if status is None:
        return subject_of(400, fields) or UpstreamError
    if status == 429:
        return RateLimited
    if status in _FULL:
        return Busy
    if status == 409:
        return Conflicting
    if status in _FAILED or status >= 500:  # row H12: what the official SDKs try again
        return UpstreamError
    if status < 400:  # row H20: a redirect that is not followed leads to where the upstream is
        return lambda _: Misaddressed()
    subject = subject_of(status, fields)
    if subject is not None:
        return subject
    if status == 403:
        return lambda _: Unauthorized()
    if status in _ELSEWHERE:
        return lambda _: Misaddressed()
    return RequestTooLarge if status == 413 else Rejected


def _report(fields: Mapping[str, Any], show: Presenter) -> dict[str, Any]:
    """Return what else clients go by: Azure's report on the content, and OpenRouter's on it or on the provider."""
    return {name: _shown(fields[name], show) for name in ("innererror", "metadata") if fields.get(name)}


def _shown(value: object, show: Presenter, depth: int = 4) -> Any:
    """Return *value* as a client may see it: bounded, and its texts as `presentable` has them."""
    if isinstance(value, str):
        return show(value)
    if isinstance(value, dict) and depth:
        items = list(value.items())[:_MOST_ITEMS]
        return {name[:MAX_TOLD]: _shown(item, show, depth - 1) for name, item in items}
    if isinstance(value, list) and depth:
        return [_shown(item, show, depth - 1) for item in value[:_MOST_ITEMS]]
    return value if isinstance(value, (bool, float)) or (type(value) is int and abs(value) < 1 << 53) else None


def _told(value: object) -> str | int | None:
    """Return the upstream's own `type` or `code` for clients of its dialect; None if it has none, or none fit.

    Ours do not take its place: LiteLLM, for one, looks for words such as `invalid_request_error` anywhere in an error.
    """
    if isinstance(value, str) and len(value) <= MAX_TOLD and value.isprintable():
        return value
    return value if type(value) is int and abs(value) < 1 << 31 else None
