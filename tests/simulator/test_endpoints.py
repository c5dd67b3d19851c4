"""The endpoints beside the answers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from app.simulator import Simulator
from tests.simulator.asking import chunks_of, question

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=simulator.url, timeout=10) as opened:
        yield opened


async def test_openais_own_model_names_are_played(client: httpx.AsyncClient) -> None:
    """A client that asks for gpt-4o-mini need not be reconfigured."""
    assert (await chunks_of(client, question("gpt-4o-mini?tokens=1")))[0]["model"] == "gpt-4o-mini"


async def test_the_counters_are_served_and_reset(simulator: Simulator, client: httpx.AsyncClient) -> None:
    """Another process can read the counters and set them to zero."""
    url = simulator.url.removesuffix("/v1")
    await chunks_of(client, question("sim-gpt?tokens=7"))
    stats = (await client.get(f"{url}/stats")).json()
    counts = {"requests": 1, "streams_started": 1, "streams_finished": 1, "streams_aborted": 0, "deltas": 8, "live": 0}
    assert stats.items() >= counts.items()
    assert (await client.post(f"{url}/stats/reset")).json()["requests"] == 0
