"""What the endpoints of all dialects share: a reader's place is kept before anything is paid for."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from structlog.typing import FilteringBoundLogger

import app.edge.positions
from app.errors import JournalDown
from app.events import Delta, Done
from app.request import ANYONE, Allowance
from tests.edge.dialects.test_hanging_up import DIALECTS
from tests.edge.service import serving
from tests.waiting import until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_more_posts_than_readers(
    log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    """Of many requests at once, only those that may read their stream open one, however slow the journal is."""
    path, body, _ = DIALECTS[dialect]
    async with serving(log, (Delta("hi"), Done("stop"))) as (service, client):
        service.allowance = Allowance(readers=2)
        create = service.journal.create
        asked, opened = Counter[str](), asyncio.Event()

        async def slow(*arguments: Any) -> Any:
            asked["journal"] += 1
            await opened.wait()
            return await create(*arguments)

        monkeypatch.setattr(service.journal, "create", slow)
        posts = [asyncio.create_task(client.post(path, json=body)) for _ in range(25)]
        await until(lambda: sum(post.done() for post in posts) == 23)
        opened.set()
        answers = await asyncio.gather(*posts)
        assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 23
        assert (asked["journal"], len(service.journal)) == (2, 2)
        assert (await client.post(path, json=body)).status_code == 200
        assert not service.hub._readers_of


@pytest.mark.parametrize("failing", ["create", "open"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_place_is_given_back(log: FilteringBoundLogger, dialect: str, failing: str) -> None:
    """A request that fails while it opens its stream, or before it reads it, keeps no place."""
    path, body, _ = DIALECTS[dialect]
    async with serving(log, (Delta("hi"),), asyncio.Event().wait) as (service, client):
        service.allowance = Allowance(readers=1)

        async def fail(*_: Any) -> Any:
            raise JournalDown

        setattr(service.journal, failing, fail)
        for _ in range(3):
            assert (await client.post(path, json=body)).status_code == 503
        assert not service.hub._readers_of
        assert service.hub.live == (0 if failing == "create" else 3)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/ai-sdk/chat/{}/stream", {"startIndex": "99"}),
        ("/v1/responses/resp_{}", {"stream": "true", "starting_after": "99"}),
    ],
)
async def test_the_search_for_an_event_takes_a_place(
    log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch, path: str, query: dict[str, str]
) -> None:
    """A client whose event is searched for, or waited for, is one of the readers, of which there are only so many."""
    monkeypatch.setattr(app.edge.positions, "_LATE", 0.05)
    async with serving(log, (Delta("hi"), Done("stop"))) as (service, client):
        opened = await client.post("/v1/chat", json={"prompt": "hi"})
        url = path.format(opened.headers["x-stream-id"])
        service.allowance = Allowance(readers=1)
        with service.hub.reserve(ANYONE._replace(allowance=service.allowance)):
            assert (await client.get(url, params=query)).status_code == 429
        assert (await client.get(url, params=query)).status_code == 400
        assert not service.hub._readers_of
