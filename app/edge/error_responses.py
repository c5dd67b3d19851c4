"""What a client gets in place of a stream: an HTTP status and one body, whichever layer raised the error.

The body has the form of the dialect whose endpoint was asked: nearly always JSON.

`failed`, `unrouted` and `crashed` answer for what endpoints raise, `refuse` for what the layers around them raise.
"""

from __future__ import annotations

import math

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.edge.context import RequestContext, request_context
from app.edge.wrong_paths import sentence_about
from app.errors import (
    BadRequest,
    ForeignHost,
    ForeignOrigin,
    InternalError,
    MethodNotAllowed,
    RequestTimeout,
    StreamError,
    TooLarge,
    Unauthenticated,
    UnknownPath,
)
from app.events import Failure
from app.wire import native

# Event streams have this in place of the `no-store` of other answers: a proxy that compresses a stream delays it.
UNTRANSFORMED = {"Cache-Control": "no-store, no-transform"}

# The `Retry-After` of a 429 or 503 that says nothing else, in seconds.
_USUAL_WAIT = 1.0
_HUNG_UP = 499  # nginx's status for a client that is gone; it is logged and never sent


async def refuse(error: StreamError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for *error*, and count it."""
    await _refusal(error, Request(scope))(scope, receive, send)


async def failed(request: Request, error: Exception) -> Response:
    """Answer for a StreamError, and count it."""
    assert isinstance(error, StreamError)  # noqa: S101 - the router calls it for nothing else
    return _refusal(error, request)


def _refusal(error: StreamError, request: Request) -> Response:
    context = request_context(request.scope)
    if isinstance(error, (ForeignHost, ForeignOrigin)):
        # A page cannot read this answer, least of all one to a preflight, so the log has to say what is wrong.
        context.log.warning("request.refused", code=error.code, why=error.text)
    else:
        context.log.info("request.refused", code=error.code)
    context.meter.refused[error.code] += 1
    if error.status in (429, 503) and request.method == "GET" and _is_event_source(request):
        # An EventSource gives up for good at any status but 200. It comes back if it is sent `retry:` under a 200, and
        # without the blank line after it, no client library takes that line for an event.
        retry = b"retry: %d\n" % (_seconds(error.retry_after or 1) * 1000)
        return Response(retry, headers=UNTRANSFORMED, media_type="text/event-stream")
    return error_response(error, context)


def _is_event_source(request: Request) -> bool:
    dialect = request.query_params.get("dialect", native.NAME)
    reads = request.url.path.startswith("/v1/streams/") and dialect == native.NAME
    return reads and "text/event-stream" in request.headers.get("accept", "")


async def crashed(request: Request, error: Exception) -> Response:
    """Answer for an exception that is a fault of ours. A client that hung up is none, and reads no answer any more."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=_HUNG_UP)
    context = request_context(request.scope)
    context.meter.refused[InternalError.code] += 1
    return error_response(InternalError(), context)


async def unrouted(request: Request, error: Exception) -> Response:
    """Answer for a wrong path or method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - the router calls it for nothing else
    kind = {404: UnknownPath, 405: MethodNotAllowed}.get(error.status_code, BadRequest)
    context = request_context(request.scope)
    context.meter.refused[kind.code] += 1
    instead = sentence_about(request.scope["path"]) if kind is UnknownPath else None
    response = error_response(kind(instead), context)
    response.headers.update(error.headers or {})  # `Allow`
    return response


def error_response(error: StreamError | Failure, context: RequestContext) -> Response:
    """Render an error as an HTTP answer."""
    failure = Failure.of(error) if isinstance(error, StreamError) else error
    answer = context.form(failure, context.request_id)
    # OpenAI's SDKs go by the status unless they are told. They would repeat a 409 or a 502 that is final, and what this
    # service has asked several times already: three tries of theirs with three of ours each are nine.
    again = failure.retryable and not failure.retried
    headers = {"X-Should-Retry": "true" if again else "false"}
    wait = failure.retry_after
    if wait is None and again and failure.status in (429, 503):
        wait = _USUAL_WAIT
    if wait is not None:
        headers["Retry-After"] = str(_seconds(wait))
    if failure.code == Unauthenticated.code:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, (RequestTimeout, TooLarge)):  # the rest of the body is still to come, and is not read
        headers["Connection"] = "close"
    return Response(answer.body, answer.status, headers, media_type=answer.media_type)


def _seconds(wait: float) -> int:
    return max(1, math.ceil(wait))
