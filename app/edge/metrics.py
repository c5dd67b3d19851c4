"""What Prometheus asks for."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from app.errors import Forbidden, Unauthenticated


class Metrics:
    """The endpoint that is scraped.

    *render* takes an Accept header and returns the metrics and their content type. With a *token* only who sends it
    may read them; without, whoever reaches the service, if that is *open*. They tell how much it is used and costs.
    """

    def __init__(self, render: Callable[[str], tuple[bytes, str]], token: str | None, *, open: bool) -> None:
        self._render = render
        self._token = token.encode() if token else None
        self._open = open

    async def scrape(self, request: Request) -> Response:
        """`GET /metrics`. Raises Unauthenticated or Forbidden."""
        self._check(request)
        body, content_type = self._render(request.headers.get("accept", ""))
        # Not as `media_type`: that would say the charset twice.
        return Response(body, headers={"Cache-Control": "no-store", "Content-Type": content_type})

    def _check(self, request: Request) -> None:
        if self._token is None:
            if self._open:
                return
            raise Forbidden("Set CHAT_SSE_METRICS_TOKEN to read the metrics.")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token):
            raise Unauthenticated
