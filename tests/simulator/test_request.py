"""What the simulator refuses, as OpenAI would."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.simulator import Simulator
from tests.simulator.asking import question

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=simulator.url, timeout=10) as opened:
        yield opened


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, "model"),
        ({"model": "sim-gpt"}, "messages"),
        ({"model": "sim-gpt", "messages": []}, "messages"),
        (question("sim-gpt", n=2), "n"),
        (question("sim-gpt", max_tokens=0), "max_tokens"),
        (question("sim-gpt", stop=7), "stop"),
    ],
)
async def test_wrong_bodies_are_refused(client: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    """A body that OpenAI would refuse is refused, naming the field."""
    response = await client.post("/chat/completions", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_a_limit_has_no_upper_bound(client: httpx.AsyncClient) -> None:
    """A limit may be any integer that JSON can hold, since a larger one than the answer changes nothing."""
    body = question("sim-gpt", max_completion_tokens=(1 << 64) - 1, stream=False)
    response = await client.post("/chat/completions", json=body)
    assert response.json()["choices"][0]["finish_reason"] == "stop"
