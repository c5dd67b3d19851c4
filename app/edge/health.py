"""Whether the process lives, and whether it takes new streams."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from app.hub import Hub


class Health:
    """The endpoints that probes and load balancers ask."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def live(self, request: Request) -> Response:
        """`GET /healthz`: the process answers."""
        return PlainTextResponse("ok\n", headers={"Cache-Control": "no-store"})

    async def ready(self, request: Request) -> Response:
        """`GET /readyz`: 200 while new streams are taken, 503 while draining or while there is nowhere to keep them."""
        if self._hub.ready:
            return PlainTextResponse("ready\n", headers={"Cache-Control": "no-store"})
        why = "draining\n" if self._hub.draining else "the journal is away\n"
        return PlainTextResponse(why, 503, headers={"Cache-Control": "no-store", "Retry-After": "1"})
