"""A client over our own transport, and what can be counted of it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx
import pytest

from app.upstream.http.exchange import Exchange
from app.upstream.http.pool import Http1Transport
from tests.waiting import until

LOOPS = [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})]

T = TypeVar("T")


class Client(httpx.AsyncClient):
    """An httpx client whose transport can be looked into."""

    def __init__(self, tls: ssl.SSLContext, connect: float | None, proxy: str | None, keep_idle: float) -> None:
        self.transport = Http1Transport(tls, lambda _: None if proxy is None else httpx.Proxy(proxy), keep_idle)
        super().__init__(transport=self.transport, timeout=httpx.Timeout(None, connect=connect), trust_env=False)

    def only(self) -> Exchange | None:
        """Return the exchange that is going on, if there is one."""
        return next(iter(self.transport._live), None)


def direct(
    tls: ssl.SSLContext | None = None, connect: float | None = 5, proxy: str | None = None, keep_idle: float = 15
) -> Client:
    """Return a client that asks directly, or through *proxy*."""
    return Client(tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), connect, proxy, keep_idle)


class Counted:
    """How often, and how much, the loop read for any exchange; and how often it was told to stop reading."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads = self.bytes = self.pauses = 0
        receive, pause = Exchange.data_received, Exchange._pause

        def data_received(exchange: Exchange, data: bytes) -> None:
            self.reads += 1
            self.bytes += len(data)
            receive(exchange, data)

        def pause_reading(exchange: Exchange) -> None:
            self.pauses += 1
            pause(exchange)

        monkeypatch.setattr(Exchange, "data_received", data_received)
        monkeypatch.setattr(Exchange, "_pause", pause_reading)

    async def arrival(self, number: int) -> None:
        """Wait until *number* bytes have arrived."""
        await until(lambda: self.bytes == number)


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begin an answer, and wait for the client to go."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\nbegun")
    await reader.read()


def sockets() -> set[str]:
    """Return the sockets that this process has open."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue  # that of the listing itself
        if target.startswith("socket:"):
            found.add(target)
    return found


@contextmanager
def deaf(backlog: int) -> Iterator[tuple[socket.socket, str]]:
    """A listener that never accepts, and its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:
        yield listener, f"http://127.0.0.1:{listener.getsockname()[1]}/"


@contextmanager
def drowned() -> Iterator[tuple[socket.socket, str]]:
    """A listener that never accepts, with so many waiting that the kernel drops what comes after, and its URL."""
    with deaf(0) as (listener, url):
        queue = [socket.socket() for _ in range(3)]
        for sock in queue:
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener, url
        for sock in queue:
            sock.close()
