"""SIGTERM: no new streams, live ones finish within the grace, the rest end with an error that reaches the client."""

from __future__ import annotations

import signal
import threading

import httpx
import httpx_sse
import pytest

from tests.real.conftest import Start
from tests.real.processes import Server, stats
from tests.waiting import wait_until

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("measured")]


class Reader(threading.Thread):
    """Reads one stream to its end, in the background."""

    def __init__(self, service: Server, model: str) -> None:
        super().__init__(daemon=True)
        self.url, self.model = f"{service.url}/v1/chat", model
        self.events: list[httpx_sse.ServerSentEvent] = []
        self.started = threading.Event()
        self.start()
        assert self.started.wait(60)

    def run(self) -> None:
        body = {"prompt": "hi", "model": self.model}
        with httpx.Client() as client, httpx_sse.connect_sse(client, "POST", self.url, json=body) as source:
            for event in source.iter_sse():
                self.events.append(event)
                if event.event == "delta":
                    self.started.set()

    def last(self) -> httpx_sse.ServerSentEvent:
        self.join(20)
        assert not self.is_alive()
        return self.events[-1]


def test_live_streams_finish(start_service: Start) -> None:
    """A stream that ends within the grace is whole, and the process exits with 0."""
    service = start_service(shutdown_grace=15)
    reader = Reader(service, "sim-gpt?rate=20&tokens=30&first=0")
    service.send(signal.SIGTERM)
    assert reader.last().event == "done"
    assert service.ended() == 0
    assert "error" not in service.text().lower().replace("errors", "")


def test_what_is_left_ends_with_an_error(start_simulator: Start, start_service: Start) -> None:
    """A stream that outlives the grace ends with shutting_down; upstream is aborted; the exit is still 0."""
    simulator = start_simulator()
    service = start_service(simulator, shutdown_grace=0.5)
    readers = [Reader(service, "never-ends") for _ in range(5)]
    service.send(signal.SIGTERM)
    for reader in readers:
        error = reader.last()
        assert error.event == "error"
        assert error.json()["error"]["code"] == "shutting_down"
        assert error.json()["error"]["retryable"] is True
    assert service.ended() == 0
    wait_until(lambda: stats(simulator)["live"] == 0)
    assert stats(simulator)["streams_aborted"] == 5


def test_no_new_streams(start_service: Start) -> None:
    """While draining, new work and readiness get 503, which say when to come back; reading goes on."""
    service = start_service(shutdown_grace=60)
    reader = Reader(service, "never-ends")
    assert httpx.get(f"{service.url}/readyz").status_code == 200
    service.send(signal.SIGTERM)
    service.awaits("hub.draining")
    for refused in (httpx.get(f"{service.url}/readyz"), httpx.post(f"{service.url}/v1/chat", json={"prompt": "hi"})):
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["error"]["code"] == "shutting_down"
    stream = f"{service.url}/v1/streams/{reader.events[0].json()['stream_id']}"
    answer = httpx.get(stream, headers={"Accept": "application/json"})
    assert answer.json()["state"] == "live"
    httpx.delete(stream).raise_for_status()
    assert reader.last().event == "done"
    assert service.ended() == 0


def test_a_second_interrupt_does_not_wait(start_service: Start) -> None:
    """Ctrl-C says what is waited for; twice, what is live ends with an error at once, and the exit is a clean one."""
    service = start_service(shutdown_grace=60)
    reader = Reader(service, "never-ends")
    service.send(signal.SIGINT)
    service.awaits("Waiting up to 60 s for 1 stream to end. Press Ctrl-C again to end now.")
    service.awaits("hub.draining")
    service.send(signal.SIGINT)
    assert reader.last().json()["error"]["code"] == "shutting_down"
    assert service.ended(timeout=30) == 0
    assert "Traceback" not in service.text()


def test_idle(start_service: Start) -> None:
    """With nothing live, SIGTERM and SIGINT end the process at once, with 0 and no word of complaint."""
    for number in (signal.SIGTERM, signal.SIGINT):
        service = start_service(shutdown_grace=600)
        service.send(number)
        assert service.ended() == 0
        assert "Traceback" not in service.text()
        assert "Waiting" not in service.text()
