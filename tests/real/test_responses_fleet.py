"""Responses over several processes: a number is a cursor on each of them, and so are a stop and a removal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from redis import Redis

from tests.real.processes import Server, launch
from tests.real.redis import RedisServer
from tests.real.responses_sdk import python
from tests.waiting import wait_until
from tests.wire.answers import blocks_of, responses

pytestmark = pytest.mark.real

TEXT = "one two three four five six seven eight nine ten " * 4
LIVE = "sim-echo?rate=100&first=0"


@pytest.fixture(scope="module")
def pair(
    simulator: Server, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server]]:
    """Two services that share their streams."""
    one, other = [launch(tmp_path_factory.mktemp("service"), simulator, journal=redis.url) for _ in range(2)]
    yield one, other
    one.stop()
    other.stop()


def started(service: Server, model: str, **more: Any) -> str:
    """Start a response in the background, and return where it is."""
    asked = {"model": model, "input": TEXT, "background": True, **more}
    return f"/v1/responses/{httpx.post(f'{service.url}/v1/responses', json=asked).json()['id']}"


def events_of(service: Server, path: str, after: int | None = None) -> list[dict[str, str]]:
    query = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
    answer = httpx.get(f"{service.url}{path}", params=query, timeout=60)
    assert answer.status_code == 200, answer.text
    return blocks_of(answer.content)


def test_a_cursor_anywhere(pair: tuple[Server, Server]) -> None:
    """While the response is being written and afterwards, any process goes on after any event."""
    one, other = pair
    path = started(one, LIVE)
    whole = events_of(other, path)  # live, from another process than the one that writes it
    assert json.loads(whole[-1]["data"])["response"]["output"][0]["content"][0]["text"] == TEXT
    numbers = [json.loads(block["data"])["sequence_number"] for block in whole]
    said = responses(whole)
    for service in pair:
        assert responses(events_of(service, path)) == said
        for at in range(0, len(whole), max(1, len(whole) // 20)):
            rest = events_of(service, path, numbers[at])
            assert responses([*whole[: at + 1], *rest]) == said
    assert events_of(other, path, numbers[-1]) == []


def test_live_hops(pair: tuple[Server, Server]) -> None:
    """A reader that is cut again and again, and goes to another process each time, has every event once."""
    path = started(pair[0], LIVE)
    had: list[dict[str, Any]] = []
    for hop in range(1000):
        query = {"stream": "true"} | ({"starting_after": str(had[-1]["sequence_number"])} if had else {})
        with httpx.stream("GET", f"{pair[hop % 2].url}{path}", params=query, timeout=60) as answer:
            assert answer.status_code == 200
            for count, line in enumerate(line for line in answer.iter_lines() if line.startswith("data: ")):
                had.append(json.loads(line.removeprefix("data: ")))
                if count == 3:
                    break
        if had[-1]["type"] == "response.completed":
            break
    deltas = [event["delta"] for event in had if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == had[-1]["response"]["output"][0]["content"][0]["text"] == TEXT
    numbers = [event["sequence_number"] for event in had]
    assert numbers == sorted(set(numbers))


def test_stopping_and_removing(pair: tuple[Server, Server]) -> None:
    """Both work in another process than the one that writes the response."""
    one, other = pair
    path = started(one, "never-ends?rate=50&first=0")
    cancelled = python(other.url, "cancel", id=path.rpartition("/")[2])
    assert cancelled.response["status"] == "cancelled"
    assert httpx.get(f"{one.url}{path}").json()["status"] == "cancelled"
    assert httpx.delete(f"{other.url}{path}").json()["deleted"] is True
    assert httpx.get(f"{other.url}{path}").status_code == 404


def test_items_of_another_process(pair: tuple[Server, Server]) -> None:
    """An item is found by its id, wherever it was written."""
    one, other = pair
    asked = {"model": "sim-echo?rate=0&first=0", "input": "hello"}
    item = httpx.post(f"{one.url}/v1/responses", json=asked).json()["output"][0]["id"]
    items = [{"type": "item_reference", "id": item}, {"role": "user", "content": "and?"}]
    assert httpx.post(f"{other.url}/v1/responses", json=asked | {"input": items}).status_code == 200


def test_not_stored(pair: tuple[Server, Server], redis: RedisServer) -> None:
    """Redis keeps a response with `store: false` for the grace only."""
    asked = {"model": "sim-echo?rate=0&first=0", "input": "hello"}
    with redis.client() as client:
        for store, most in ((False, 10), (True, 3600)):
            answer = httpx.post(f"{pair[0].url}/v1/responses", json=asked | {"store": store})
            key = f"chat-sse:{{{answer.headers['x-stream-id']}}}:log"
            wait_until(partial(lives_at_most, client, key, most))


def lives_at_most(client: Redis, key: str, seconds: int) -> bool:
    return 0 < int(client.ttl(key)) <= seconds
