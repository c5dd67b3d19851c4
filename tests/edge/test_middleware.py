"""The outermost layer: the context of each request, and the headers of each answer."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.edge.access.origins import Origins
from app.edge.context import request_context
from app.edge.error_responses import crashed
from app.edge.middleware import ContextMiddleware
from app.meter import Meter

pytestmark = pytest.mark.anyio

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def ask(log: FilteringBoundLogger, path: str = "/", *headers: tuple[str, str]) -> httpx.Response:
    """Ask for what the endpoints see of the context."""

    async def shown(request: Request) -> Response:
        context = request_context(request.scope)
        context.log.info("reached")
        return JSONResponse({"id": context.request_id, "trace": context.traceparent})

    async def cached(request: Request) -> Response:
        return Response(headers={"Cache-Control": "no-cache"})

    async def principal(request: Request) -> Response:
        return Response(request_context(request.scope).principal.name)

    async def broken(request: Request) -> Response:
        raise ZeroDivisionError("secret")

    endpoints = {"/": shown, "/cached": cached, "/principal": principal, "/broken": broken, "/healthz": shown}
    app = Starlette(routes=[Route(*each) for each in endpoints.items()], exception_handlers={Exception: crashed})
    transport = httpx.ASGITransport(ContextMiddleware(app, Origins(), Meter(), log))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.get(path, headers=list(headers))


async def test_request_id(log: FilteringBoundLogger) -> None:
    """The caller's id is kept if it can be logged and echoed, and told to the endpoint, the log and the caller."""
    answer = await ask(log, "/", ("X-Request-Id", "mine/1"))
    assert answer.headers["x-request-id"] == answer.json()["id"] == "mine/1"
    for given in ("", "a b", "x" * 129, 'a"b'):
        answer = await ask(log, "/", ("X-Request-Id", given))
        assert answer.headers["x-request-id"] == answer.json()["id"] != given
        assert len(answer.json()["id"]) == 16


async def test_trace(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """A well-formed traceparent is taken up, and its trace is in the log; any other, or two of them, are ignored."""
    assert (await ask(log, "/", ("traceparent", TRACE))).json()["trace"] == TRACE
    assert logs.entries[-1]["trace_id"] == TRACE[3:35]
    for given in ("", TRACE.upper(), "ff" + TRACE[2:], TRACE.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32)):
        assert (await ask(log, "/", ("traceparent", given))).json()["trace"] == ""
    assert (await ask(log, "/", ("traceparent", TRACE), ("traceparent", TRACE))).json()["trace"] == ""
    assert "trace_id" not in logs.entries[-1]


async def test_headers(log: FilteringBoundLogger) -> None:
    """No answer is cached or sniffed, unless it says otherwise itself; answers to wrong paths are no exception."""
    for path, cache in (("/", "no-store"), ("/nowhere", "no-store"), ("/cached", "no-cache")):
        answer = await ask(log, path)
        assert answer.headers["cache-control"] == cache
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_origins(log: FilteringBoundLogger) -> None:
    """A page of another site gets no answer, except from the probes."""
    foreign = ("Origin", "https://elsewhere")
    answer = await ask(log, "/", foreign)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert (await ask(log, "/healthz", foreign)).status_code == 200


async def test_a_path_that_is_not_printable(log: FilteringBoundLogger) -> None:
    """It is not found, although the router would take it for another path."""
    assert (await ask(log, "/cached%0A")).status_code == 404


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("//v1/chat", "/v1/chat"),
        ("/v1//chat", "/v1/chat"),
        ("/v1/chat/", "/v1/chat"),
        ("///v1//chat///", "/v1/chat"),
        ("/v1/models/org%2Fm/", "/v1/models/org/m"),
        ("//v1/models/a%2F%2Fb%20%E6%B5%81//", "/v1/models/a//b 流"),
        ("/v1/models/a%2F%2Fb%2F", "/v1/models/a//b/"),
        ("/v1/%2Fchat", "/v1//chat"),
        ("/v1/models/流式/m", "/v1/models/流式/m"),
        ("//metrics", "//metrics"),
        ("/metrics/", "/metrics/"),
        ("/v1", "/v1"),
    ],
)
async def test_extra_slashes(log: FilteringBoundLogger, path: str, seen: str) -> None:
    """A path of the API is found however many slashes a client adds; a path that a proxy may guard is not."""
    paths = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        paths.append(scope["path"])
        await Response()(scope, receive, send)

    transport = httpx.ASGITransport(ContextMiddleware(app, Origins(), Meter(), log))
    async with httpx.AsyncClient(transport=transport) as client:
        await client.get(f"http://localhost{path}")
    assert paths == [seen]


async def test_no_principal(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """A request whose principal no layer has set crashes: it is not taken for an anonymous one."""
    assert (await ask(log, "/principal")).status_code == 500
    assert logs.entries[-1]["error"] == "AttributeError"


async def test_a_crash(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """An exception is answered with 500 and logged by its class, without its message."""
    answer = await ask(log, "/broken")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert (logs.entries[-1]["event"], logs.entries[-1]["error"]) == ("request.crashed", "ZeroDivisionError")
    assert "secret" not in answer.text + repr(logs.entries)
