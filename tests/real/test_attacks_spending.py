"""Attacks on budgets and rates: stops before the usage, streams in parallel, and quotas that are made to fail."""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from tests.real.conftest import Start
from tests.real.neighbour import BODY, neighbour
from tests.real.processes import Server
from tests.real.redis import RedisServer
from tests.waiting import wait_until

pytestmark = pytest.mark.real

README = Path(__file__).parent.parent.parent / "deploy" / "README.md"
NAMES = {name: f"csk_{name}_{secrets.token_hex(16)}" for name in ("mallory", "honest")}
KEYS = ",".join(f"{name}:{hashlib.sha256(key.encode()).hexdigest()}" for name, key in NAMES.items())
MALLORY, HONEST = ({"Authorization": f"Bearer {NAMES[name]}"} for name in ("mallory", "honest"))
JSON = {"Accept": "application/json"}
THINK = {"prompt": "x", "model": "thinker"}
SHARED = {"api_keys": KEYS, "secret": "s" * 32}


class Handler(BaseHTTPRequestHandler):
    """Answers `thinker` with one delta and then hidden reasoning, without end, and other models at 20 deltas a second.

    It answers `stuck` with hidden reasoning alone. The server's `allowed` are the limits that it was sent for these
    two: all these tokens are made and billed.
    """

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):
            thinks = asked["model"] in ("thinker", "stuck")
            if asked["model"] != "stuck":
                self._say("a")
            if thinks:
                self.server.allowed.append(asked.get("max_completion_tokens", 1 << 30))  # type: ignore[attr-defined]  # `Upstream`, below, has it
                self.connection.recv(1)
            while not thinks:
                time.sleep(0.05)
                self._say("b")

    def _say(self, text: str) -> None:
        self.wfile.write(b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Upstream(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.allowed: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has left."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def start(service: Server, **headers: str) -> httpx.Response:
    return httpx.post(f"{service.url}/v1/chat", json=THINK, headers={**MALLORY, **JSON, **headers}, timeout=60)


@pytest.mark.parametrize("journal", ["memory", "redis"])
def test_answers_that_are_stopped(
    start_watched: Start, start_redis: Callable[..., RedisServer], upstream: Upstream, journal: str
) -> None:
    """Twenty-five answers, each stopped while it reasons, take no more than the budget of 1,000 tokens."""
    url = start_redis().url if journal == "redis" else journal
    service = start_watched(upstream.url, journal=url, tokens_per_day=1000, reserve_tokens=300, **SHARED)
    statuses = Counter[int]()
    with neighbour(service, HONEST):
        for _ in range(25):
            answer = start(service)
            statuses[answer.status_code] += 1
            if answer.status_code == 201:
                wait_until(lambda: len(upstream.allowed) == statuses[201])
                stopped = httpx.delete(service.url + answer.json()["url"], headers=MALLORY)
                assert stopped.json()["finish_reason"] == "cancelled"
    assert statuses == {201: 4, 429: 21}
    assert upstream.allowed == [300, 300, 300, 100]
    refused = start(service)
    assert refused.json()["error"]["code"] == "token_budget_spent"
    assert 80_000 < int(refused.headers["Retry-After"]) <= 86_400
    assert (refused.headers["RateLimit-Limit"], refused.headers["RateLimit-Remaining"]) == ("1000", "0")


@pytest.mark.parametrize("journal", ["memory", "redis"])
def test_streams_in_parallel(
    start_watched: Start, start_redis: Callable[..., RedisServer], upstream: Upstream, journal: str
) -> None:
    """Streams that are opened at once, by one process or two, take no more than the budget together."""
    url = start_redis().url if journal == "redis" else journal
    processes = [
        start_watched(upstream.url, journal=url, tokens_per_day=1000, reserve_tokens=150, **SHARED)
        for _ in range(1 if journal == "memory" else 2)
    ]
    with neighbour(processes[0], HONEST), ThreadPoolExecutor(25) as threads:
        answers = list(threads.map(start, processes * (26 // len(processes))))
        wait_until(lambda: len(upstream.allowed) == 7)
    assert Counter(answer.status_code for answer in answers) == {201: 7, 429: 19}
    assert sum(upstream.allowed) == 1000
    held = next(answer for answer in answers if answer.status_code == 429)
    assert (held.json()["error"]["code"], held.headers["Retry-After"]) == ("token_budget_spent", "5")


@pytest.mark.parametrize("journal", ["memory", "redis"])
def test_fallbacks_in_parallel(
    start_watched: Start, start_redis: Callable[..., RedisServer], upstream: Upstream, tmp_path: Path, journal: str
) -> None:
    """Streams that fall back after their first upstream has made tokens take no more than the budget for both."""
    config = tmp_path / "upstreams.toml"
    config.write_text(
        f'[[upstreams]]\nname = "slow"\nbase_url = "{upstream.url}"\nfirst_token_timeout = 3\n'
        f'[[upstreams]]\nname = "good"\nbase_url = "{upstream.url}"\n'
        '[[models]]\nname = "thinker"\nroute = ["slow/stuck", "good/thinker"]\n'
        f'[[models]]\nname = "{BODY["model"]}"\nroute = ["good/talker"]\n'
    )
    url = start_redis().url if journal == "redis" else journal
    limits: dict[str, Any] = {"tokens_per_day": 1000, "reserve_tokens": 150, "streams_per_principal": 4, **SHARED}
    processes = [start_watched(config=config, journal=url, **limits) for _ in range(1 if journal == "memory" else 2)]
    with neighbour(processes[0], HONEST), ThreadPoolExecutor(25) as threads:
        answers = list(threads.map(start, processes * (26 // len(processes))))
        opened = [processes[0].url + answer.json()["url"] for answer in answers if answer.status_code == 201]

        def snapshots() -> list[dict[str, Any]]:
            return [httpx.get(each, headers={**MALLORY, **JSON}).json() for each in opened]

        # Each has content from its second upstream, or was not allowed to ask that.
        wait_until(lambda: all(each.get("content") or each["state"] == "error" for each in snapshots()))
        failed = [each["error"]["code"] for each in snapshots() if each["state"] == "error"]
    assert len(opened) == 4
    assert set(failed) <= {"token_budget_spent"}
    assert 150 * 4 < sum(upstream.allowed) <= 1000
    for each in opened:
        httpx.delete(each, headers=MALLORY)
    assert start(processes[0]).status_code == 429


def steps_4_and_5() -> dict[str, str]:
    """The settings that these steps of deploy/README.md name with a value."""
    steps = README.read_text().partition("4. **Models and caps.**")[2].partition("6. **TLS")[0]
    return {name.lower(): value for name, value in re.findall(r"`CHAT_SSE_(\w+)=(\w\S*)`", steps)}


def test_the_settings_of_the_readme(start_watched: Start, upstream: Upstream) -> None:
    """With the settings of steps 4 and 5, answers that are stopped while they reason take no more than the budget.

    Only the requests a minute are more than there, so that the attack is over soon.
    """
    settings = steps_4_and_5() | {"requests_per_minute": "0", "models": f"thinker,{BODY['model']}"}
    assert settings.keys() == {
        *("models", "max_output_tokens", "max_prompt_chars", "requests_per_minute", "streams_per_principal"),
        *("readers_per_principal", "tokens_per_day", "count_input_tokens"),
    }
    most, prompt = int(settings["tokens_per_day"]), "x" * 36_000
    service = start_watched(upstream.url, **settings, **SHARED)
    statuses = Counter[int]()
    with neighbour(service, HONEST):
        while not statuses[429]:
            answer = httpx.post(
                f"{service.url}/v1/chat", json={**THINK, "prompt": prompt}, headers={**MALLORY, **JSON}, timeout=60
            )
            statuses[answer.status_code] += 1
            if answer.status_code == 201:
                wait_until(lambda: len(upstream.allowed) == statuses[201])
                httpx.delete(service.url + answer.json()["url"], headers=MALLORY).raise_for_status()
    assert answer.json()["error"]["code"] == "token_budget_spent"
    assert max(upstream.allowed) == int(settings["max_output_tokens"])
    taken = sum(upstream.allowed) + statuses[201] * len(prompt) // 4
    assert most - 11_100 < taken <= most


def test_a_spent_budget_and_a_key(start_watched: Start, upstream: Upstream) -> None:
    """With the budget spent, requests with an idempotency key are counted as all are; a repeated key attaches."""
    service = start_watched(upstream.url, tokens_per_day=100, requests_per_minute=30, **SHARED)
    first = start(service, **{"Idempotency-Key": "mine"})
    again = start(service, **{"Idempotency-Key": "mine"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json()["stream_id"] == first.json()["stream_id"]
    began = time.monotonic()
    with neighbour(service, HONEST):
        codes = Counter(start(service, **{"Idempotency-Key": f"k{n}"}).json()["error"]["code"] for n in range(60))
    assert codes.keys() == {"token_budget_spent", "rate_limited"}
    assert codes["token_budget_spent"] <= 28 + slid(30, began)
    full(service)
    refused = start(service, **{"Idempotency-Key": "mine"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")


def full(service: Server) -> None:
    """Use up mallory's requests of this minute."""
    wait_until(lambda: look(service) == 429)


def slid(limit: int, began: float) -> int:
    """Return how many requests more than *limit* a minute there may have been room for since then, at most."""
    return 2 + math.ceil(limit * (time.monotonic() - began) / 60)


def look(service: Server) -> int:
    return httpx.get(f"{service.url}/v1/models", headers=MALLORY, timeout=60).status_code


def test_a_stall_with_redis(start_watched: Start, start_redis: Callable[..., RedisServer], upstream: Upstream) -> None:
    """While a limit is full, none of 40 requests passes because this process was stalled as Redis answered."""
    redis = start_redis()
    service = start_watched(upstream.url, journal=redis.url, requests_per_minute=20, **SHARED)
    full(service)
    began = time.monotonic()
    statuses = Counter[int]()
    with ThreadPoolExecutor(10) as threads:
        for _ in range(4):
            redis.send(signal.SIGSTOP)
            asked = [threads.submit(look, service) for _ in range(10)]
            time.sleep(0.3)  # they wait for Redis now; if some do not yet, the attack is weaker
            service.send(signal.SIGSTOP)
            redis.send(signal.SIGCONT)
            time.sleep(1.3)  # longer than the service is patient with Redis
            service.send(signal.SIGCONT)
            statuses.update(each.result() for each in asked)
    assert statuses[200] <= slid(20, began)
    assert statuses.total() == 40


def test_a_redis_that_is_killed(
    start_watched: Start, start_redis: Callable[..., RedisServer], upstream: Upstream
) -> None:
    """A limit that was full stays full when Redis dies, and no stream can be opened on a budget that cannot be read."""
    redis = start_redis()
    service = start_watched(upstream.url, journal=redis.url, requests_per_minute=30, tokens_per_day=1000, **SHARED)
    full(service)
    began = time.monotonic()
    redis.kill()
    statuses = Counter(look(service) for _ in range(40))
    assert statuses[200] <= slid(30, began)
    opened = httpx.post(f"{service.url}/v1/chat", json=THINK, headers={**HONEST, **JSON})
    assert (opened.status_code, opened.json()["error"]["code"]) == (503, "journal_unavailable")
    assert "quota.unavailable" in service.text()


def test_a_process_that_is_killed(
    start_service: Start, start_redis: Callable[..., RedisServer], upstream: Upstream
) -> None:
    """What a process had reserved is given back when it is killed, and until then no other process can spend it."""
    redis = start_redis()
    limits: dict[str, Any] = {"journal": redis.url, "tokens_per_day": 1000, **SHARED}
    doomed, other = [start_service(upstream.url, **limits) for _ in range(2)]
    assert start(doomed).status_code == 201
    wait_until(lambda: upstream.allowed == [1000])
    doomed.kill()
    assert start(other).status_code == 429
    with neighbour(other, HONEST):
        wait_until(lambda: start(other).status_code == 201, timeout=120)
    wait_until(lambda: upstream.allowed == [1000, 1000])


def test_the_name_is_in_no_log(start_service: Start, start_redis: Callable[..., RedisServer]) -> None:
    """The canonical line names a principal by the same hash in every process with the secret, and Redis by no other."""
    redis = start_redis()
    settings: dict[str, Any] = {"journal": redis.url, "tokens_per_day": 1000, "requests_per_minute": 50, **SHARED}
    quick = {"prompt": "hi", "model": "sim-echo?rate=0&first=0"}
    lines = []
    for plain in (False, False, True):
        service = start_service(None, log_format="json", log_principals=plain, **settings)
        httpx.post(f"{service.url}/v1/chat", json=quick, headers=MALLORY).raise_for_status()
        lines.append(json.loads(service.awaits(r"(\{.*\"stream\.finished\".*\})")[1]))
        assert plain or "mallory" not in service.text()
    names = [line["principal"] for line in lines]
    assert names[0] == names[1]
    assert names[2] == "key:mallory"
    assert len(names[0]) == 32
    with redis.client() as client:
        found = [key for key in client.keys("*") if b"budget" in key or b"limits" in key]
    assert len(found) >= 2
    assert all(names[0].encode() in key for key in found)
