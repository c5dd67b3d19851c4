"""`chat-sse simulate`, as a process."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.simulator.models import MODELS
from tests.real.processes import Server, log_file


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Server]:
    command = [sys.executable, "-m", "app", "simulate", "--port", "0"]
    server = Server(command, log_file(tmp_path, "simulator")).listening(r"listens on (http://\S+)")
    yield server
    server.stop()


def test_simulate(simulator: Server) -> None:
    """It lists its own models, plays one, and ends with status 0 while a client still reads."""
    listed = httpx.get(f"{simulator.url}/models").json()["data"]
    assert [model["id"] for model in listed] == list(MODELS)
    body = {"model": "never-ends", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    with httpx.stream("POST", f"{simulator.url}/chat/completions", json=body) as answer:
        assert "assistant" in next(answer.iter_text())
        simulator.send(signal.SIGTERM)
        assert simulator.ended() == 0


def test_a_taken_port(simulator: Server, tmp_path: Path) -> None:
    """A port that is taken is one line and status 2."""
    command = [sys.executable, "-m", "app", "simulate", "--port", str(simulator.port)]
    second = Server(command, log_file(tmp_path, "simulator"))
    assert second.ended() == 2
    assert second.text().startswith("chat-sse: cannot listen on ")
    assert len(second.text().splitlines()) == 1
