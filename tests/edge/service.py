"""The endpoints of all dialects over a hub over a script, with a client of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from app.edge.access.origins import Origins
from app.edge.bodies import Defaults
from app.edge.context import request_context
from app.edge.dialects import routes
from app.edge.error_responses import crashed, failed
from app.edge.middleware import ContextMiddleware
from app.edge.streams import Options, Streams
from app.errors import BudgetSpent, StreamError
from app.hub import Observer, Spending
from app.request import UNLIMITED, Principal, StreamRequest
from tests.house import House

PAGE = "https://page"  # the origin of another site's page that may use the service


class Service(House, Spending):
    """All dialects' endpoints over a hub whose upstream plays *steps*. The header `X-Who` says who asks.

    *models* are offered by name, and pages of *origins* may ask. *asked* are the requests that went upstream.
    *stop_refusal* is why a stop that is counted is refused, and *allowance* is what each caller may have. Once *spent*
    is set, no stream may be opened.
    """

    def __init__(
        self,
        log: FilteringBoundLogger,
        *steps: Any,
        grace: float = 0,
        grace_is_set: bool = False,
        models: Sequence[str] = ("m",),
        origins: Sequence[str] = (PAGE,),
        observers: Sequence[Observer] = (),
    ) -> None:
        super().__init__(log, *steps, spending=self, observers=observers)
        self.asked: list[StreamRequest] = []
        self.spent = False
        self.stop_refusal: StreamError | None = None
        self.allowance = UNLIMITED
        self.listed: list[Mapping[str, Any]] = []
        options = Options(
            Defaults(model="m", chunk="auto", grace=grace, max_grace=60, grace_is_set=grace_is_set),
            admit=self._admit,
            tickets=None,
            commit_after=2,
            max_body=1 << 20,
            body_seconds=10,
            keep_alive=15,
            reconnect_ms=1000,
            models=models,
            listed=self._listed,
        )
        handlers = {StreamError: failed, Exception: crashed}
        self._app = Starlette(routes=routes(Streams(self.hub, options)), exception_handlers=handlers)
        self.app = ContextMiddleware(self._gate, Origins(origins), self.meter, log)

    async def _gate(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = request_context(scope)
        context.principal = Principal(dict(scope["headers"]).get(b"x-who", b"").decode(), self.allowance)
        context.count = self._count
        await self._app(scope, receive, send)

    async def _count(self) -> None:
        if self.stop_refusal is not None:
            raise self.stop_refusal

    async def reserve(self, stream_id: str, request: StreamRequest, principal: Principal) -> StreamRequest:
        if self.spent:
            raise BudgetSpent
        return request

    def _admit(self, asked: StreamRequest) -> StreamRequest:
        self.asked.append(asked)
        return asked

    async def _listed(self) -> Sequence[Mapping[str, Any]]:
        return self.listed


@asynccontextmanager
async def serving(
    log: FilteringBoundLogger, *steps: Any, **options: Any
) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """Give a service over *steps*, and a client of it, which has half a minute; its streams end with it."""
    service = Service(log, *steps, **options)
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client, asyncio.timeout(30):
        yield service, client
    await service.hub.drain(0)
