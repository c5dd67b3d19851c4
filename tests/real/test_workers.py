"""`serve --workers`: several processes behind one port, looked after, replaced and ended together."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli import main
from app.cli.process import listen
from app.request import keyed_hash
from tests.ports import free_ports
from tests.real.conftest import Start
from tests.real.processes import Server
from tests.real.redis import RedisServer
from tests.waiting import wait_until

pytestmark = pytest.mark.real

COUNT = 2
FAST = {"prompt": "hi", "model": "sim-echo?rate=0&first=0"}
SLOW = {"prompt": "hi", "model": "never-ends"}
NO_READER = {"Accept": "application/json"}
DIGEST = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # of the key "hello"

StartWorkers = Callable[..., Server]


@pytest.fixture
def start_workers(start_redis: Callable[..., RedisServer], simulator: Server, start_service: Start) -> StartWorkers:
    """Start a service of `COUNT` workers, with a Redis of its own."""

    def start(**settings: Any) -> Server:
        return start_service(simulator, journal=start_redis().url, workers=COUNT, log_format="json", **settings)

    return start


def logged(service: Server, event: str) -> list[dict[str, Any]]:
    """Return the log lines of *event*."""
    lines = (line for line in service.text().splitlines() if line.startswith("{") and line.endswith("}"))
    return [line for line in map(json.loads, lines) if line["event"] == event]


def pids(service: Server) -> list[int]:
    """Return the process ids of all workers that ever accepted connections, in that order."""
    return [line["pid"] for line in logged(service, "worker.started")]


def alive(pid: int) -> bool:
    """Whether a process runs. One that has ended may wait for a parent that never asks how, as in a container."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return not stat.rpartition(") ")[2].startswith("Z")


def ask(service: Server) -> None:
    """Ask for an answer on a connection of its own, and read it to its end."""
    answer = httpx.post(f"{service.url}/v1/chat", json=FAST)
    assert answer.status_code == 200, answer.text
    assert "event: done" in answer.text


class Clients(threading.Thread):
    """Asks for answers until told to stop: every other time on a connection that is kept, else on a new one."""

    def __init__(self, service: Server) -> None:
        super().__init__(daemon=True)
        self.service = service
        self.answers = 0
        self.failures: list[str] = []
        self.enough = threading.Event()
        self.start()

    def run(self) -> None:
        with httpx.Client() as kept:
            while not self.enough.is_set():
                for post in (kept.post, httpx.post):
                    try:
                        answer = post(f"{self.service.url}/v1/chat", json=FAST)
                        if answer.status_code != 200 or "event: done" not in answer.text:
                            self.failures.append(f"{answer.status_code} {answer.text}")
                    except httpx.HTTPError as error:
                        self.failures.append(repr(error))
                    self.answers += 1

    def end(self) -> None:
        self.enough.set()
        self.join(20)
        assert not self.is_alive()


def test_all_answer(start_workers: StartWorkers) -> None:
    """All workers serve the one port, each stream is known to all of them, and SIGTERM ends them all with 0."""
    service = start_workers()
    assert len(set(pids(service))) == COUNT
    started = httpx.post(f"{service.url}/v1/chat", json=FAST, headers=NO_READER).json()
    for _ in range(500):
        ask(service)
        assert httpx.get(f"{service.url}{started['url']}").status_code == 200
        opened = Counter(line["worker"] for line in logged(service, "stream.opened"))
        attached = {line["worker"] for line in logged(service, "subscriber.attached")}
        if len(opened) == len(attached) == COUNT:
            break
    assert opened.keys() == attached == set(range(COUNT))
    service.send(signal.SIGTERM)
    assert service.ended() == 0
    assert not [pid for pid in pids(service) if alive(pid)]
    assert [line["status"] for line in logged(service, "worker.ended")] == [0] * COUNT
    assert "Traceback" not in service.text()


def test_metrics(start_workers: StartWorkers) -> None:
    """Each worker has its own metrics on a port of its own, which add up to what the service did."""
    first = free_ports(COUNT)
    service = start_workers(metrics_port=first)
    for _ in range(10):
        ask(service)
    scrapes = [httpx.get(f"http://127.0.0.1:{first + number}/metrics").text for number in range(COUNT)]
    opened = Counter(line["worker"] for line in logged(service, "stream.opened"))
    for number, scrape in enumerate(scrapes):
        lines = [line for line in scrape.splitlines() if line.startswith("chat_sse_streams_total{")]
        assert sum(float(line.split()[-1]) for line in lines) == opened[number], scrape
        for method, path in (("GET", "/healthz"), ("GET", "/"), ("POST", "/v1/chat"), ("GET", "/v1/models")):
            refused = httpx.request(method, f"http://127.0.0.1:{first + number}{path}")
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
    assert httpx.get(f"{service.url}/healthz").text == "ok\n"


@pytest.mark.usefixtures("measured")
def test_a_dead_worker_is_replaced(start_workers: StartWorkers) -> None:
    """A worker that is killed is started again, at once the first time; the others answer meanwhile."""
    service = start_workers()
    victim = pids(service)[1]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: logged(service, "worker.died"))
    while len(pids(service)) == COUNT:
        ask(service)
    (died,) = logged(service, "worker.died")
    assert (died["pid"], died["status"], died["again_in"]) == (victim, -signal.SIGKILL, 0.1)
    assert logged(service, "worker.started")[-1]["worker"] == died["worker"]
    service.send(signal.SIGTERM)
    assert service.ended() == 0


@pytest.mark.usefixtures("measured")
def test_reload(start_workers: StartWorkers) -> None:
    """SIGHUP replaces all workers, one at a time, and no request fails meanwhile, on kept connections or new ones."""
    service = start_workers(shutdown_grace=1)
    before = pids(service)
    while len({line["worker"] for line in logged(service, "stream.opened")}) < COUNT:
        # Each has a live stream, so that it takes its time to leave; it needs no reader.
        httpx.post(f"{service.url}/v1/chat", json={**SLOW, "on_disconnect": "continue"}, headers=NO_READER)
    clients = [Clients(service) for _ in range(3)]
    service.send(signal.SIGHUP)
    wait_until(lambda: len(logged(service, "worker.ended")) == COUNT, timeout=60)
    for client in clients:
        client.end()
    assert [failure for client in clients for failure in client.failures] == []
    assert all(client.answers > 10 for client in clients)
    assert sorted(line["pid"] for line in logged(service, "worker.ended")) == sorted(before)
    assert not [pid for pid in before if alive(pid)]
    kinds = [line for line in service.text().splitlines() if '"event": "worker.' in line][COUNT:]
    assert ["started" in line for line in kinds] == [True, False] * COUNT, "one was ended before another was there"
    ask(service)


def test_a_reload_that_fails_changes_nothing(start_workers: StartWorkers) -> None:
    """If the settings have become wrong, SIGHUP says so, and the workers that are there go on."""
    service = start_workers()
    (service.log.parent / ".env").write_text("CHAT_SSE_CHUNK=paragraph\n")
    service.send(signal.SIGHUP)
    service.awaits("workers.not_reloaded")
    service.awaits("CHAT_SSE_CHUNK is not right")
    assert len(pids(service)) == COUNT
    assert all(map(alive, pids(service)))
    ask(service)


def test_no_orphans(start_workers: StartWorkers) -> None:
    """If the supervisor is killed, the workers free the port at once, let live streams finish, and end."""
    service = start_workers(shutdown_grace=10)
    with (
        httpx.Client() as client,
        client.stream("POST", f"{service.url}/v1/chat", json=SLOW) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines).startswith("retry:")
        service.kill()

        def freed() -> bool:
            with httpx.Client() as other:
                try:
                    other.get(f"{service.url}/healthz")
                except httpx.ConnectError:
                    return True
                return False

        wait_until(freed)
        assert not logged(service, "stream.failed"), "the port was kept until the live stream had ended"
        with closing(listen("127.0.0.1", service.port)):
            pass
        assert '"code":"shutting_down"' in "\n".join(lines)
    wait_until(lambda: not [pid for pid in pids(service) if alive(pid)])


def test_wrong_settings(start_redis: Callable[..., RedisServer], start_service: Start) -> None:
    """What only a worker finds wrong ends all with status 2, and is said once."""
    with pytest.raises(AssertionError, match="ended with 2:") as raised:
        start_service(journal=start_redis().url, workers=COUNT, api_keys="nonsense")
    assert str(raised.value).count("CHAT_SSE_API_KEYS is not right") == 1


def test_refused_in_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """Several workers without a journal that they can share are refused, with a sentence that says what to set."""
    assert main(["serve", "--workers", "2"]) == 2
    assert "set CHAT_SSE_JOURNAL to redis://" in capsys.readouterr().err


def test_one_of_several_wants_a_secret(start_redis: Callable[..., RedisServer], start_service: Start) -> None:
    """One process that shares a journal warns if its tickets are its own; not if there are none, or it has a secret."""
    journal = start_redis().url
    keys = {"journal": journal, "api_keys": f"me:{DIGEST}"}
    start_service(**keys, log_format="json").awaits("secret.missing")
    for settings in ({"journal": journal}, {**keys, "secret": "s" * 32}):
        assert "secret.missing" not in start_service(**settings, log_format="json").text()


def test_they_share_a_secret(start_workers: StartWorkers) -> None:
    """A ticket that one worker gave is good at every other, without any setting for it."""
    service = start_workers(api_keys=f"me:{DIGEST}")
    headers = {"Authorization": "Bearer hello", **NO_READER}
    started = httpx.post(f"{service.url}/v1/chat", json=FAST, headers=headers).json()
    assert "ticket=" in started["url"]
    for _ in range(500):
        assert httpx.get(f"{service.url}{started['url']}").status_code == 200
        if len({line["worker"] for line in logged(service, "subscriber.attached")}) == COUNT:
            # The secret is of this start only: whose a stream is has to be known after the next one, too.
            assert {line["principal"] for line in logged(service, "stream.finished")} == {keyed_hash("key:me")}
            return
    raise AssertionError("not all workers were asked")
