"""What upstreams list, over real sockets: taken as OpenAI has it, kept for a while, and nothing of what is wrong."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app import simulator
from app.upstream.endpoint import Endpoint
from app.upstream.http.client import create_client
from app.upstream.models import Models
from tests.upstream.raw import Handler, Upstream, hang_up, reply
from tests.wire import strict

pytestmark = pytest.mark.anyio


def listed(*items: Any) -> bytes:
    return reply(json.dumps({"object": "list", "data": items}).encode())


async def cut_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"data": [')
    await hang_up(reader, writer)


@asynccontextmanager
async def asking(
    *urls: str, patience: float = 5.0, clock: Callable[[], float] = time.monotonic, **more: Any
) -> AsyncIterator[Models]:
    async with create_client(urls[0], 5) as client:
        yield Models([Endpoint(client, url, **more) for url in urls], patience, clock)


async def test_the_request() -> None:
    """It is a GET with the key and the operator's headers, and no body."""
    async with (
        Upstream(listed()) as upstream,
        asking(upstream.url, api_key="sk-key", headers={"X-Team": "a"}) as found,
    ):
        assert await found() == ()
    (head,) = upstream.requests
    assert head.startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert b"authorization: bearer sk-key\r\n" in head.lower()
    assert b"x-team: a\r\n" in head.lower()
    assert b"content-length" not in head.lower()


async def test_the_simulators() -> None:
    """A real list comes through, to the letter of OpenAI's type."""
    async with await simulator.serve() as server, asking(server.url) as found:
        models = [strict.model(model) for model in await found()]
    described = {model.id: model.to_dict().get("description") for model in models}
    assert described["sim-echo"] == "The last user message, said again."


async def test_several() -> None:
    """The lists of several upstreams are one, in their order, and each name is in it once, as the first has it."""
    one = listed({"id": "a", "created": 1, "owned_by": "x"}, {"id": "b", "created": 2, "owned_by": "x"})
    other = reply(json.dumps([{"id": "b", "owned_by": "y"}, {"id": "c", "owned_by": "y"}]).encode())
    async with Upstream(one) as first, Upstream(other) as second, asking(first.url, second.url) as found:
        assert [(model["id"], model["owned_by"]) for model in await found()] == [("a", "x"), ("b", "x"), ("c", "y")]


async def test_what_is_not_openais() -> None:
    """What could not be asked for is left out, as are fields that OpenAI does not have; what is missing is made up."""
    odd: list[Any] = [{"id": name} for name in ("", "a\n", "\u202ea", "x" * 257, 5, None)]
    good = {"id": "org/model:free", "created": True, "owned_by": "x" * 257, "permission": [1], "description": ""}
    async with Upstream(listed(*odd, "a", None, good)) as upstream, asking(upstream.url) as found:
        (model,) = await found()
    assert strict.model(model).to_dict() == {
        "id": "org/model:free",
        "object": "model",
        "created": 0,
        "owned_by": "upstream",
    }


async def test_descriptions() -> None:
    """A description is kept as far as it is a text, up to 300 characters."""
    items = [{"id": "a", "description": "x" * 301}, {"id": "b", "description": 5}]
    async with Upstream(listed(*items)) as upstream, asking(upstream.url) as found:
        assert [model.get("description") for model in await found()] == ["x" * 300, None]


async def test_names_beyond_ascii() -> None:
    """A model whose name is not ASCII is listed as the upstream has it."""
    names = [("流式抗截断/gemini-2.5-pro", "智谱"), ("🦙", "Мы")]
    items = [{"id": name, "owned_by": owner} for name, owner in names]
    async with Upstream(listed(*items)) as upstream, asking(upstream.url) as found:
        assert [(model["id"], model["owned_by"]) for model in await found()] == names


@pytest.mark.parametrize(
    "answer",
    [
        cut_off,
        reply(b"{}", status=b"404 Not Found"),
        reply(b"<html>"),
        reply(b'{"data": null}'),
        reply(b'"a"'),
        reply(b"{", headers=b"Content-Encoding: br\r\n"),
    ],
    ids=["cut", "status", "page", "null", "text", "encoding"],
)
async def test_no_answer(answer: Handler | bytes) -> None:
    """An upstream that does not say lists nothing, takes nothing from the others, and is asked again before long."""
    good = listed({"id": "a"})
    now = 0.0
    async with (
        Upstream(answer, good) as bad,
        Upstream(good, good) as fine,
        asking(bad.url, fine.url, clock=lambda: now) as found,
    ):
        assert [model["id"] for model in await found()] == ["a"]
        await found()
        assert len(bad.requests) == 1
        now += 6
        await found()
        assert len(bad.requests) == 2


async def test_too_slow() -> None:
    """An upstream that answers nothing is waited for no longer than there is patience."""

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with Upstream(silence) as upstream, asking(upstream.url, patience=0.05) as found, asyncio.timeout(30):
        assert await found() == ()


async def test_kept() -> None:
    """The list is asked for once a minute, by one for all who want it."""
    now = 0.0
    async with (
        Upstream(listed({"id": "a"}), listed({"id": "b"})) as upstream,
        asking(upstream.url, clock=lambda: now) as found,
    ):
        answers = await asyncio.gather(*(found() for _ in range(5)))
        now += 59
        answers.append(await found())
        assert {model["id"] for answer in answers for model in answer} == {"a"}
        assert len(upstream.requests) == 1
        now += 2
        assert [model["id"] for model in await found()] == ["b"]
