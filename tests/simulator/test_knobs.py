"""What may follow a model's name."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from app.simulator import Simulator
from app.simulator.text import ANSWERS
from tests.simulator.asking import chunks_of, question, text_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=simulator.url, timeout=10) as opened:
        yield opened


async def test_knobs_say_how_many_deltas_of_what_size(client: httpx.AsyncClient) -> None:
    """`tokens` and `size` are exact."""
    chunks = await chunks_of(client, question("sim-gpt?tokens=600&size=4&answer=stream"))
    assert len(chunks) == 602
    assert {len(text_of([chunk])) for chunk in chunks[1:500]} <= {4, len(ANSWERS["stream"]) % 4 or 4}


@pytest.mark.parametrize(
    "knobs",
    ["nope=1", "rate=-1", "rate=nan", "rate=x", "tokens=1.5", "first=1e9", "rate=1&rate=2", "answer=latin", "x"],
)
async def test_wrong_knobs_are_refused(client: httpx.AsyncClient, knobs: str) -> None:
    """An unknown knob, or one out of range, is a 400 that names the model field."""
    response = await client.post("/chat/completions", json=question(f"sim-gpt?{knobs}"))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "model"
