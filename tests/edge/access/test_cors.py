"""Preflights: an allowed page may send every header that is one."""

from __future__ import annotations

import httpx
import pytest
from starlette.responses import PlainTextResponse

from app.edge.access.cors import Cors
from app.edge.access.origins import Origins
from app.errors import BadRequest

pytestmark = pytest.mark.anyio

PAGE = "https://app.example.com"


async def ask(method: str, *origins: str, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(Cors(PlainTextResponse("answer"), Origins(origins)))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.request(method, "/", headers={"Origin": PAGE, **named})


async def test_pages_of_this_machine() -> None:
    """A page of loopback may read the answer where `Origins` allows all of these, and no other page may."""
    cors = Cors(PlainTextResponse("answer"), Origins(loopback=True))
    transport = httpx.ASGITransport(cors)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for origin, allowed in (("http://localhost:5173", "http://localhost:5173"), (PAGE, None)):
            answer = await client.get("/", headers={"Origin": origin})
            assert answer.headers.get("access-control-allow-origin") == allowed


async def preflight(asked: str, *origins: str, method: str = "POST", **more: str) -> httpx.Response:
    names = {"Access_Control_Request_Method": method, "Access_Control_Request_Headers": asked, **more}
    return await ask("OPTIONS", *origins, **names)


@pytest.mark.parametrize(
    "asked",
    [
        "content-type,user-agent",
        "cache-control,last-event-id",
        "cache-control,x-requested-with",
        "content-type,http-referer,x-title",
        "x-api-key,content-type",
        "openai-beta,openai-organization,x-stainless-lang,x-stainless-some-day",
        "authorization, content-type ,,x-chunk",
        "x_odd.name~1!",
        "",
    ],
)
async def test_any_header(asked: str) -> None:
    """What a preflight of an allowed page asks for is what it is answered, and a cache knows on what that depends."""
    answer = await preflight(asked, PAGE)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-headers"] == asked
    vary = {name.strip().lower() for name in answer.headers["vary"].split(",")}
    assert vary >= {"origin", "access-control-request-method", "access-control-request-headers"}


@pytest.mark.parametrize("asked", ["a b", "x:y", "content-type;q=1", '"quoted"', "a(b)", "x\x7f"])
async def test_no_header(asked: str) -> None:
    """What is no name of a header is refused, and not echoed."""
    with pytest.raises(BadRequest) as raised:
        await preflight(f"content-type,{asked}", PAGE)
    assert asked not in raised.value.text


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
async def test_methods(method: str) -> None:
    """The methods of the API may be used."""
    assert (await preflight("x-a", PAGE, method=method)).status_code == 200


async def test_other_methods() -> None:
    """Others may not."""
    assert (await preflight("x-a", PAGE, method="PUT")).status_code == 400


async def test_another_page() -> None:
    """A page that is not allowed learns nothing."""
    answer = await preflight("x-a", "https://other.example.com")
    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers


async def test_any_page() -> None:
    """Where every origin is allowed, every page is answered alike."""
    answer = await preflight("x-title", "*")
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
    assert answer.headers["access-control-allow-headers"] == "x-title"


async def test_a_private_network() -> None:
    """An allowed page on the internet may use a service on this machine, which Chromium asks about."""
    answer = await preflight("x-a", PAGE, Access_Control_Request_Private_Network="true")
    assert (answer.status_code, answer.headers["access-control-allow-private-network"]) == (200, "true")


async def test_answers() -> None:
    """An answer itself says who may read it, and that this depends on who asks."""
    for method in ("GET", "OPTIONS"):  # without the header that makes it one, an OPTIONS is no preflight
        answer = await ask(method, PAGE)
        assert (answer.text, answer.headers["access-control-allow-origin"]) == ("answer", PAGE)
        assert answer.headers["vary"] == "Origin"
        assert "x-stream-id" in answer.headers["access-control-expose-headers"].lower()
