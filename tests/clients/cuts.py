"""A stream whose connections break, and what its reader has to say of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.real.processes import Server, launch, stats
from tests.real.proxy import Cut, Proxy

TEXT = "Hello, 你好, สวัสดี, مرحبا 👩‍👩‍👧‍👦! \u2028 A stream belongs to the server, not to a connection.\n" * 2


@contextmanager
def serving(directory: Path, simulator: Server) -> Iterator[Server]:
    """Give a service that readers in pages of other sites may ask, too, and that wants them back soon."""
    server = launch(directory, simulator, reconnect_ms=100, allowed_origins="*")
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def cut_stream(service: Server, simulator: Server, cuts: Sequence[Cut], *, least: int) -> Iterator[str]:
    """Give the URL of a stream whose connections are cut. By the end its reader has to have resumed *least* times."""
    with Proxy(service.url, cuts) as proxy:
        before = stats(simulator)["requests"]
        asked = {"prompt": TEXT, "model": "sim-echo?rate=40&first=0", "chunk": "none"}
        opened = httpx.post(f"{service.url}/v1/chat", json=asked, headers={"Accept": "application/json"})
        yield proxy.url + opened.json()["url"]
        positions = proxy.header("last-event-id")
        assert positions[0] is None
        assert len([position for position in positions if position]) >= least
        assert stats(simulator)["requests"] == before + 1


def check(lines: list[str]) -> None:
    """Check what a reader said: all events, each once, in a line of its name and its data."""
    events = [line.split(" ", 1) for line in lines if line]
    assert [name for name, _ in events if name != "delta"] == ["start", "done"]
    assert "".join(json.loads(data)["content"] for name, data in events if name == "delta") == TEXT
