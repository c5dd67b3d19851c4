"""The AI SDK's chunks over several processes: their number is a cursor on each, also when one of them shuts down."""

from __future__ import annotations

import json
import signal
from typing import Any

import httpx
import pytest

from tests.real.conftest import Start
from tests.real.processes import Server
from tests.real.redis import RedisServer

pytestmark = pytest.mark.real

TEXT = "one two three four five six seven eight nine ten " * 4
CHAT = "/v1/ai-sdk/chat"


def body(rate: int) -> dict[str, Any]:
    messages = [{"id": "u", "role": "user", "parts": [{"type": "text", "text": TEXT}]}]
    return {"messages": messages, "model": f"sim-echo?rate={rate}&first=0"}


def read(method: str, url: str, most: int = 10_000, **request: Any) -> tuple[httpx.Headers, list[dict[str, Any]]]:
    """Read *most* chunks of an answer; return its headers and the chunks."""
    chunks: list[dict[str, Any]] = []
    with httpx.stream(method, url, timeout=60, **request) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                chunks.append(json.loads(line.removeprefix("data: ")))
            if len(chunks) == most:
                break
        return answer.headers, chunks


def whole(chunks: list[dict[str, Any]]) -> None:
    assert "".join(chunk.get("delta", "") for chunk in chunks) == TEXT
    assert [chunk["type"] for chunk in chunks].count("finish") == 1


def test_live_hops(start_service: Start, simulator: Server, redis: RedisServer) -> None:
    """A client that is cut again and again, and comes to another process each time, has every chunk once."""
    pair = [start_service(simulator, journal=redis.url) for _ in range(2)]
    head, had = read("POST", f"{pair[0].url}{CHAT}", 3, json=body(100))
    path = f"{CHAT}/{head['x-workflow-run-id']}/stream"
    while had[-1]["type"] != "finish":
        for service in reversed(pair):
            _, more = read("GET", f"{service.url}{path}", 5, params={"startIndex": len(had)})
            had += more
            if had[-1]["type"] == "finish":
                break
    whole(had)
    for service in pair:
        assert read("GET", f"{service.url}{path}", params={"startIndex": 0})[1] == had
        head, tail = read("GET", f"{service.url}{path}", params={"startIndex": -7})
        assert (int(head["x-workflow-stream-tail-index"]), tail) == (len(had) - 1, had[-7:])


def test_a_process_that_shuts_down(start_service: Start, simulator: Server, redis: RedisServer) -> None:
    """Its reader of another process's answer is told nothing that it would count, and goes on there."""
    one, other = [start_service(simulator, journal=redis.url, shutdown_grace=0.1) for _ in range(2)]
    with httpx.stream("POST", f"{one.url}{CHAT}", json=body(20), timeout=60) as opened:
        path = f"{CHAT}/{opened.headers['x-workflow-run-id']}/stream"
        had: list[dict[str, Any]] = []
        with httpx.stream("GET", f"{other.url}{path}", params={"startIndex": 0}, timeout=60) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    had.append(json.loads(line.removeprefix("data: ")))
                    if len(had) == 5:
                        other.send(signal.SIGTERM)
        assert other.ended() == 0
        assert had[-1]["type"] == "text-delta"
        had += read("GET", f"{one.url}{path}", params={"startIndex": len(had)})[1]
        whole(had)
