"""Every pair of a principal's limits: a used up one frees from no other, and what it refuses is taken from none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import combinations
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from app.edge.access.authentication import AccessMiddleware, Credentials
from app.edge.access.budgets import DailyBudgets
from app.edge.access.quota import Quota
from app.edge.access.rates import Counts, MemoryCounts
from app.events import Delta
from app.journal.budgets import MemoryBudgets
from app.journal.holder import Holder
from app.journal.memory import MemoryLog
from app.request import Allowance, Principal, StreamRequest
from app.upstream import Attempt
from tests.edge.service import Service
from tests.script import forever
from tests.waiting import until

pytestmark = pytest.mark.anyio

# In the order in which they are asked: the status and the code of each one's refusal.
LIMITS = {
    "rate": (429, "rate_limited"),
    "readers": (429, "too_many_readers"),
    "idempotency": (422, "idempotency_key_reused"),
    "streams": (429, "too_many_streams"),
    "budget": (429, "token_budget_spent"),
    "bytes": (503, "overloaded"),
}
SHARED = [limit for limit in LIMITS if limit != "idempotency"]
MOST, RESERVED = 30, 100
BODY = {"prompt": "hi"}
KEY = {"Idempotency-Key": "first"}
JSON = {"Accept": "application/json"}
ANN = Principal("ann").counted_as()


class Limited(Service):
    """A service with all limits. Its streams have one delta, and go on. Ann has one, and reads it."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        self.accounts = MemoryBudgets()
        self.budgets = DailyBudgets(self.accounts, RESERVED)
        self.counts = MemoryCounts()
        super().__init__(log, (Delta("a"),), forever, grace=60, observers=[self.budgets])
        self.allowance = Allowance(MOST, MOST, MOST * RESERVED, MOST)
        service = self

        class Named(Credentials):
            async def principal(self, scope: Scope) -> Principal:
                return Principal(Headers(scope=scope)["x-who"], service.allowance)

        self._access = AccessMiddleware(self._app, Named(), Quota(Counts(self.counts), self.budgets, 0), ())

    async def _gate(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._access(scope, receive, send)

    async def reserve(self, stream_id: str, request: StreamRequest, principal: Principal) -> StreamRequest:
        return await self.budgets.reserve(stream_id, request, principal)

    async def extend(self, stream_id: str, request: StreamRequest, attempts: Sequence[Attempt]) -> StreamRequest:
        return await self.budgets.extend(stream_id, request, attempts)

    async def release(self, stream_id: str) -> None:
        await self.budgets.release(stream_id)

    async def use_up(self, limit: str, client: httpx.AsyncClient) -> None:
        """Leave nothing of one limit: what Ann's stream has taken is all of it."""
        match limit:
            case "rate":
                self.allowance = self.allowance._replace(requests=MOST)
                while (await client.get("/v1/models")).status_code == 200:
                    pass
            case "bytes":
                self._holder().most = 1
            case "budget":
                self.allowance = self.allowance._replace(tokens=RESERVED)
            case _:
                self.allowance = self.allowance._replace(**{limit: 1})

    def raise_(self, limit: str) -> None:
        """Allow more of a limit that was used up. Another rate is counted by itself."""
        if limit == "bytes":
            self._holder().most = 1 << 30
        else:
            field = {"rate": "requests", "budget": "tokens"}.get(limit, limit)
            self.allowance = self.allowance._replace(**{field: MOST * RESERVED + 1})

    def _holder(self) -> Holder[MemoryLog]:
        """Return what counts the bytes of Ann's streams."""
        [holder] = {log.holder for log in self.journal._logs.values()}
        return holder

    async def taken(self) -> tuple[Any, ...]:
        """Return what is taken of all limits but the rate."""
        return (
            dict(self.hub._readers_of),
            self.hub._reserved,
            {owner: set(streams) for owner, streams in self.journal.registry._slots.items()},
            dict(self.journal.registry._claims),
            (await self.accounts.balance(ANN))[:2],
            (len(self.journal), self.journal.size),
        )


@asynccontextmanager
async def limited(log: FilteringBoundLogger) -> AsyncIterator[tuple[Limited, httpx.AsyncClient]]:
    service = Limited(log)
    transport = httpx.ASGITransport(service.app)
    headers = {"X-Who": "ann"}
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client,
        asyncio.timeout(30),
    ):
        reader = asyncio.create_task(client.post("/v1/chat", json=BODY, headers=KEY))
        try:
            await until(lambda: service.hub.reading == 1)
            [stream] = service.hub._streams.values()
            await until(lambda: stream.relay.deltas == 1)
            yield service, client
        finally:
            reader.cancel()
            await asyncio.wait([reader])
            await service.hub.drain(0)


async def refusal(client: httpx.AsyncClient, **headers: str) -> tuple[int, str]:
    answer = await client.post("/v1/chat", json={"prompt": "another"}, headers=headers)
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize("limit", LIMITS)
async def test_a_refusal_takes_nothing(log: FilteringBoundLogger, limit: str) -> None:
    """What one limit refuses is taken from no other, however many ask at once; only requests count as requests."""
    async with limited(log) as (service, client):
        if limit in SHARED:
            await service.use_up(limit, client)
        key = KEY if limit == "idempotency" else {"Idempotency-Key": "second"}
        before, requests = await service.taken(), service.counts.storage.total()
        assert set(await asyncio.gather(*(refusal(client, **key) for _ in range(5)))) == {LIMITS[limit]}
        assert await service.taken() == before
        assert service.counts.storage.total() - requests == (0 if limit == "rate" else 5)
        assert service.source.started == 1


@pytest.mark.parametrize(("first", "second"), [*combinations(SHARED, 2)])
async def test_two_that_are_used_up(log: FilteringBoundLogger, first: str, second: str) -> None:
    """With two limits used up, either alone refuses; with neither, the stream is opened."""
    async with limited(log) as (service, client):
        for limit in (second, first):
            await service.use_up(limit, client)
        assert await refusal(client) == LIMITS[first]
        service.raise_(first)
        assert await refusal(client) == LIMITS[second]
        await service.use_up(first, client)
        service.raise_(second)
        assert await refusal(client) == LIMITS[first]
        service.raise_(first)
        assert (await client.post("/v1/chat", json=BODY, headers=JSON)).status_code == 201


@pytest.mark.parametrize("limit", SHARED)
async def test_a_repeated_key(log: FilteringBoundLogger, limit: str) -> None:
    """A request whose key stands for a stream needs none of what opens one; it is a request, and reads as others do."""
    async with limited(log) as (service, client):
        [stream_id] = service.hub._streams
        await service.use_up(limit, client)
        told = await client.post("/v1/chat", json=BODY, headers=KEY | JSON)
        assert told.status_code == (429 if limit == "rate" else 201)
        assert limit == "rate" or told.json()["stream_id"] == stream_id
        reading = asyncio.create_task(client.post("/v1/chat", json=BODY, headers=KEY))
        await until(lambda: reading.done() or service.hub.reading == 2)
        assert (service.hub.reading == 1) is (limit in ("rate", "readers"))
        await service.hub.drain(0)
        answer = await reading
        assert answer.status_code == (429 if limit in ("rate", "readers") else 200)
        assert service.source.started == 1
