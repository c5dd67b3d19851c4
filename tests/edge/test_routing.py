"""Which endpoint a request is for."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message

from app.edge.routing import RouteTable

pytestmark = pytest.mark.anyio


async def answer(request: Request) -> Response:
    """Say which of an endpoint's paths and methods it was."""
    return PlainTextResponse(f"{request.method} {request.path_params}")


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/plain", 200, "GET {}"),
        ("HEAD", "/plain", 200, ""),
        ("POST", "/plain", 405, "Method Not Allowed"),
        ("GET", "/twice", 200, "GET {}"),
        ("POST", "/twice", 200, "POST {}"),
        ("DELETE", "/twice", 405, "Method Not Allowed"),
        ("GET", "/of/x", 200, "GET {'name': 'x'}"),
        ("GET", "/of", 404, "Not Found"),
        ("GET", "/plain/", 404, "Not Found"),
    ],
)
async def test_table(method: str, path: str, status: int, text: str) -> None:
    """A path without parameters leads where Starlette's own router leads it, and so does every other."""
    app = Starlette()
    app.router = RouteTable(
        [
            Route("/plain", answer),
            Route("/twice", answer),
            Route("/twice", answer, methods=["POST"]),
            Route("/of/{name}", answer),
        ]
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        response = await client.request(method, path)
    assert (response.status_code, response.text) == (status, text)


async def test_lifespan() -> None:
    """The events of ASGI's lifespan, which have no path, are answered as Starlette answers them."""
    app = Starlette()
    app.router = RouteTable([Route("/plain", answer)])
    received = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": next(received)}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "lifespan"}, receive, send)
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_what_is_plain() -> None:
    """A path is looked up where it has no parameters and one route."""
    table = RouteTable([Route("/a", answer), Route("/b", answer), Route("/b", answer), Route("/c/{name}", answer)])
    assert [*table._plain] == ["/a"]
