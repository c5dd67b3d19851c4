"""A restart on a socket that a parent keeps: no connection is refused, and readers find their streams."""

from __future__ import annotations

import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.real.clients.sse import Event, check, parse
from tests.real.processes import LISTENS, Server, start_activated
from tests.real.redis import RedisServer
from tests.waiting import wait_until

pytestmark = pytest.mark.real

LIVE = {"prompt": "x", "model": "never-ends?rate=50&first=0", "on_disconnect": "continue", "chunk": "none"}
QUICK = {"prompt": "x", "model": "sim-echo?rate=0&first=0", "chunk": "none"}
SLOW = {**QUICK, "model": "sim-gpt?rate=50&first=0&tokens=50", "on_disconnect": "continue"}


class Parent:
    """Listens, and starts one service after another on its socket."""

    def __init__(self, listener: socket.socket, start: Callable[..., Server]) -> None:
        self.listener = listener
        self.start = start
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def connect(self, request: str) -> socket.socket:
        """Connect, and send a request, which may be answered later."""
        connection = socket.create_connection(self.listener.getsockname(), timeout=60)
        connection.sendall(f"{request} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        return connection


@pytest.fixture
def parent(simulator: Server, processes: list[Server], tmp_path: Path) -> Iterator[Parent]:
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:

        def start(**settings: object) -> Server:
            settings.setdefault("journal", f"file://{tmp_path}/{{port}}")
            service = start_activated(listener, tmp_path, simulator, **settings)
            processes.append(service)
            return service

        yield Parent(listener, start)


@contextmanager
def reading(method: str, url: str, **request: Any) -> Iterator[Iterator[bytes]]:
    with httpx.stream(method, url, timeout=60, **request) as answer:
        assert answer.status_code == 200, answer.read()
        yield answer.iter_raw()


def status(connection: socket.socket) -> str:
    """Return the status of the answer that comes on a connection."""
    with connection, connection.makefile("rb") as answer:
        return answer.readline().decode().split()[1]


def some(pieces: Iterator[bytes], events: int) -> list[Event]:
    data = b""
    while len(parse(data)) < events:
        data += next(pieces)
    return parse(data)


@pytest.mark.parametrize("workers", [1, 2])
def test_connections_wait(parent: Parent, start_redis: Callable[[], RedisServer], workers: int) -> None:
    """What connects while one process drains, or when there is none, is answered by the next process."""
    shared = {"workers": workers, "journal": start_redis().url} if workers > 1 else {}
    service = parent.start(**shared).listening(LISTENS)
    assert service.url == parent.url
    with reading("POST", f"{parent.url}/v1/chat", json=LIVE) as pieces:
        some(pieces, 3)
        service.send(signal.SIGTERM)
        service.awaits("hub.draining")
        waiting = parent.connect("GET /readyz")
        service.send(signal.SIGINT)
        assert parse(b"".join(pieces))[-1].json()["error"]["code"] == "shutting_down"
    assert service.ended() == 0
    late = parent.connect("GET /readyz")
    parent.start(**shared).listening(LISTENS)
    assert (status(waiting), status(late)) == ("200", "200")


def test_clients_keep_connecting(parent: Parent) -> None:
    """Through three restarts no connection is refused, and a reader who left finds the rest of each stream."""
    outcomes: Counter[str] = Counter()
    enough = threading.Event()

    def client() -> None:
        while not enough.is_set():
            try:
                answer = httpx.post(f"{parent.url}/v1/chat", json=QUICK, timeout=60)
            except httpx.HTTPError as error:
                outcomes[type(error).__name__] += 1
            else:
                outcomes[str(answer.status_code)] += 1

    def more_than(answers: int) -> Callable[[], bool]:
        return lambda: outcomes["200"] > answers

    service = parent.start().listening(LISTENS)
    clients = [threading.Thread(target=client, daemon=True) for _ in range(4)]
    for each in clients:
        each.start()
    try:
        for _ in range(3):
            with reading("POST", f"{parent.url}/v1/chat", json=SLOW) as pieces:
                seen = some(pieces, 5)
            service.send(signal.SIGTERM)
            assert service.ended() == 0
            service = parent.start()
            headers = {"Last-Event-ID": seen[-1].id}
            with reading("GET", f"{parent.url}/v1/streams/{seen[0].id[:22]}", headers=headers) as pieces:
                rest = parse(b"".join(pieces))
            check(seen + rest)
            assert rest[-1].event == "done"
            wait_until(more_than(outcomes["200"]))
    finally:
        enough.set()
        for each in clients:
            each.join(60)
    # A client that takes more than a second for its request may meet the drain: a 503, or a connection that closes.
    assert not outcomes["ConnectError"], outcomes


def test_the_journal_is_waited_for(parent: Parent) -> None:
    """A process that is started while the one before it drains says that it waits, and begins when that has ended."""
    service = parent.start().listening(LISTENS)
    with reading("POST", f"{parent.url}/v1/chat", json=LIVE) as pieces:
        seen = some(pieces, 3)
        service.send(signal.SIGTERM)
        service.awaits("hub.draining")
        following = parent.start()
        following.awaits(rf"journal\.waiting.*the one with the id {service.popen.pid}; it has up to 45 s to end")
        service.send(signal.SIGINT)
        seen += parse(b"".join(pieces))
    following.listening(LISTENS)
    assert service.ended() == 0
    with reading("GET", f"{parent.url}/v1/streams/{seen[0].id[:22]}") as pieces:
        whole = parse(b"".join(pieces))
    check(whole)
    assert whole[-1].json()["error"]["code"] == "shutting_down"


def test_the_socket_decides(simulator: Server, processes: list[Server], tmp_path: Path) -> None:
    """The socket's own address is checked, and not the setting: without credentials it has to be one of loopback."""
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        service = start_activated(everywhere, tmp_path, simulator, host="127.0.0.1")
        processes.append(service)
        assert service.ended() == 2
    assert "CHAT_SSE_ALLOW_ANONYMOUS" in service.text()
