"""What a client gets instead of a stream: one JSON body, whoever raised the error.

`failed`, `unrouted` and `crashed` answer for what endpoints raise; `refuse` for the layers around them.
"""

from __future__ import annotations

import math
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.errors import BadRequest, InternalError, MethodNotAllowed, StreamError, Unauthenticated, UnknownPath
from app.events import Failure

_HUNG_UP = 499  # nginx's word for it; it is sent to nobody


async def refuse(error: StreamError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for *error*, and count it."""
    await _refusal(error, Request(scope))(scope, receive, send)


async def failed(request: Request, error: Exception) -> Response:
    """Answer for a StreamError, and count it."""
    assert isinstance(error, StreamError)  # noqa: S101 - the router calls it for nothing else
    return _refusal(error, request)


def _refusal(error: StreamError, request: Request) -> Response:
    state = request.state
    state.log.info("request.refused", code=error.code)
    state.meter.refused[error.code] += 1
    if error.status in (429, 503) and request.method == "GET" and _is_event_source(request):
        # To an EventSource every other status is final. So it is told when to come back, and comes back: a line without
        # the blank one after it is no event to any client library.
        retry = b"retry: %d\n" % (_seconds(error.retry_after or 1) * 1000)
        headers = {"Cache-Control": "no-store, no-transform", "X-Content-Type-Options": "nosniff"}
        return Response(retry, headers=headers, media_type="text/event-stream")
    return error_response(error, state.request_id)


def _is_event_source(request: Request) -> bool:
    reads = request.url.path.startswith("/v1/streams/") and request.query_params.get("dialect", "events") == "events"
    return reads and "text/event-stream" in request.headers.get("accept", "")


async def crashed(request: Request, error: Exception) -> Response:
    """Answer for an exception nobody expected; a client that hung up is none, and gets no answer any more."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=_HUNG_UP)
    request.state.meter.refused[InternalError.code] += 1
    return error_response(InternalError(), request.state.request_id)


async def unrouted(request: Request, error: Exception) -> Response:
    """Answer for a wrong path or method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - the router calls it for nothing else
    kind = {404: UnknownPath, 405: MethodNotAllowed}.get(error.status_code, BadRequest)
    request.state.meter.refused[kind.code] += 1
    response = error_response(kind(), request.state.request_id)
    response.headers.update(error.headers or {})  # `Allow`
    return response


def error_response(error: StreamError | Failure, request_id: str) -> Response:
    """Render an error as an HTTP answer."""
    message = error.text if isinstance(error, StreamError) else error.message
    content = {
        "message": message,
        "type": error.type,
        "code": error.code,
        "param": error.param,
        "retryable": error.retryable,
        "request_id": request_id,
    }
    # OpenAI's SDKs go by the status unless they are told, and would repeat a 409 or a 502 that is final.
    headers = {"X-Should-Retry": "true" if error.retryable else "false"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(_seconds(error.retry_after))
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if error.status in (408, 413):  # the rest of the body is still to come, and not worth reading
        headers["Connection"] = "close"
    return _json({"error": content}, error.status, headers)


def _seconds(wait: float) -> int:
    return max(1, math.ceil(wait))


def _json(content: dict[str, Any], status: int, headers: dict[str, str]) -> Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **headers}
    return Response(orjson.dumps(content), status, headers, media_type="application/json")
