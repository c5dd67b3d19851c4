"""Errors in every shape that upstreams have been seen to send."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import (
    Busy,
    Conflicting,
    ContentRefused,
    ContextTooLong,
    Misaddressed,
    ModelUnknown,
    RateLimited,
    Rejected,
    RequestTooLarge,
    StreamError,
    Unauthorized,
    Unpaid,
    UpstreamError,
)
from app.upstream.reading.errors import read_error, read_refusal, retry_after
from app.upstream.reading.redaction import MAX_MESSAGE, presenter
from tests.upstream.reading.quirks_bytes import dumps

ENVELOPES: list[tuple[str, object, type[StreamError], str]] = [
    ("H2-xai", {"error": "no such thing", "code": "some_code"}, UpstreamError, "no such thing"),
    ("H2-tgi", {"error": "Model is overloaded", "error_type": "overloaded"}, Busy, "Model is overloaded"),
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
    (
        "H2-mistral",
        {"object": "error", "message": {"detail": [{"loc": ["body", "n"], "msg": "bad", "input": "PROMPT"}]}},
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
    ("E2-true-beside", {"error": True, "message": "overloaded", "code": 503}, Busy, "overloaded"),
    ("E2-empty-object", {"error": {"code": 429}}, RateLimited, RateLimited.message),
    ("E3", {"message": "no", "code": 422}, Rejected, "no"),
    ("E6", {"error": {"message": "no", "http_status_code": 422}}, Rejected, "no"),
    ("E9", {"error": {"message": "no", "code": "503"}}, Busy, "no"),
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
    ("context", {"error": {"message": "too long", "code": "context_length_exceeded"}}, ContextTooLong, "too long"),
    ("elsewhere", {"error": {"message": "no such thing", "code": 404}}, Rejected, "no such thing"),
    ("no-key", {"error": "Invalid API key: abc"}, Unauthorized, Unauthorized.message),
    ("credit", {"error": {"message": "buy more", "code": 402}}, Unpaid, Unpaid.message),
    ("credit-message", {"error": "Budget has been exceeded! Current cost: 2"}, Unpaid, Unpaid.message),
    (
        "content-xai",
        {"code": "The caller does not have permission", "error": "Content violates usage guidelines. Team: 1b2c, ok"},
        ContentRefused,
        "Content violates usage guidelines. [redacted], ok",
    ),
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
        {"choices": [], "detail": {"latency": 3}},
        {"error": {"code": 200, "message": "OK"}},
        {"error": "none"},
        {"choices": [], "detail": 3, "object": {"a": 1}, "message": "x", "status": [500], "statusCode": True},
        {"message": "Success!", "code": "Success"},
        {"message": "still running", "status": "ok"},
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
    (403, b'{"error":{"message":"not here"}}', Unauthorized, False, Unauthorized.message),
    (403, b"<html>", Unauthorized, False, Unauthorized.message),
    (400, b'{"error":{"message":"who?","code":"invalid_api_key"}}', Unauthorized, False, Unauthorized.message),
    (402, b'{"error":{"message":"buy more"}}', Unpaid, False, Unpaid.message),
    (429, b'{"error":{"message":"buy more","code":"insufficient_quota"}}', Unpaid, False, Unpaid.message),
    (429, b'{"error":{"message":"slow down"}}', RateLimited, True, "slow down"),
    (429, b"", RateLimited, True, RateLimited.message),
    *(
        (status, b'{"error":{"message":"bad","param":"n"}}', Rejected, False, "bad")
        for status in (400, 404, 415, 422, 451)
    ),
    (413, b'{"error":{"message":"bad","param":"n"}}', RequestTooLarge, False, "bad"),
    (405, b'{"error":{"message":"bad"}}', Misaddressed, False, Misaddressed.message),
    (
        422,
        b'{"detail":[{"loc":["body","stream_options"],"msg":"Extra inputs"}]}',
        Rejected,
        False,
        "body.stream_options: Extra inputs",
    ),
    (
        422,
        b'{"message":{"detail":[{"loc":["body","max_completion_tokens"],"msg":"Extra inputs","input":3}]}}',
        Rejected,
        False,
        "body.max_completion_tokens: Extra inputs",
    ),
    *(
        (status, b'{"error":"late"}', UpstreamError, True, "late")
        for status in (408, 424, 425, 499, 500, 501, 502, 504, 520, 524)
    ),
    *((status, b'{"error":"late"}', Busy, True, "late") for status in (498, 503, 529)),
    (409, b'{"error":"late"}', Conflicting, True, "late"),
    (
        502,
        b"<html><head><title>502 Bad Gateway</title></head>",
        UpstreamError,
        True,
        "The upstream service answered with status 502.",
    ),
    (404, b"404 page not found\n", Misaddressed, False, Misaddressed.message),
    (400, b"bad words\n", Rejected, False, "bad words"),
    (500, b"", UpstreamError, True, "The upstream service answered with status 500."),
    (500, b"null", UpstreamError, True, "The upstream service answered with status 500."),
    (500, b"[" * 99999, UpstreamError, True, "The upstream service answered with status 500."),
    (500, b'{"message":"Compute error."}', UpstreamError, True, "Compute error."),
    (302, b"moved", Misaddressed, False, Misaddressed.message),
]


@pytest.mark.parametrize(("status", "body", "kind", "retryable", "said"), REFUSALS)
def test_read_refusal(status: int, body: bytes, kind: type[StreamError], retryable: bool, said: str) -> None:
    """An error response becomes the error of its status, with the upstream's words only if they concern the client."""
    error = read_refusal(status, {}, body)
    assert (type(error), error.retryable, error.text) == (kind, retryable, said)
    if b"param" in body:
        assert error.param == "n"


# Errors about the request, of which `subject_of` knows the subjects, and about what is ours.
SUBJECTS: list[tuple[int, dict[str, Any], type[UpstreamError]]] = [
    (404, {"message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404}, ModelUnknown),
    (403, {"message": "Input was refused", "code": 403, "metadata": {"reasons": ["violence"]}}, ContentRefused),
    (413, {"message": "Please reduce the length of the messages or completion."}, ContextTooLong),
    (400, {"message": "This model does not support image inputs."}, Rejected),
    (404, {"message": "Item with id 'rs_1' not found.", "param": "input"}, Rejected),
    # ours
    (400, {"message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"}, Unauthorized),
    (403, {"message": "Country, region, or territory not supported", "code": "unsupported_country"}, Unauthorized),
    (403, {"message": "Your account was flagged. Talk to us."}, Unauthorized),
    (400, {"message": "Your credit balance is too low to use the API."}, Unpaid),
    (403, {"message": "no", "code": "insufficient_user_quota"}, Unpaid),
    (403, {"message": "no", "code": "pre_consume_token_quota_failed"}, Unpaid),
    (403, {"message": "Sorry, your account balance is insufficient", "code": 30001}, Unpaid),
    (429, {"message": "no", "type": "budget_exceeded", "code": "429"}, Unpaid),
    (412, {"message": "Account a-1 is suspended, possibly due to reaching the spending limit"}, Unpaid),
    (429, {"message": "no", "type": "exceeded_current_quota_error"}, Unpaid),
    (400, {"message": "overdue", "code": "Arrearage"}, Unpaid),
    (
        429,
        {"message": "You exceeded your current quota. Please retry in 37 s.", "status": "RESOURCE_EXHAUSTED"},
        RateLimited,
    ),
    (404, {"message": "Resource not found", "code": "404"}, Misaddressed),
    (404, {"message": "Invalid URL (POST /v1/models/chat/completions)", "param": None}, Misaddressed),
    (404, {"message": "Cannot POST /model/chat/completions"}, Misaddressed),
    (405, {"message": "Method Not Allowed"}, Misaddressed),
]


@pytest.mark.parametrize(("status", "error", "kind"), SUBJECTS)
def test_what_an_error_is_about(status: int, error: dict[str, Any], kind: type[UpstreamError]) -> None:
    """The model, the content and the length have errors of their own; our key, credit and base URL are ours."""
    told = read_refusal(status, {}, dumps({"error": error}))
    assert type(told) is kind
    if issubclass(kind, Rejected):
        assert told.text == error["message"]
        assert told.told == {
            "status": status,
            "type": error.get("type"),
            "code": error.get("code"),
            **({"more": {"metadata": error["metadata"]}} if "metadata" in error else {}),
        }
    else:
        assert kind is RateLimited or (told.text == kind.message and told.told is None)


@pytest.mark.parametrize(
    ("fields", "type", "code"),
    [
        ({"type": "t", "code": "c"}, "t", "c"),
        ({"type": "t", "code": None}, "t", None),
        ({"code": 400}, None, 400),
        ({}, None, None),
        ({"type": ["t"], "code": {"a": 1}}, None, None),
        ({"type": "t" * 129, "code": "a\nb"}, None, None),
        ({"code": 1 << 40, "type": True}, None, None),
    ],
)
def test_what_the_upstream_calls_it(fields: dict[str, Any], type: str | None, code: str | int | None) -> None:
    """Its `type` and `code` are kept as they are, if they are fit to be passed on; what it does not say is null."""
    error = read_refusal(422, {}, dumps({"error": {"message": "no", **fields}}))
    assert error.told == {"status": 422, "type": type, "code": code}


def test_what_is_said_of_content() -> None:
    """A report on the content is passed on, bounded and without the operator's secrets."""
    said = {
        "message": "no",
        "code": "content_filter",
        "innererror": {"code": "ResponsibleAI", "result": {"hate": {"filtered": True, "severity": 1.5}}},
        "metadata": {"reasons": ["x"] * 99, "flagged_input": "my secret prompt", "n": 10**30, "d": [[[[[1]]]]]},
    }
    error = read_refusal(400, {}, dumps({"error": said}), presenter(["my secret prompt"]))
    assert error.told is not None
    more = error.told["more"]
    assert more["innererror"] == said["innererror"]
    assert more["metadata"] == {"reasons": ["x"] * 16, "flagged_input": "[redacted]", "n": None, "d": [[[None]]]}


RAW: list[tuple[int, object, type[UpstreamError], str]] = [
    (400, '{"error":{"message":"too long","code":"context_length_exceeded"}}', ContextTooLong, "too long"),
    (400, {"error": {"message": "too long", "code": "context_length_exceeded"}}, ContextTooLong, "too long"),
    (400, '[{"error":{"message":"Unknown model","status":"NOT_FOUND"}}]', ModelUnknown, "Unknown model"),
    (400, '{"detail":[{"loc":["body","n"],"msg":"bad"}]}', Rejected, "body.n: bad"),
    (400, "The prompt is too long: 9 tokens", ContextTooLong, "The prompt is too long: 9 tokens"),
    (429, "x is rate-limited; please retry shortly", RateLimited, "x is rate-limited; please retry shortly"),
    (429, '{"error":{"message":"slow down","code":400}}', RateLimited, "slow down"),
    (502, "upstream connect error", UpstreamError, "upstream connect error"),
    # nothing to go by
    (400, "<html><title>no</title>", Rejected, "Provider returned error"),
    (400, '{"choices":[{"message":{"content":"the patient is ill"}}]}', Rejected, "Provider returned error"),
    (400, {"choices": [{"message": {"content": "the patient is ill"}}]}, Rejected, "Provider returned error"),
    (400, "", Rejected, "Provider returned error"),
    (400, 3, Rejected, "Provider returned error"),
    # ours
    (400, '{"error":{"message":"Incorrect API key provided: abc"}}', Unauthorized, Unauthorized.message),
    (429, '{"error":{"message":"pay","code":"insufficient_quota"}}', Unpaid, Unpaid.message),
]


@pytest.mark.parametrize(("status", "raw", "kind", "said"), RAW)
def test_error_behind_an_error(status: int, raw: object, kind: type[UpstreamError], said: str) -> None:
    """What the provider behind a router said tells what the error is, as a status and in a stream (row H32)."""
    metadata = {"raw": raw, "provider_name": "X"}
    error = {"message": "Provider returned error", "code": status, "metadata": metadata}
    refused, streamed = read_refusal(status, {}, dumps({"error": error})), read_error({"error": error})
    assert streamed is not None
    assert (type(refused), refused.text) == (type(streamed), streamed.text) == (kind, said)
    assert refused.told == streamed.told
    if refused.told is not None:
        assert (refused.told["status"], refused.told["code"]) == (status, status)
        assert refused.told["more"]["metadata"]["provider_name"] == "X"


def test_error_behind_an_error_is_redacted() -> None:
    """Its text goes to the client bounded, and without secrets however often they were escaped."""
    secret = 'Never say "X".\nNever.'
    raw = dumps({"error": {"message": "no", "echo": dumps({"m": secret}).decode(), "more": "x" * 999}}).decode()
    error = {"message": "Provider returned error", "metadata": {"raw": raw}}
    told = read_refusal(400, {}, dumps({"error": error}), presenter([secret])).told
    assert told is not None
    shown = told["more"]["metadata"]["raw"]
    assert (len(shown), "Never" in shown) == (MAX_MESSAGE, False)


STREAMED: list[tuple[int, bytes, dict[str, str], type[UpstreamError], str]] = [
    (
        400,
        b'id:1\nevent:error\n:HTTP_STATUS/400\ndata:{"code":"InvalidParameter","message":"Range [1, 6]"}\n\n',
        {},
        Rejected,
        "Range [1, 6]",
    ),
    (429, b'data: {"error":{"message":"pay","code":"insufficient_quota"}}\n\ndata: [DONE]\n\n', {}, Unpaid, ""),
    (
        500,
        b'data: {"choices":[{"delta":{"content":"ill"}}]}\n\ndata: {"error":{"message":"boom"}}\n\n',
        {},
        UpstreamError,
        "boom",
    ),
    (500, b'data: {"choices":[{"delta":{"content":"ill"}}]}\n\ndata: [DONE]\n\n', {}, UpstreamError, ""),
    (500, b'{"choices":[{"message":{"content":"ill"}}]}', {}, UpstreamError, ""),
    (500, b'{"choices":[{"message":{"content":"ill"}}],"error":{"message":"boom"}}', {}, UpstreamError, "boom"),
    (500, b'{"choices":[{"message":{"content":"ill', {}, UpstreamError, ""),
    (500, b"data: the patient is ill\n\n", {}, UpstreamError, ""),
    (500, b"the patient is ill", {"content-type": "text/event-stream; charset=utf-8"}, UpstreamError, ""),
    (400, b'{"error":{"message":"first"}}\n{"more":1}\n', {}, Rejected, "first"),
    (400, b'event: error\ndata: "a sentence"\n\n', {}, Rejected, "a sentence"),
    (400, b'error: {"message":"old","code":400}\n\n', {}, Rejected, "old"),
]


@pytest.mark.parametrize(("status", "body", "headers", "kind", "said"), STREAMED)
def test_error_status_with_a_stream(
    status: int, body: bytes, headers: dict[str, str], kind: type[UpstreamError], said: str
) -> None:
    """The body of a refusal is read as what it is, and nothing of an answer in it is told (row H28)."""
    error = read_refusal(status, headers, body)
    usual = kind.message if kind is Unpaid else f"The upstream service answered with status {status}."
    assert (type(error), error.text) == (kind, said or usual)


def test_disliked() -> None:
    """An error says which of the fields that the service itself sends the upstream does not take (rows H11, H29)."""
    error = {"message": "Your organization must be verified to stream this model.", "param": "stream"}
    assert read_refusal(400, {}, dumps({"error": error})).disliked == {"stream"}
    assert read_refusal(400, {}, dumps({"error": {"message": "no"}})).disliked == frozenset()


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
    error = read_refusal(400, {}, dumps({"error": {"message": f"Invalid: {prompt} (too long)"}}), presenter([prompt]))
    assert error.text == "Invalid: [redacted] (too long)"
