"""The outermost layer: a request id for everyone, and no answer for the pages of strangers.

Pure ASGI, so that it costs a stream next to nothing. Errors before the first byte are statuses with one JSON body,
whoever raised them. What fails after that was either made a record by the relay, or breaks the connection, which a
client sees as a cut.
"""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from app.edge.access.origins import Origins
from app.edge.error_responses import refuse
from app.errors import StreamError, UnknownPath
from app.meter import Meter

_REQUEST_ID = re.compile(r"[A-Za-z0-9._~+/=:-]{1,128}", re.ASCII)
# https://www.w3.org/TR/trace-context/#traceparent-header: version 00, or a later one that begins like it.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)

# Asked by address, by whoever runs the service; they tell nothing.
_PROBES = ("/healthz", "/readyz")


class Guard:
    """Wraps *app*. Puts the request's id, logger, meter and trace into `scope["state"]`, and the id on the answer."""

    def __init__(self, app: ASGIApp, origins: Origins, meter: Meter, log: FilteringBoundLogger) -> None:
        self._app = app
        self._origins = origins
        self._meter = meter
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id, traceparent = _request_id(headers), _traceparent(headers)
        log = self._log.bind(request_id=request_id)
        if traceparent:
            log = log.bind(trace_id=traceparent[3:35])
        scope.setdefault("state", {}).update(
            log=log,
            meter=self._meter,
            request_id=request_id,
            traceparent=traceparent,
            # Once an answer has begun, the layers add nothing to its body, and cost 1.3 µs a piece.
            send=send,
        )

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            if not scope["path"].isprintable():
                # Starlette takes "/metrics\n" for "/metrics", and a proxy that guards a path does not.
                raise UnknownPath
            if scope["path"] not in _PROBES:
                self._origins.check(headers)
            await self._app(scope, receive, send_named)
        except StreamError as error:
            await refuse(error, scope, receive, send_named)
        except ClientDisconnect:
            log.info("request.abandoned")
        except Exception as error:
            # Answered already, by `crashed`; left to the server, the traceback would be logged with all it quotes.
            log.error("request.crashed", error=type(error).__name__)


def _request_id(headers: Headers) -> str:
    """Return the caller's request id if it is one that can be logged and echoed as it is, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _traceparent(headers: Headers) -> str:
    """Return the caller's traceparent if there is one, and it is one."""
    given = headers.getlist("traceparent")
    return given[0] if len(given) == 1 and _TRACEPARENT.fullmatch(given[0]) else ""
