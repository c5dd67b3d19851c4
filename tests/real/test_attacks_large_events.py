"""Attacks by large events and long answers: what one stream is sent, or reads again, delays no other stream."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.real.conftest import Start
from tests.real.neighbour import neighbour
from tests.real.processes import Server

pytestmark = pytest.mark.real


def asked(service: Server, path: str, **body: object) -> int:
    """Return how many bytes the answer has."""
    with httpx.Client(base_url=service.url, timeout=120) as client, client.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200
        return sum(map(len, answer.iter_raw()))


@pytest.mark.parametrize("chunk", ["size:1", "word", "none", "auto"])
def test_a_large_delta(start_watched: Start, simulator: Server, chunk: str) -> None:
    """A delta of 2 MiB, however it is cut, is relayed while others are served."""
    service = start_watched(simulator)
    with neighbour(service) as honest:
        size = asked(service, "/v1/chat", prompt="x", model="giant-line?mib=2", chunk=chunk)
    assert size > 2 << 20
    assert honest.grown < 200


@pytest.mark.parametrize(
    "model",
    [
        *("giant-escapes?mib=7", "giant-call?mib=4", "giant-image?mib=4", "giant-notes?mib=4", "giant-fields?mib=4"),
        *("giant-error?mib=4", "deep-json"),
    ],
)
def test_another_large_event(start_watched: Start, simulator: Server, model: str) -> None:
    """The same holds for escapes, arguments, images, notes and unknown fields, and if it is too much to be read."""
    service = start_watched(simulator)
    with neighbour(service) as honest:
        asked(service, "/v1/chat", prompt="x", model=model)
    assert honest.grown < 200


def test_a_large_delta_as_a_whole_answer(start_watched: Start, simulator: Server) -> None:
    """An answer of 7 MiB that is asked for as a whole is put together while others are served."""
    service = start_watched(simulator)
    messages = [{"role": "user", "content": "x"}]
    with neighbour(service):
        size = asked(service, "/v1/chat/completions", messages=messages, model="giant-line?mib=7")
    assert size > 7 << 20


@pytest.mark.parametrize("query", ["", "?dialect=ai-sdk", "?dialect=openai", "?smooth=50"])
def test_long_replays(start_watched: Start, simulator: Server, query: str) -> None:
    """Three readers of a stream of a quarter of a million records, at once, delay no other client."""
    service = start_watched(simulator)
    body = {"prompt": "x", "model": "giant-line?mib=1", "chunk": "size:4", "on_disconnect": "continue"}

    async def replay() -> list[int]:
        async with httpx.AsyncClient(base_url=service.url, timeout=240) as client:
            async with client.stream("POST", "/v1/chat", json=body) as answer:
                url = f"/v1/streams/{answer.headers['X-Stream-Id']}"

            async def read() -> int:
                async with client.stream("GET", url + query) as answer:
                    return sum([len(piece) async for piece in answer.aiter_raw()])

            return await asyncio.gather(*(read() for _ in range(3)))

    with neighbour(service) as honest:
        sizes = asyncio.run(replay())
    assert min(sizes) > 10 << 20
    assert honest.grown < 300
