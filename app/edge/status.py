"""How the process does: the endpoints of probes, load balancers and Prometheus."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Container

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.edge.error_responses import refuse
from app.errors import Forbidden, Unauthenticated, UnknownPath
from app.hub import Hub


class Health:
    """Whether the process lives, and whether it takes new streams."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def live(self, request: Request) -> Response:
        """`GET /healthz`: the process answers."""
        return PlainTextResponse("ok\n")

    async def ready(self, request: Request) -> Response:
        """`GET /readyz`: 200 while new streams are taken; 503 while draining, or while the journal is away."""
        if self._hub.ready:
            return PlainTextResponse("ready\n")
        reason = "draining\n" if self._hub.draining else "the journal is away\n"
        return PlainTextResponse(reason, 503, headers={"Retry-After": "1"})


class Metrics:
    """The metrics, which tell how much the service is used and what it costs.

    *render* takes an Accept header and returns the metrics and their content type. With a *token*, only a client that
    sends it may read them. Without one, every client may if the metrics are *open*, and none may otherwise.
    """

    def __init__(self, render: Callable[[str], tuple[bytes, str]], token: str | None, *, open: bool) -> None:
        self._render = render
        self._token = token.encode() if token else None
        self._open = open

    async def scrape(self, request: Request) -> Response:
        """`GET /metrics`. Raises Unauthenticated or Forbidden."""
        self._check(request)
        body, content_type = self._render(request.headers.get("accept", ""))
        # Not as `media_type`: Starlette would add a second charset to that.
        return Response(body, headers={"Content-Type": content_type})

    def _check(self, request: Request) -> None:
        if self._token is None:
            if self._open:
                return
            raise Forbidden("Set CHAT_SSE_METRICS_TOKEN to read the metrics.")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token):
            raise Unauthenticated


class MetricsPorts:
    """Wraps *app*: on one of *ports*, which Prometheus may reach, `/metrics` is all that there is."""

    PATH = "/metrics"

    def __init__(self, app: ASGIApp, ports: Container[int]) -> None:
        self._app = app
        self._ports = ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, port = scope.get("server") or (None, None)
        if scope["type"] == "http" and port in self._ports and scope["path"] != self.PATH:
            await refuse(UnknownPath(), scope, receive, send)
        else:
            await self._app(scope, receive, send)
