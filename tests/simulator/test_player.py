"""How scripts are played: on the beat, and no faster than the client reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest

from app.simulator import Simulator
from app.simulator.player import Clock, Player, Stats
from tests.simulator.asking import begin
from tests.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


async def test_the_faster_stream_ends_first(simulator: Simulator) -> None:
    """Rates order the ends of streams, and equal rates end in the order of their beginning."""
    ended: list[str] = []

    async def read(model: str) -> None:
        reader, writer = await begin(simulator, model)
        await reader.readuntil(b"[DONE]")
        ended.append(model)
        writer.close()

    models = ["sim-gpt?tokens=12&rate=20", "sim-gpt?tokens=12&rate=60", "sim-gpt?tokens=12&rate=0"]
    await asyncio.gather(*map(read, models))
    assert ended == models[::-1]


async def test_a_rate_does_not_run_ahead(simulator: Simulator) -> None:
    """Fifty deltas and the finish at 250 a second take 50 intervals or more."""
    loop = asyncio.get_running_loop()
    reader, writer = await begin(simulator, "sim-gpt?tokens=50&rate=250")
    await reader.readuntil(b"assistant")
    began = loop.time()
    await reader.readuntil(b"[DONE]")
    assert loop.time() - began > 0.19
    writer.close()


class LateClock(Clock):
    """A clock that calls back three milliseconds after each time that it is asked for."""

    def __init__(self) -> None:
        self.now = 100.0
        self.time = lambda: self.now
        self.asked: list[tuple[float, Callable[[float], None]]] = []

    def call_at(self, due: float, step: Callable[[float], None]) -> None:
        self.asked.append((due, step))

    def run(self) -> None:
        while self.asked:
            due, step = self.asked.pop()
            self.now = due + 0.003
            step(self.now)


def test_a_rate_does_not_drift() -> None:
    """Fifty deltas at 250 a second take 49 intervals, and are not late by a little each."""
    clock, output = LateClock(), Mock()
    Player(output, iter([b"delta"] * 50), 250, clock, Stats()).step()
    clock.run()
    output.finish.assert_called_once_with()
    assert clock.now - 100 <= 50 / 250 + 0.003 + 1e-6


async def test_a_client_that_does_not_read_is_waited_for(simulator: Simulator) -> None:
    """When the client stops reading, the simulator stops writing; when it reads again, the stream goes on."""
    reader, writer = await begin(simulator, "never-ends?rate=0")
    reader._transport.pause_reading()  # type: ignore[attr-defined]  # asyncio has no public way
    await until(lambda: bool(simulator.connections))
    (connection,) = simulator.connections
    await until(lambda: not connection.writable)
    sent = simulator.stats.deltas
    await asyncio.sleep(0.05)
    assert simulator.stats.deltas == sent
    assert connection.transport.get_write_buffer_size() < 256 << 10
    reader._transport.resume_reading()  # type: ignore[attr-defined]  # asyncio has no public way
    while simulator.stats.deltas == sent:
        assert await reader.read(1 << 16)
    reader._transport.pause_reading()  # type: ignore[attr-defined]  # asyncio has no public way
    await until(lambda: not connection.writable)
    writer.transport.abort()
    await until(lambda: simulator.stats.live == 0)
    assert simulator.stats.streams_aborted == 1
