"""What is known about one request."""

from __future__ import annotations

import pytest
from starlette.types import Scope
from structlog.typing import FilteringBoundLogger

from app.edge.context import RequestContext, request_context
from app.meter import Meter
from app.wire import native


@pytest.fixture
def context(log: FilteringBoundLogger) -> RequestContext:
    return RequestContext("r", "", log, Meter())


def test_found(context: RequestContext) -> None:
    """All who see the request's scope, or a copy of it, see one and the same context."""
    scope: Scope = {"type": "http"}
    context.put_into(scope)
    assert request_context(scope) is context
    assert request_context(dict(scope)) is context
    with pytest.raises(KeyError):
        request_context({"type": "http"})


def test_nobody_yet(context: RequestContext) -> None:
    """Before the access control there is no principal, and none is made up; nothing is added."""
    with pytest.raises(AttributeError):
        _ = context.principal
    assert (context.headers, context.place) == ({}, None)


def test_form_of_errors(context: RequestContext) -> None:
    """Unless a path has a form of its own, errors have that of the native API."""
    assert context.form is native.refusal
