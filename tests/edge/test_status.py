"""Health and metrics: what is said to whom."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from app.edge.access.origins import Origins
from app.edge.error_responses import failed
from app.edge.middleware import ContextMiddleware
from app.edge.status import Health, Metrics, MetricsPorts
from app.errors import StreamError
from app.meter import Meter
from tests.house import House

pytestmark = pytest.mark.anyio


async def ask(log: FilteringBoundLogger, route: Route, **headers: str) -> httpx.Response:
    app = Starlette(routes=[route], exception_handlers={StreamError: failed})
    transport = httpx.ASGITransport(ContextMiddleware(app, Origins(), Meter(), log))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        return await client.get(route.path, headers=headers)


@pytest.mark.parametrize(
    ("token", "is_open", "authorization", "status"),
    [
        (None, True, "", 200),
        ("secret", True, "", 401),
        ("secret", True, "Bearer secret", 200),
        (None, False, "", 403),
        (None, False, "Bearer ", 403),
        ("", False, "Bearer ", 403),
        ("secret", False, "", 401),
        ("secret", False, "secret", 401),
        ("secret", False, "Basic secret", 401),
        ("secret", False, "Bearer secre", 401),
        ("secret", False, "Bearer secret2", 401),
        ("secret", False, "Bearer secret", 200),
        ("secret", False, "bearer  secret", 200),
    ],
)
async def test_access(
    log: FilteringBoundLogger, token: str | None, is_open: bool, authorization: str, status: int
) -> None:
    """With a token, only a client that sends it reads the metrics. Without one, every client does if they are open."""
    metrics = Metrics(lambda accept: (b"figures", f"text/plain; accept={accept}"), token, open=is_open)
    headers = {"Authorization": authorization, "Accept": "text/x"}
    answer = await ask(log, Route("/metrics", metrics.scrape), **headers)
    assert answer.status_code == status
    assert answer.headers["cache-control"] == "no-store"
    if status == 200:
        assert (answer.text, answer.headers["content-type"]) == ("figures", "text/plain; accept=text/x")
    else:
        assert ("CHAT_SSE_METRICS_TOKEN" in answer.text) == (status == 403)
        assert "figures" not in answer.text


async def test_health(log: FilteringBoundLogger) -> None:
    """A process is ready while it takes new streams. One that drains, or has no journal, is not, and still lives."""
    house = House(log)
    health = Health(house.hub)
    assert (await ask(log, Route("/readyz", health.ready))).text == "ready\n"
    house.journal.ready = False
    away = await ask(log, Route("/readyz", health.ready))
    assert (away.status_code, away.text, away.headers["retry-after"]) == (503, "the journal is away\n", "1")
    await house.hub.drain(0)
    draining = await ask(log, Route("/readyz", health.ready))
    assert (draining.status_code, draining.text) == (503, "draining\n")
    assert (await ask(log, Route("/healthz", health.live))).text == "ok\n"


async def test_metrics_port(log: FilteringBoundLogger) -> None:
    """On a port of the metrics' own, any other path is unknown, whatever it is elsewhere."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("here")(scope, receive, send)

    transport = httpx.ASGITransport(ContextMiddleware(MetricsPorts(app, range(9100, 9102)), Origins(), Meter(), log))
    async with httpx.AsyncClient(transport=transport) as client:
        for port, path, status in (
            *((9100, "/metrics", 200), (9101, "/metrics", 200), (9102, "/v1/chat", 200), (8000, "/metrics", 200)),
            *((9100, "/v1/chat", 404), (9101, "/healthz", 404), (9100, "/", 404), (9100, "/metrics/x", 404)),
        ):
            assert (await client.post(f"http://service:{port}{path}")).status_code == status
