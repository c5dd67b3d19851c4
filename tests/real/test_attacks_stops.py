"""Attacks by readers: more than may read, stops without end, and answers that nobody takes."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import Counter
from collections.abc import Callable

import httpx
import pytest

from tests.edge.dialects.test_hanging_up import DIALECTS
from tests.real.conftest import Start
from tests.real.neighbour import neighbour
from tests.real.processes import Server
from tests.real.redis import RedisServer

pytestmark = pytest.mark.real

KEYS = {name: f"csk_{name}_{secrets.token_hex(16)}" for name in ("mallory", "honest")}
HASHES = ",".join(f"{name}:{hashlib.sha256(key.encode()).hexdigest()}" for name, key in KEYS.items())
MALLORY, HONEST = ({"Authorization": f"Bearer {KEYS[name]}"} for name in ("mallory", "honest"))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_more_posts_than_readers(
    start_watched: Start,
    simulator: Server,
    start_redis: Callable[..., RedisServer],
    counted: Callable[[], dict[str, int]],
    dialect: str,
) -> None:
    """Of 25 requests at once with two readers allowed, two are answered, and only these reach the upstream."""
    service = start_watched(simulator, journal=start_redis().url, readers_per_principal=2, api_keys=HASHES)
    path, body, _ = DIALECTS[dialect]
    body = {**body, "model": "sim-gpt?first=1&rate=0"}

    async def attack() -> Counter[int]:
        async def ask(client: httpx.AsyncClient) -> int:
            async with client.stream("POST", path, json=body) as answer:
                await answer.aread()
                return answer.status_code

        async with httpx.AsyncClient(base_url=service.url, headers=MALLORY, timeout=60) as client:
            return Counter(await asyncio.gather(*(ask(client) for _ in range(25))))

    with neighbour(service, HONEST):
        before = counted()
        statuses = asyncio.run(attack())
        made = counted()
    assert statuses == {200: 2, 429: 23}
    assert made["streams_started"] - before["streams_started"] == 2
