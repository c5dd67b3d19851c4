"""Attacks on the room that all share: principals that fill the journal, and what their neighbours keep of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import httpx
import pytest

from tests.real.conftest import Start
from tests.real.neighbour import neighbour
from tests.real.processes import Server
from tests.real.redis import RedisServer
from tests.waiting import wait_until

pytestmark = pytest.mark.real

NAMES = ("honest", "m0", "m1", "m2")
SECRETS = {name: f"csk_{name}_{secrets.token_hex(16)}" for name in NAMES}
KEYS = ",".join(f"{name}:{sha256(key.encode()).hexdigest()}" for name, key in SECRETS.items())
HONEST = {"Authorization": f"Bearer {SECRETS['honest']}"}
JSON = {**HONEST, "Accept": "application/json"}
SMALL = {"prompt": "hi", "model": "sim-gpt?rate=0&first=0&tokens=20"}
# Half a megabyte in Redis, and five of a process's memory.
LARGE = {"prompt": "hi", "model": "sim-gpt?rate=0&first=0&tokens=300", "logprobs": True, "top_logprobs": 20}
REDIS = 16 << 20


@pytest.mark.parametrize(("journal", "streams"), [("memory", 12), ("redis", 45)])
def test_large_answers(
    journal: str, streams: int, start_service: Start, simulator: Server, start_redis: Callable[..., RedisServer]
) -> None:
    """Each attacker is below its own bound, and together they are far above all that there is.

    The largest holders lose answers. The neighbour's are still there, it gets new ones, and its live one has no gap.
    """
    redis = start_redis("--maxmemory", str(REDIS), "--maxmemory-policy", "noeviction") if journal == "redis" else None
    bounds = {"max_total": 32 << 20, "max_per_principal": 24 << 20}
    place = redis.url if redis else "memory"
    service = start_service(simulator, journal=place, api_keys=KEYS, secret="s" * 32, **bounds)
    with httpx.Client(base_url=service.url, headers=JSON, timeout=60) as honest:
        kept = [answered(honest) for _ in range(5)]

        def attack(number: int) -> int:
            headers = {"Authorization": f"Bearer {SECRETS[f'm{number % 3}']}"}
            return httpx.post(f"{service.url}/v1/chat", json=LARGE, headers=headers, timeout=60).status_code

        with neighbour(service, HONEST) as other, ThreadPoolExecutor(2) as pool:
            attacks = pool.map(attack, range(streams))
            meanwhile = [answered(honest) for _ in range(5)]
            statuses = [*attacks]
        assert statuses.count(200) > streams // 2, "the attack did not come about"
        assert other.looks
        for stream_id in (*kept, *meanwhile):
            assert honest.get(f"/v1/streams/{stream_id}").json()["state"] == "done"
    if redis:
        with redis.client() as client:
            wait_until(lambda: in_use(client) < 0.75)
        service.awaits("journal.full")


def answered(client: httpx.Client) -> str:
    """Return the id of a stream that has ended. While there is no room, ask again, as an honest client does."""
    answers: list[httpx.Response] = []

    def asked() -> bool:
        answers.append(client.post("/v1/chat", json=SMALL))
        return answers[-1].status_code != 503

    wait_until(asked)
    stream_id: str = answers[-1].raise_for_status().json()["stream_id"]
    wait_until(lambda: client.get(f"/v1/streams/{stream_id}").json()["state"] == "done")
    return stream_id


def in_use(client: Any) -> float:
    """Return what Redis has in use of its memory."""
    usage: Any = client.info("memory")
    return float(usage["used_memory"] / usage["maxmemory"])
