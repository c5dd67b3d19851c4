"""Content that stays the same while the process runs: pages and the browser client."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
}

# The page brings all that it needs. It cannot load or send anything else, nor take text for markup.
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
# What a page could ask its reader for, and this one never does. Browsers complain of names that they do not know, so
# these are the names that all browsers know.
_PERMISSIONS = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"
# Pages of other sites import the client. The other files are for our own page alone.
_FOR_ALL = {"client/client.js"}

Endpoint = Callable[[Request], Awaitable[Response]]


def playground() -> dict[str, str]:
    """Return the playground's files, by the path at which each is served: the page at `/`, its parts below it."""
    files = resources.files("app.edge").joinpath("playground").iterdir()
    names = sorted(file.name for file in files if file.name.rpartition(".")[2] in _TYPES)
    return {"/" if name == "index.html" else f"/playground/{name}": f"edge/playground/{name}" for name in names}


def page(name: str, *, simulated: bool = False) -> Endpoint:
    """Return the endpoint of the file *name*, a path within `app`, which is read now.

    *simulated* tells the page that the built-in simulator answers: it then offers the simulator's models.
    """
    content = resources.files("app").joinpath(name).read_bytes()
    if simulated:
        content = content.replace(b' data-upstream="real">', b' data-upstream="simulator">')
    headers = page_headers("cross-origin" if name in _FOR_ALL else "same-origin")
    return unchanging(content, content_type(name), headers)


def page_headers(shared_with: str = "same-origin") -> dict[str, str]:
    """Return what a browser is told about a page or a part of one, which pages of *shared_with* may load."""
    return {
        "Content-Security-Policy": _CONTENT,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": shared_with,
        "Permissions-Policy": _PERMISSIONS,
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
    }


def content_type(name: str) -> str:
    """Return the `Content-Type` of a file, by its name."""
    return _TYPES[name.rpartition(".")[2]]


def unchanging(content: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> Endpoint:
    """Return the endpoint of *content*. A browser keeps a copy, and asks each time whether the copy is still good."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache", **(headers or {})}

    async def serve(request: Request) -> Response:
        known = re.findall(r'"[^"]*"|\*', request.headers.get("if-none-match", ""))
        if etag in known or "*" in known:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return serve
