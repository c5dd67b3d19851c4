"""Attacks by readers: more than may read, stops without end, and answers that no client takes."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests.edge.dialects.test_hanging_up import DIALECTS
from tests.real.conftest import Start
from tests.real.neighbour import neighbour
from tests.real.processes import Server
from tests.real.redis import RedisServer
from tests.real.wire import request
from tests.waiting import wait_until

pytestmark = pytest.mark.real

KEYS = {name: f"csk_{name}_{secrets.token_hex(16)}" for name in ("mallory", "honest")}
HASHES = ",".join(f"{name}:{hashlib.sha256(key.encode()).hexdigest()}" for name, key in KEYS.items())
MALLORY, HONEST = ({"Authorization": f"Bearer {KEYS[name]}"} for name in ("mallory", "honest"))
JSON = {"Accept": "application/json"}


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


def long_answer(service: Server, headers: dict[str, str]) -> str:
    """Have an answer of twelve million characters made, and return the path of its stream."""
    body = {"prompt": "x", "model": "sim-gpt?rate=0&first=0&tokens=24000&size=1000"}
    with httpx.stream("POST", f"{service.url}/v1/chat", json=body, headers=headers) as answer:
        for _ in answer.iter_raw():
            pass
        return str(answer.headers["Content-Location"])


def asking(method: str, path: str, headers: dict[str, str]) -> bytes:
    fields = [f"{name}: {value}".encode() for name, value in (headers | JSON).items()]
    return request(f"{method} {path} HTTP/1.1".encode(), *fields)


@contextmanager
def unread(service: Server, sent: bytes) -> Iterator[bytes]:
    """Send a request, read the answer's status, which is given, and nothing more."""
    with socket.socket() as sock:
        sock.settimeout(60)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the kernel keeps no more than that for us
        sock.connect(("127.0.0.1", service.port))
        sock.sendall(sent)
        yield sock.recv(12)


@pytest.mark.parametrize(("method", "count"), [("GET", 100), ("DELETE", 400)])
def test_answers_that_no_client_reads(start_watched: Start, simulator: Server, method: str, count: int) -> None:
    """However many requests for a large answer are never read, they take little memory, and no time of others."""
    service = start_watched(simulator, api_keys=HASHES, max_stream=64 << 20)
    path = long_answer(service, MALLORY)
    with neighbour(service, HONEST) as honest, ExitStack() as stack:
        statuses = {stack.enter_context(unread(service, asking(method, path, MALLORY))) for _ in range(count)}
        assert statuses == {b"HTTP/1.1 200"}
        whole = httpx.request(method, service.url + path, headers=MALLORY | JSON)
        assert len(whole.content) > 10_000_000 if method == "GET" else len(whole.content) < 1000
    assert honest.grown < 120


def test_snapshots_of_a_live_stream(start_watched: Start, simulator: Server) -> None:
    """Each snapshot of a stream that grows is another answer. What its owner does not read of them is bounded."""
    service = start_watched(simulator, api_keys=HASHES, max_stream=64 << 20)
    body = {"prompt": "x", "model": "never-ends?first=0&rate=2000&size=1000"}
    started = httpx.post(f"{service.url}/v1/chat", json=body, headers=MALLORY | JSON).json()
    path = f"/v1/streams/{started['stream_id']}"
    statuses = Counter[bytes]()
    with neighbour(service, HONEST) as honest, ExitStack() as stack:
        while not statuses[b"HTTP/1.1 503"] and statuses.total() < 1000:
            statuses[stack.enter_context(unread(service, asking("GET", path, MALLORY)))] += 1
        assert httpx.delete(service.url + path, headers=MALLORY).status_code == 200
    assert set(statuses) == {b"HTTP/1.1 200", b"HTTP/1.1 503"}
    assert honest.grown < 200


def test_snapshots_are_readers(start_service: Start, simulator: Server) -> None:
    """A client that does not read its snapshot takes a reader's place, and gives it back when it leaves."""
    service = start_service(simulator, readers_per_principal=1, max_stream=64 << 20)
    path = long_answer(service, {})
    with unread(service, asking("GET", path, {})) as status:
        assert status == b"HTTP/1.1 200"
        refused = httpx.get(service.url + path, headers=JSON)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_readers")
    wait_until(lambda: httpx.get(service.url + path, headers=JSON).status_code == 200)
