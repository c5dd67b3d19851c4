"""Errors as HTTP answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from structlog.typing import FilteringBoundLogger

from app.edge.context import RequestContext
from app.edge.dialects import error_forms
from app.edge.error_responses import error_response
from app.errors import (
    Busy,
    Cancelled,
    Disconnected,
    Draining,
    RateExceeded,
    RateLimited,
    Rejected,
    RequestTimeout,
    RequestTooLarge,
    StreamError,
    TooLarge,
    Unauthenticated,
    Unauthorized,
)
from app.events import Failure
from app.meter import Meter


@pytest.fixture
def context(log: FilteringBoundLogger) -> RequestContext:
    return RequestContext("r", "", log, Meter())


def test_body(context: RequestContext) -> None:
    """An error is one object, the same for an exception and for the record that was made of it."""
    error = Disconnected("Cut.", param="model")
    answers = [error_response(each, context) for each in (error, Failure.of(error))]
    assert answers[0].body == answers[1].body
    assert json.loads(bytes(answers[0].body)) == {
        "error": {
            "message": "Cut.",
            "type": "upstream_error",
            "code": "upstream_disconnected",
            "param": "model",
            "retryable": True,
            "request_id": "r",
        }
    }


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (Cancelled(), {"x-should-retry": "false"}),
        (Disconnected(), {"x-should-retry": "true"}),
        (Unauthorized(), {"x-should-retry": "false"}),
        (RateLimited(), {"x-should-retry": "true", "retry-after": "1"}),
        (RateLimited(retry_after=60), {"x-should-retry": "true", "retry-after": "60"}),
        (Busy(), {"x-should-retry": "true", "retry-after": "1"}),
        (Draining(), {"x-should-retry": "true", "retry-after": "1"}),
        (RequestTooLarge(), {"x-should-retry": "false"}),
        (RateExceeded(retry_after=0.1), {"x-should-retry": "true", "retry-after": "1"}),
        (RateExceeded(retry_after=1.1), {"x-should-retry": "true", "retry-after": "2"}),
        (Unauthenticated(), {"x-should-retry": "false", "www-authenticate": "Bearer"}),
        (TooLarge(), {"x-should-retry": "false", "connection": "close"}),
        (RequestTimeout(), {"x-should-retry": "true", "connection": "close"}),
    ],
)
def test_headers(context: RequestContext, error: StreamError, headers: dict[str, Any]) -> None:
    """Headers tell a client whether and when to try again, and whether the connection can be used again."""
    answer = error_response(error, context)
    told = {name: value for name, value in answer.headers.items() if name not in ("content-type", "content-length")}
    assert (answer.status_code, told) == (error.status, headers)


@pytest.mark.parametrize(("wait", "headers"), [(None, {}), (2, {"retry-after": "2"})])
def test_what_was_asked_several_times(context: RequestContext, wait: float | None, headers: dict[str, str]) -> None:
    """A client is told not to ask again what this service has asked more than once, though its body is retryable."""
    answer = error_response(Failure.of(RateLimited(retry_after=wait), retried=True), context)
    assert answer.headers["x-should-retry"] == "false"
    assert {name: value for name, value in answer.headers.items() if name == "retry-after"} == headers
    assert json.loads(bytes(answer.body))["error"]["retryable"] is True


def refused() -> Failure:
    error = Rejected("No.", param="n")
    error.told = {"status": 422, "type": None, "code": 7}
    return Failure.of(error)


def test_what_the_upstream_said(context: RequestContext) -> None:
    """OpenAI's dialect has the upstream's status, type and code, and ours beside them; the native one has ours."""
    answer = error_response(refused(), context)
    assert (answer.status_code, json.loads(bytes(answer.body))["error"]["code"]) == (400, "upstream_rejected")
    context.form = error_forms()["/v1/chat/completions"]
    answer = error_response(refused(), context)
    assert answer.status_code == 422
    assert json.loads(bytes(answer.body))["error"] == {
        "message": "No.",
        "type": None,
        "code": 7,
        "param": "n",
        "retryable": False,
        "request_id": "r",
        "service_code": "upstream_rejected",
    }


def test_a_page_shows_a_sentence(context: RequestContext) -> None:
    """In the AI SDK's dialect the body is the sentence, because the SDK throws the body as its error's message."""
    context.form = error_forms()["/v1/ai-sdk/"]
    answer = error_response(refused(), context)
    assert (answer.status_code, bytes(answer.body)) == (400, b"No.")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
