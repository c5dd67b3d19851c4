"""CORS: what the pages of allowed origins may send, and which headers of an answer they may read.

Whether an origin is allowed at all is decided by `Origins`, before a request comes here.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from app.edge.access.origins import Origins
from app.errors import BadRequest

_ANSWER_HEADERS = (
    "Content-Location",
    "Location",
    "RateLimit-Limit",
    "RateLimit-Policy",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "Retry-After",
    "X-Request-Id",
    "X-Resumable-Stream-Id",
    "X-Should-Retry",
    "X-Stream-Id",
    "X-Workflow-Run-Id",
    "X-Workflow-Stream-Tail-Index",
)
_FIELD_NAME = re.compile("[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110, 5.1


class Cors(CORSMiddleware):
    """Answers the preflights of pages, and tells browsers which pages may read an answer.

    A preflight is answered with the header names that it asks for, whatever they are. An allowed page may send what it
    likes: the service ignores the headers that it does not know, and a list of those that SDKs and polyfills add (their
    names, their platform, a referrer) would never be complete.
    """

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        super().__init__(
            app,
            allow_origins=tuple(origins.listed),
            allow_origin_regex=origins.pattern,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=["*"],
            allow_private_network=True,
            expose_headers=_ANSWER_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return the answer to a preflight. Raises BadRequest if it asks for something that is no header."""
        for line in request_headers.getlist("access-control-request-headers"):
            for name in filter(None, map(str.strip, line.split(","))):
                if not _FIELD_NAME.fullmatch(name):
                    raise BadRequest("Access-Control-Request-Headers is not a list of header names.")
        return super().preflight_response(request_headers)
