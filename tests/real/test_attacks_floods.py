"""Attacks by number: many connections that are slow or silent keep no other client waiting, and nothing is left."""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import ExitStack, suppress

import pytest

from tests.real.conftest import Start
from tests.real.processes import Server
from tests.real.wire import CHAT, QUICK, ask, connect, received, request
from tests.waiting import wait_until

pytestmark = pytest.mark.real

BODY = json.dumps(QUICK).encode()


def test_dripping_bodies(start_service: Start) -> None:
    """A byte of the body now and then does not put off its deadline, and a hundred such keep no client waiting."""
    service = start_service(body_timeout=0.5)
    with ExitStack() as stack:
        dripping = [stack.enter_context(connect(service)) for _ in range(100)]
        for sock in dripping:
            sock.sendall(request(CHAT, b"Content-Length: 1000"))
        slow, ended = dripping[0], threading.Event()

        def drip() -> None:
            with suppress(OSError):
                while not ended.wait(0.05):
                    slow.sendall(b" ")

        dripper = threading.Thread(target=drip)
        dripper.start()
        try:
            assert ask(service, request(CHAT, body=BODY)).events[-1].event == "done"
            data = received(slow)
        finally:
            ended.set()
            dripper.join()
        assert data.startswith(b"HTTP/1.1 408")
        assert all(received(sock).startswith(b"HTTP/1.1 408") for sock in dripping[1:])


def sockets(service: Server) -> int:
    return len(os.listdir(f"/proc/{service.popen.pid}/fd"))


FLOODS = {
    "silent": b"",
    "half a head": CHAT + b"\r\nHost: localhost\r\n",
    "half a body": request(CHAT, b"Content-Length: 1000") + b"{",
    "answered": request(b"GET /healthz HTTP/1.1"),
    "answered, with a body to come": request(b"GET /healthz HTTP/1.1", b"Content-Length: 1000"),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_flood(start_service: Start, kind: str) -> None:
    """Two thousand idle connections keep no client out: they are bounded in number, and so is what they take."""
    service = start_service(max_connections=200, log_level="error")
    assert ask(service, request(CHAT, body=BODY)).status == 200
    before, memory = sockets(service), service.memory()
    most = 0
    flood: list[socket.socket] = []
    try:
        for number in range(2000):
            flood.append(connect(service))
            with suppress(ConnectionError):
                flood[-1].sendall(FLOODS[kind])
            if number % 250 == 249:
                assert ask(service, request(CHAT, body=BODY)).events[-1].event == "done"
                most = max(most, sockets(service))
        assert most <= before + 200 + 20
        assert service.memory() < memory + (40 << 20)
    finally:
        for sock in flood:
            sock.close()
    wait_until(lambda: sockets(service) <= before + 2)


def test_streams_outlive_a_flood(start_service: Start) -> None:
    """Room is made by those that say nothing, never by those that are being answered; where all are, 503 it is."""
    service = start_service(max_connections=16, on_disconnect="cancel", shutdown_grace=0)
    body = b'{"prompt":"x","model":"never-ends?first=0"}'
    with ExitStack() as stack:
        streams = [stack.enter_context(connect(service)) for _ in range(15)]
        for sock in streams:
            sock.sendall(request(CHAT, body=body))
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
        for _ in range(100):
            stack.enter_context(connect(service))
        assert ask(service, request(b"GET /healthz HTTP/1.1")).status == 200
        for sock in streams:
            assert sock.recv(1000)
        streams.append(stack.enter_context(connect(service)))
        streams[-1].sendall(request(CHAT, body=body))
        assert streams[-1].recv(100).startswith(b"HTTP/1.1 200")
        with connect(service) as sock:
            assert received(sock).startswith(b"HTTP/1.1 503")
        assert all(sock.recv(1000) for sock in streams)
