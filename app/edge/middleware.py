"""The outermost layer: each request gets a context, and each answer the headers that all answers have.

It is pure ASGI, and so costs a stream next to nothing. An error before the first byte becomes a status with one body,
whichever layer raised it. A failure after that is a record that the relay wrote, or it breaks the connection,
which a client sees as a cut.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from app.edge.access.origins import Origins
from app.edge.context import RequestContext
from app.edge.error_responses import refuse
from app.errors import StreamError, UnknownPath
from app.meter import Meter
from app.model_name import CONTROL
from app.wire import ErrorForm

_REQUEST_ID = re.compile(r"[A-Za-z0-9._~+/=:-]{1,128}", re.ASCII)
# https://www.w3.org/TR/trace-context/#traceparent-header: version 00, or a later one that begins like it.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)

# The paths of the API, of which the service takes sloppy spellings.
_API = b"/v1/"
_SLASHES = re.compile(b"//+")

# Orchestrators probe these by address, under any host name. The answers tell nothing about the service.
_PROBES = ("/healthz", "/readyz")

# The headers of an answer that does not have them already.
_DEFAULTS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class ContextMiddleware:
    """Wraps *app*: makes the request's context, and checks the request's origin and host.

    *forms* are forms of errors, by how the paths begin for which each holds.
    """

    def __init__(
        self,
        app: ASGIApp,
        origins: Origins,
        meter: Meter,
        log: FilteringBoundLogger,
        forms: Mapping[str, ErrorForm] = MappingProxyType({}),
    ) -> None:
        self._app = app
        self._origins = origins
        self._meter = meter
        self._log = log
        self._forms = forms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        context = self._context(headers)
        context.put_into(scope)
        scope["path"] = _tidy(scope["path"], scope.get("raw_path", b""))
        for beginning, form in self._forms.items():
            if scope["path"].startswith(beginning):
                context.form = form

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _completed(message["headers"], context)
            await send(message)

        try:
            if CONTROL.search(scope["path"]):
                # Starlette takes "/metrics\n" for "/metrics", and a proxy that guards a path does not.
                raise UnknownPath
            if scope["path"] not in _PROBES:
                context.known_origin = self._origins.check(headers)
            await self._app(scope, receive, send_with_headers)
        except StreamError as error:
            await refuse(error, scope, receive, send_with_headers)
        except ClientDisconnect:
            context.log.info("request.abandoned")
        except Exception as error:  # the boundary: `crashed` has answered already
            # If the server got the exception, it would log the traceback, which may quote what a client or an upstream
            # sent.
            context.log.error("request.crashed", error=type(error).__name__)
        finally:
            if context.place is not None:
                context.place.close()

    def _context(self, headers: Headers) -> RequestContext:
        request_id = _request_id(headers)
        traceparent = _traceparent(headers)
        log = self._log.bind(request_id=request_id)
        if traceparent:
            log = log.bind(trace_id=traceparent[3:35])
        return RequestContext(request_id, traceparent, log, self._meter)


def _tidy(path: str, raw: bytes) -> str:
    """Return a *path* of the API without the slashes that clients add to it, and any other path as it is.

    *raw* is the path as it was sent: a slash that is encoded belongs to a name, and not to the path.
    A base URL that ends in a slash makes `//v1/chat` and `/v1//chat`, and some clients end every path in one. The
    answer is not a redirect, which many clients would follow with a GET. Other paths stay as they are, because a proxy
    may guard one of them, as `deploy/nginx.conf` does `/metrics`, by its exact spelling.
    """
    tidy = _SLASHES.sub(b"/", raw) if b"//" in raw else raw
    if not tidy.startswith(_API):
        return path
    tidy = tidy.rstrip(b"/")
    return path if tidy == raw else unquote(tidy.decode("ascii"))


def _completed(headers: list[tuple[bytes, bytes]], context: RequestContext) -> list[tuple[bytes, bytes]]:
    """Return *headers* and what every answer has. No cache may keep an answer that does not say otherwise."""
    given = {name for name, _ in headers}
    told = {**context.headers, "X-Request-Id": context.request_id}
    return [
        *headers,
        *((name.lower().encode(), value.encode("latin-1")) for name, value in told.items()),
        *(default for default in _DEFAULTS if default[0] not in given),
    ]


def _request_id(headers: Headers) -> str:
    """Return the caller's request id if it can be logged and echoed as it is, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _traceparent(headers: Headers) -> str:
    """Return the caller's traceparent if there is exactly one and it is well-formed, else ""."""
    given = headers.getlist("traceparent")
    return given[0] if len(given) == 1 and _TRACEPARENT.fullmatch(given[0]) else ""
