"""The playground page and the browser client, as they lie in `playground/`: read once, sent with their own headers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

_TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}

# The page brings all it needs along, and can be made to load or send nothing else.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


def page(name: str) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of the file *name*. A browser asks each time whether its copy is still good."""
    content = resources.files("app.edge").joinpath("playground", name).read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    headers = {
        "ETag": etag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    media_type = _TYPES[name.rpartition(".")[2]]

    async def serve(request: Request) -> Response:
        known = re.findall(r'"[^"]*"|\*', request.headers.get("if-none-match", ""))
        if etag in known or "*" in known:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return serve
