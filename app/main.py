"""The composition root: settings → upstream, journal, hub → the ASGI application, and the server around it."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp
from structlog.typing import FilteringBoundLogger

from app.edge.chat import Chat, Options
from app.edge.guard import Guard, crashed, failed, unrouted
from app.edge.health import Health
from app.errors import StreamError
from app.hub import Hub
from app.journal.memory import MemoryJournal
from app.relay import Limits
from app.settings import Settings
from app.upstream import Source, simulator
from app.upstream.openai_chat import OpenAIChat
from app.upstream.retry import Policy, Retrying
from app.upstream.transport import create_client

OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class Service:
    """A composed service. *upstream* is its base URL."""

    app: ASGIApp
    hub: Hub
    upstream: str


@asynccontextmanager
async def compose(settings: Settings, log: FilteringBoundLogger) -> AsyncIterator[Service]:
    """Build a service in the running loop; what it holds open is closed on the way out."""
    if settings.simulated:
        async with await simulator.serve() as simulated, _compose(settings, log, simulated.url) as service:
            yield service
    else:
        base_url = str(settings.openai_base_url) if settings.openai_base_url else OPENAI
        async with _compose(settings, log, base_url) as service:
            yield service


@asynccontextmanager
async def _compose(settings: Settings, log: FilteringBoundLogger, base_url: str) -> AsyncIterator[Service]:
    key = settings.openai_api_key
    async with create_client(base_url, settings.connect_timeout) as client:
        source: Source = Retrying(
            OpenAIChat(client, base_url, key.get_secret_value() if key else None, settings.max_event),
            Policy(settings.retry_attempts, settings.retry_wait, settings.retry_wait_max),
        )
        limits = Limits(
            commit=settings.commit_after,
            first_token=settings.first_token_timeout,
            idle=settings.idle_timeout,
            progress=settings.progress_timeout,
            total=settings.total_timeout,
        )
        hub = Hub(MemoryJournal(settings.max_stream), source, limits, settings.max_streams, log)
        options = Options(
            default_model=settings.default_model,
            default_chunk=settings.chunk,
            max_body=settings.max_body,
            keep_alive=settings.keep_alive,
            reconnect_ms=settings.reconnect_ms,
        )
        chat, health = Chat(hub, options), Health(hub)
        app = Starlette(
            routes=[
                Route("/v1/chat", chat.open, methods=["POST"]),
                Route("/healthz", health.live),
                Route("/readyz", health.ready),
            ],
            exception_handlers={StreamError: failed, HTTPException: unrouted, Exception: crashed},
        )
        yield Service(Guard(app, log), hub, base_url)
        await hub.drain(0)


class Server(uvicorn.Server):
    """uvicorn, draining the hub between "no new connections" and "wait for the open ones"."""

    def __init__(self, service: Service, settings: Settings) -> None:
        # Whatever the drain could not end within its grace is given a moment to send its terminal event.
        margin = 5
        super().__init__(
            uvicorn.Config(
                service.app,
                host=settings.host,
                port=settings.port,
                loop="none",
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                backlog=4096,
                # Above nginx's 60 s for idle upstream connections, so that it is never we who close one under a POST.
                timeout_keep_alive=75,
                timeout_graceful_shutdown=int(settings.shutdown_grace) + margin,
            )
        )
        self._hub = service.hub
        self._grace = settings.shutdown_grace

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal, but not for uvicorn to raise again at the end: a drained exit is a success, status 0."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        drained = asyncio.create_task(self._hub.drain(self._grace))
        await super().shutdown(sockets)
        if self.force_exit:  # a second Ctrl-C
            drained.cancel()
        await asyncio.wait([drained])
