"""An honest client beside an attack, and what it sees of that."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise

import httpx

from tests.real.clients.sse import check, parse
from tests.real.processes import Server
from tests.waiting import wait_until

BODY = {"prompt": "x", "model": "never-ends?rate=20&first=0", "chunk": "none"}


class Neighbour:
    """Reads a stream of 20 deltas a second, and asks for `/healthz` and for the memory of the *service* meanwhile.

    *gap* is the longest time between two events and *health* the longest that `/healthz` took, in seconds; *grown* is
    how much the memory of the service grew, in MiB, at its highest, of so many *looks*.
    """

    def __init__(self, service: Server, headers: Mapping[str, str]) -> None:
        self._service = service
        self._client = httpx.Client(base_url=service.url, headers=headers, timeout=60)
        self._body = b""
        self._arrivals: list[float] = []
        self._url = ""
        self._ended = threading.Event()
        self._before = service.memory()
        self.looks = 0
        self.health = 0.0
        self.grown = 0
        self._threads = [threading.Thread(target=work) for work in (self._read, self._look)]

    def __str__(self) -> str:
        return f"gap {self.gap:.3f} s, healthz {self.health:.3f} s, memory +{self.grown} MiB"

    @property
    def gap(self) -> float:
        return max((later - earlier for earlier, later in pairwise(self._arrivals)), default=0.0)

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: len(self._arrivals) > 3)

    def end(self) -> None:
        """Stop the stream, and check that the reader has got all of it, each record once."""
        try:
            assert self._client.delete(self._url).json()["finish_reason"] == "cancelled"
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join()
            self._client.close()
        events = parse(self._body)
        check(events)
        assert events[-1].event == "done"

    def _read(self) -> None:
        with self._client.stream("POST", "/v1/chat", json=BODY) as answer:
            self._url = f"/v1/streams/{answer.headers['X-Stream-Id']}"
            for piece in answer.iter_raw():
                self._body += piece
                self._arrivals.append(time.monotonic())

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            began = time.monotonic()
            assert self._client.get("/healthz").status_code == 200
            self.health = max(self.health, time.monotonic() - began)
            self.looks += 1
            self.grown = max(self.grown, (self._service.memory() - self._before) >> 20)


@contextmanager
def neighbour(service: Server, headers: Mapping[str, str] | None = None) -> Iterator[Neighbour]:
    """Have an honest client, with the credentials in *headers*, beside the block. It must get all of its stream."""
    honest = Neighbour(service, headers or {})
    honest.begin()
    try:
        yield honest
    finally:
        honest.end()
        print(honest)
