"""The table of dialects, as the endpoints use it."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.typing import FilteringBoundLogger

from app.edge import dialects
from app.edge.openapi.document import document
from app.events import Delta, Done
from tests.edge.service import serving
from tests.wire.dummy import added, dummy_dialect

pytestmark = pytest.mark.anyio

_ENDPOINT = """
from starlette.responses import PlainTextResponse
from starlette.routing import Route


def routes(streams):
    async def hello(request):
        return PlainTextResponse("hello")

    return [Route("/v1/dummy", hello)]
"""


async def test_a_dialect_is_one_file(log: FilteringBoundLogger, tmp_path: Path) -> None:
    """A stream can be read in a dialect that is a file in `app.wire`, and the error and the description name it."""
    with dummy_dialect(tmp_path):
        async with serving(log, (Delta("a"),), (Done("stop"),)) as (_, client):
            where = (await client.post("/v1/chat", json={"prompt": "x"})).headers["content-location"]
            read = await client.get(where, params={"dialect": "dummy"})
            assert (read.headers["x-dummy"], read.text) == ("1", "3\n")
            refused = await client.get(where, params={"dialect": "none"})
            assert refused.status_code == 400
            assert refused.json()["error"]["param"] == "dialect"
            assert "dummy" in refused.json()["error"]["message"]
        assert "dummy" in document(credentials=False)["components"]["schemas"]["Dialect"]["enum"]


async def test_endpoints_are_one_file(log: FilteringBoundLogger, tmp_path: Path) -> None:
    """Endpoints of a file in `app.edge.dialects` are served, without another change."""
    with added(dialects, _ENDPOINT, tmp_path):
        async with serving(log) as (_, client):
            assert (await client.get("/v1/dummy")).text == "hello"
    async with serving(log) as (_, client):
        assert (await client.get("/v1/dummy")).status_code == 404
