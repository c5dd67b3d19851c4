"""Errors in every shape that upstreams have been seen to send."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import (
    Malformed,
    RateLimited,
    Rejected,
    StreamError,
    Unauthorized,
    Unpaid,
    UpstreamError,
)
from app.upstream.reading.errors import read_error, read_refusal, retry_after
from app.upstream.reading.redaction import MAX_MESSAGE
from tests.upstream.reading.quirks_bytes import dumps

ENVELOPES: list[tuple[str, object, type[StreamError], str]] = [
    ("H2-xai", {"error": "no such thing", "code": "some_code"}, UpstreamError, "no such thing"),
    ("H2-tgi", {"error": "Model is overloaded", "error_type": "overloaded"}, UpstreamError, "Model is overloaded"),
    (
        "H2-vllm",
        {"object": "error", "message": "too long", "type": "BadRequestError", "code": 400},
        Rejected,
        "too long",
    ),
    ("H2-fastapi", {"detail": "Method Not Allowed"}, UpstreamError, "Method Not Allowed"),
    (
        "H2-fastapi-list",
        {"detail": [{"loc": ["body", "n"], "msg": "bad", "input": "PROMPT"}]},
        UpstreamError,
        "body.n: bad",
    ),
    ("H2-gemini", [{"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}}], RateLimited, "slow"),
    ("H2-success", {"success": False, "error": {"message": "no", "code": None}}, UpstreamError, "no"),
    (
        "H2-lm-studio",
        {"error": {"message": "Compute error."}, "message": "Compute error."},
        UpstreamError,
        "Compute error.",
    ),
    ("E1", {"error": {"message": "no", "type": "server_error", "code": 500}}, UpstreamError, "no"),
    ("E2", {"error": "STREAM_EXPLODED"}, UpstreamError, "STREAM_EXPLODED"),
    ("E2-true", {"error": True}, UpstreamError, UpstreamError.message),
    ("E2-empty-object", {"error": {"code": 429}}, RateLimited, RateLimited.message),
    ("E3", {"message": "no", "code": 422}, Rejected, "no"),
    ("E6", {"error": {"message": "no", "http_status_code": 422}}, Rejected, "no"),
    ("E9", {"error": {"message": "no", "code": "503"}}, UpstreamError, "no"),
    (
        "R3-flat",
        {"type": "error", "code": "rate_limit_exceeded", "message": "slow", "sequence_number": 1},
        RateLimited,
        "slow",
    ),
    ("R3-nested", {"type": "error", "error": {"type": "server_error", "message": "pay"}}, UpstreamError, "pay"),
    ("quota", {"error": {"type": "insufficient_quota", "message": "pay"}}, Unpaid, Unpaid.message),
    ("auth-code", {"error": {"message": "key sk-1", "code": "invalid_api_key"}}, Unauthorized, Unauthorized.message),
    ("auth-status", {"error": {"message": "key sk-1", "code": 403}}, Unauthorized, Unauthorized.message),
    (
        "auth-deepseek",
        {"error": {"message": "x", "type": "authentication_error", "code": "invalid_request_error"}},
        Unauthorized,
        Unauthorized.message,
    ),
    ("context", {"error": {"message": "too long", "code": "context_length_exceeded"}}, Rejected, "too long"),
    ("credit", {"error": {"message": "buy more", "code": 402}}, Unpaid, Unpaid.message),
    ("other-number", {"error": {"message": "no", "code": 1301}}, UpstreamError, "no"),
    ("bool-code", {"error": {"message": "no", "code": True}}, UpstreamError, "no"),
    (
        "odd-types",
        {"error": {"message": ["x"], "code": {}, "type": [], "status": 4.5}},
        UpstreamError,
        UpstreamError.message,
    ),
    (
        "odd-detail",
        {"detail": [{"loc": 3, "msg": "x"}, 4, {"loc": [1], "msg": None}]},
        UpstreamError,
        UpstreamError.message,
    ),
]


@pytest.mark.parametrize(("payload", "kind", "said"), [row[1:] for row in ENVELOPES], ids=[row[0] for row in ENVELOPES])
def test_envelope(payload: object, kind: type[StreamError], said: str) -> None:
    """Every shape of error seen gives its class and its message."""
    error = read_error(payload)
    assert type(error) is kind
    assert error is not None
    assert error.text == said


@pytest.mark.parametrize(
    "payload",
    [
        {"choices": []},
        {"choices": [], "error": None},
        {"error": {}, "id": "x"},
        {"error": ""},
        {"id": "c"},
        {"message": "ok", "code": 200},
        {"message": "ok", "code": 0},
        {"message": "only"},
        {"choices": [{}], "message": "x", "code": 5},
        [],
        [{"a": 1}],
        [[{"error": "deeper"}]],
        None,
        "error",
        3,
    ],
)
def test_no_error(payload: object) -> None:
    """What only looks a little like an error is none (E12); unless it is known to be one (E5)."""
    assert read_error(payload) is None
    assert isinstance(read_error(payload, certain=True), UpstreamError)


REFUSALS: list[tuple[int, bytes, type[StreamError], bool, str]] = [
    (
        401,
        b'{"error":{"message":"Incorrect API key provided: sk-12345678"}}',
        Unauthorized,
        False,
        Unauthorized.message,
    ),
    (403, b'{"error":{"message":"moderation"}}', Unauthorized, False, Unauthorized.message),
    (400, b'{"error":{"message":"who?","code":"invalid_api_key"}}', Unauthorized, False, Unauthorized.message),
    (402, b'{"error":{"message":"buy more"}}', Unpaid, False, Unpaid.message),
    (429, b'{"error":{"message":"buy more","code":"insufficient_quota"}}', Unpaid, False, Unpaid.message),
    (429, b'{"error":{"message":"slow down"}}', RateLimited, True, "slow down"),
    (429, b"", RateLimited, True, RateLimited.message),
    *(
        (status, b'{"error":{"message":"bad","param":"n"}}', Rejected, False, "bad")
        for status in (400, 404, 405, 413, 415, 422)
    ),
    (
        422,
        b'{"detail":[{"loc":["body","stream_options"],"msg":"Extra inputs"}]}',
        Rejected,
        False,
        "body.stream_options: Extra inputs",
    ),
    *((status, b'{"error":"late"}', UpstreamError, True, "late") for status in (408, 409, 500, 502, 503, 504, 529)),
    (
        502,
        b"<html><head><title>502 Bad Gateway</title></head>",
        UpstreamError,
        True,
        "The upstream service answered with status 502.",
    ),
    (404, b"404 page not found\n", Rejected, False, "404 page not found"),
    (500, b"", UpstreamError, True, "The upstream service answered with status 500."),
    (500, b"null", UpstreamError, True, "The upstream service answered with status 500."),
    (500, b"[" * 99999, UpstreamError, True, "The upstream service answered with status 500."),
    (500, b'{"message":"Compute error."}', UpstreamError, True, "Compute error."),
    (307, b"", Malformed, False, "The upstream service answered with status 307."),
]


@pytest.mark.parametrize(("status", "body", "kind", "retryable", "said"), REFUSALS)
def test_read_refusal(status: int, body: bytes, kind: type[StreamError], retryable: bool, said: str) -> None:
    """An error response becomes the error of its status, with the upstream's words only if they concern the client."""
    error = read_refusal(status, {}, body)
    assert (type(error), error.retryable, error.text) == (kind, retryable, said)
    if b"param" in body:
        assert error.param == "n"


def test_refusal_has_the_wait() -> None:
    """The wait that the upstream asks for is passed on."""
    assert read_refusal(429, {"retry-after": "7"}, b"").retry_after == 7


NOW = 1_695_999_987.0  # Fri, 29 Sep 2023 15:06:27 GMT
WAITS: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"retry-after": "60"}, 60),
    ({"retry-after": "61"}, 61),
    ({"retry-after": "120"}, 120),
    ({"retry-after": "121"}, 121),
    ({"retry-after": "0.5"}, 0.5),
    ({"retry-after": " 7 "}, 7),
    ({"retry-after": "0"}, None),
    ({"retry-after": "-10"}, None),
    ({"retry-after": "86400"}, 86400),
    ({"retry-after": "86401"}, None),
    ({"retry-after": "9" * 35}, None),
    ({"retry-after": "9" * 9999}, None),
    ({"retry-after": "1e3"}, None),
    ({"retry-after": "1_0"}, None),
    ({"retry-after": "٣"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, None),
    ({"retry-after": ""}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": "Fri, 29 Sep 2023 15:06:37 GMT"}, 10),
    ({"retry-after": "Fri, 29 Sep 2023 15:06:37 -0000"}, 10),
    ({"retry-after": "Fri, 29 Sep 2023 15:06:27 GMT"}, None),
    ({"retry-after": "Fri, 29 Sep 2023 15:06:17 GMT"}, None),
    ({"retry-after": "Zun, 32 Sep 2023 15:06:17 GMT"}, None),
    ({"retry-after": "Fri, 29 Sep 100000 15:06:17 GMT"}, None),
    ({"retry-after": "Fri, 29 Sep 9999 15:06:17 GMT"}, None),
    ({"retry-after-ms": "350"}, 0.35),
    ({"retry-after-ms": "350", "retry-after": "7"}, 0.35),
    ({"retry-after-ms": "-1", "retry-after": "7"}, 7),
    ({"retry-after-ms": "Fri, 29 Sep 2023 15:06:37 GMT"}, None),
    ({"x-ratelimit-limit-tokens": "-1", "x-ratelimit-reset-tokens": "0"}, None),
]


@pytest.mark.parametrize(("headers", "wait"), WAITS)
def test_retry_after(headers: dict[str, str], wait: float | None) -> None:
    """Milliseconds, then seconds, then a date; nonsense counts as nothing (rows H9, H10)."""
    assert retry_after(headers, NOW) == wait


@given(
    st.one_of(
        st.text(), st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{1,9} ([+-][0-9]{4}|GMT)")
    )
)
def test_retry_after_never_raises(value: str) -> None:
    """Whatever the header says."""
    wait = retry_after({"retry-after": value, "retry-after-ms": value})
    assert wait is None or 0 < wait <= 86400


NAMES = st.sampled_from(
    ["error", "message", "detail", "code", "type", "status", "choices", "loc", "msg", "param", "object"]
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
)


@given(JSON)
def test_any_payload_is_judged(payload: Any) -> None:
    """No payload makes the reader raise, and no message is over the bound or unfit to be sent."""
    error = read_error(payload, certain=True)
    assert error is not None
    assert len(error.text.encode()) <= 4 * MAX_MESSAGE
    assert isinstance(read_refusal(400, {}, dumps(payload)), UpstreamError)


def test_echoed_prompt_is_taken_out_before_the_cut() -> None:
    """A prompt longer than any message is recognised all the same."""
    prompt = "word " * 400
    error = read_refusal(400, {}, dumps({"error": {"message": f"Invalid: {prompt} (too long)"}}), [prompt])
    assert error.text == "Invalid: [redacted] (too long)"
