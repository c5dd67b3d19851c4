"""Content that stays the same: sent once, and then known by its ETag."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from app.edge.static import Endpoint, page, playground, unchanging

pytestmark = pytest.mark.anyio

PLAYGROUND = "edge/playground/index.html"


async def ask(endpoint: Endpoint, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(Starlette(routes=[Route("/", endpoint)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.get("/", headers=headers)


async def test_a_copy_that_is_still_good() -> None:
    """A client that has the content already gets 304, in each form in which `If-None-Match` can name it."""
    endpoint = unchanging(b"{}", "application/json")
    first = await ask(endpoint)
    etag = first.headers["etag"]
    assert (first.content, first.headers["cache-control"]) == (b"{}", "no-cache")
    for known in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        again = await ask(endpoint, **{"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    for known in ("", '"x"', etag.strip('"')):
        assert (await ask(endpoint, **{"If-None-Match": known})).status_code == 200


@pytest.mark.parametrize(
    ("name", "media_type", "policy"),
    [
        (PLAYGROUND, "text/html; charset=utf-8", "same-origin"),
        ("edge/playground/playground.css", "text/css; charset=utf-8", "same-origin"),
        ("client/client.js", "text/javascript; charset=utf-8", "cross-origin"),
    ],
)
async def test_pages(name: str, media_type: str, policy: str) -> None:
    """A page may load nothing from elsewhere; pages of other sites may load the client, and nothing else."""
    answer = await ask(page(name))
    assert answer.headers["content-type"] == media_type
    assert answer.headers["cross-origin-resource-policy"] == policy
    assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_the_playground_is_a_page_and_its_parts() -> None:
    """Each file of the folder is served by its name, with its type; the page itself at `/`."""
    files = playground()
    assert files["/"] == PLAYGROUND
    assert files["/playground/playground.js"] == "edge/playground/playground.js"
    for path, name in files.items():
        assert path in ("/", f"/playground/{name.rpartition('/')[2]}")
        assert (await ask(page(name))).status_code == 200


async def test_the_playground_knows_the_simulator() -> None:
    """The page says which upstream answers: a real one, unless it is told that it is the simulator."""
    for endpoint, upstream in ((page(PLAYGROUND), "real"), (page(PLAYGROUND, simulated=True), "simulator")):
        assert f'<html lang="en" data-upstream="{upstream}">' in (await ask(endpoint)).text
