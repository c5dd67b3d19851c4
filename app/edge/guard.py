"""The outermost layer: a request id for everyone, an answer for every error.

Pure ASGI, so that it costs a stream next to nothing. Errors before the first byte are statuses with one JSON body,
whoever raised them. What fails after that was either made a record by the relay, or breaks the connection, which a
client sees as a cut.
"""

from __future__ import annotations

import math
import re
import secrets
from typing import Any

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from app.errors import InternalError, StreamError
from app.model import Failure

_REQUEST_ID = re.compile(r"[A-Za-z0-9._~+/=:-]{1,128}", re.ASCII)


class Guard:
    """Wraps *app*. Puts the request's id and logger into `scope["state"]`, and the id on the answer."""

    def __init__(self, app: ASGIApp, log: FilteringBoundLogger) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        log = self._log.bind(request_id=request_id)
        # *send* as well: once an answer has begun, the layers add nothing to its body, and cost 1.3 µs a piece.
        scope.setdefault("state", {}).update(log=log, request_id=request_id, send=send)

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except ClientDisconnect:
            log.info("request.abandoned")
        except Exception as error:
            # Answered already, by `crashed`; left to the server, the traceback would be logged with all it quotes.
            log.error("request.crashed", error=type(error).__name__)


async def failed(request: Request, error: Exception) -> Response:
    """Answer for a StreamError."""
    assert isinstance(error, StreamError)  # noqa: S101 - the router calls it for nothing else
    request.state.log.info("request.refused", code=error.code)
    return error_response(error, request.state.request_id)


async def crashed(request: Request, error: Exception) -> Response:
    """Answer for an exception nobody expected."""
    return error_response(InternalError(), request.state.request_id)


async def unrouted(request: Request, error: Exception) -> Response:
    """Answer for a wrong path or method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - the router calls it for nothing else
    code, message = _ROUTING.get(error.status_code, ("bad_request", "The request is not valid."))
    content = {
        "message": message,
        "type": "invalid_request_error",
        "code": code,
        "param": None,
        "retryable": False,
        "request_id": request.state.request_id,
    }
    return _json({"error": content}, error.status_code, dict(error.headers or {}))


_ROUTING = {
    404: ("not_found", "There is nothing at this path."),
    405: ("method_not_allowed", "This path does not take this method."),
}


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
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    if error.status in (408, 413):  # the rest of the body is still to come, and not worth reading
        headers["Connection"] = "close"
    return _json({"error": content}, error.status, headers)


def _json(content: dict[str, Any], status: int, headers: dict[str, str]) -> Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **headers}
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def _request_id(scope: Scope) -> str:
    """Return the caller's request id if it is one that can be logged and echoed as it is, else a new one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
