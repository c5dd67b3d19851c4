"""Errors as HTTP answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from structlog.typing import FilteringBoundLogger

from app.edge.context import RequestContext
from app.edge.error_responses import error_response
from app.errors import Cancelled, Disconnected, RateExceeded, RequestTimeout, StreamError, TooLarge, Unauthenticated
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
