"""The composition root: settings → upstream, journal, hub → the ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp
from structlog.typing import FilteringBoundLogger

from app.edge.chat import Chat, Options
from app.edge.guard import Guard, crashed, failed, unrouted
from app.edge.health import Health
from app.edge.pages import page
from app.edge.requests import Defaults
from app.errors import StreamError
from app.hub import Hub, parse_policy
from app.journal.memory import Bounds, MemoryJournal
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
        bounds = Bounds(settings.max_stream, settings.max_total, settings.max_kept, settings.keep)
        journal = MemoryJournal(bounds, on_evict=lambda stream_id, reason: hub.evicted(stream_id, reason))
        hub = Hub(journal, source, limits, settings.max_streams, log)
        defaults = Defaults(
            model=settings.default_model,
            chunk=settings.chunk,
            grace=parse_policy(settings.on_disconnect),
            max_grace=parse_policy(settings.on_disconnect_max),
        )
        options = Options(
            defaults,
            max_body=settings.max_body,
            body_seconds=settings.body_timeout,
            keep_alive=settings.keep_alive,
            reconnect_ms=settings.reconnect_ms,
        )
        chat, health = Chat(hub, options), Health(hub)
        app = Starlette(
            routes=[
                Route("/v1/chat", chat.open, methods=["POST"]),
                Route("/v1/streams/{stream_id}", chat.attach, methods=["GET"]),
                Route("/v1/streams/{stream_id}", chat.cancel, methods=["DELETE"]),
                Route("/v1/streams/{stream_id}/cancel", chat.cancel, methods=["POST"]),
                Route("/healthz", health.live),
                Route("/readyz", health.ready),
                Route("/", page("index.html")),
                Route("/client.js", page("client.js")),
                Route("/playground.js", page("playground.js")),
                Route("/playground.css", page("playground.css")),
            ],
            exception_handlers={StreamError: failed, HTTPException: unrouted, Exception: crashed},
        )
        app.router.redirect_slashes = False  # a redirect would be an answer outside the contract
        yield Service(Guard(app, log), hub, base_url)
        await hub.drain(0)
        journal.close()
