"""The playground page and the browser client, as they lie in `playground/`: read once, sent with their own headers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

_TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}

# The page brings all it needs along, and can be made to load or send nothing else, nor to take text for markup.
_CONTENT = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
# What a page of ours could ask its reader for, and never does. Browsers complain of names they do not know, so these
# are the ones that all know.
_PERMISSIONS = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"
# The client is there to be imported by other sites' pages. The rest is for no other page to load.
_FOR_ALL = {"client.js"}


def page(name: str) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of the file *name*. A browser asks each time whether its copy is still good."""
    content = resources.files("app.edge").joinpath("playground", name).read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    headers = {
        "ETag": etag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _CONTENT,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "cross-origin" if name in _FOR_ALL else "same-origin",
        "Permissions-Policy": _PERMISSIONS,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
    media_type = _TYPES[name.rpartition(".")[2]]

    async def serve(request: Request) -> Response:
        known = re.findall(r'"[^"]*"|\*', request.headers.get("if-none-match", ""))
        if etag in known or "*" in known:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return serve
