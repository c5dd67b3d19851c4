"""`GET /v1/streams` over two processes that share a Redis."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import httpx
import pytest

from tests.real.conftest import Start
from tests.real.redis import RedisServer
from tests.waiting import wait_until

pytestmark = pytest.mark.real

ANN, BOB = "csk_ann_" + secrets.token_hex(16), "csk_bob_" + secrets.token_hex(16)
KEYS = ",".join(f"{name}:{sha256(key.encode()).hexdigest()}" for name, key in (("ann", ANN), ("bob", BOB)))
JSON = {"Accept": "application/json"}
SLOW = {"prompt": "hi", "model": "never-ends", "on_disconnect": "grace:60", "metadata": {"title": "Trip"}}
QUICK = {"prompt": "hi " * 2000, "model": "sim-echo?rate=0&first=0", "metadata": {"k" * 64: "v" * 512}}


def client(url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30)


def listed(who: httpx.Client, path: str = "/v1/streams") -> list[dict[str, Any]]:
    answer = who.get(path)
    assert answer.status_code == 200, answer.text
    streams: list[dict[str, Any]] = answer.json()["streams"]
    return streams


def test_a_second_device(start_watched: Start, start_simulator: Start, start_redis: Callable[..., RedisServer]) -> None:
    """What was opened on one process is listed by the other, live and then ended, and to its owner only.

    A list of a hundred streams holds the loop of neither process.
    """
    upstream, journal = start_simulator(), start_redis().url
    here, there = (start_watched(upstream, journal=journal, api_keys=KEYS, secret="k" * 32) for _ in range(2))
    with client(here.url, ANN) as ann, client(there.url, ANN) as elsewhere, client(there.url, BOB) as bob:
        ids = [ann.post("/v1/chat", json=SLOW, headers=JSON).json()["stream_id"] for _ in range(3)]
        wait_until(lambda: all(stream["last_event_id"] for stream in listed(elsewhere)))
        found = listed(elsewhere, "/v1/streams?state=live")
        assert [stream["stream_id"] for stream in found] == ids[::-1]
        assert {stream["state"] for stream in found} == {"live"}
        assert {(stream["model"], stream["metadata"]["title"]) for stream in found} == {("never-ends", "Trip")}
        assert listed(bob) == listed(bob, "/v1/streams?state=live") == []

        # The url opens the stream without credentials, as that of a 201 does. Its ticket lists nothing.
        path, _, ticket = found[0]["url"].partition("?")
        assert httpx.get(f"{there.url}{path}?{ticket}", headers=JSON).json()["stream_id"] == ids[2]
        assert ticket.startswith("ticket=")
        assert httpx.get(f"{there.url}/v1/streams?{ticket}").status_code == 401

        for stream_id in ids:
            assert ann.delete(f"/v1/streams/{stream_id}").status_code == 200
        assert listed(elsewhere, "/v1/streams?state=live") == []
        ended = listed(elsewhere)
        assert [(stream["stream_id"], stream["state"]) for stream in ended] == [(each, "done") for each in ids[::-1]]
        snapshots = [elsewhere.get(f"/v1/streams/{each}", headers=JSON).json() for each in ids[::-1]]
        assert [each["last_event_id"] for each in snapshots] == [stream["last_event_id"] for stream in ended]

        for _ in range(110):
            assert ann.post("/v1/chat", json=QUICK).status_code == 200
        assert len(listed(ann)) == len(listed(elsewhere)) == 100
        rest = elsewhere.get(elsewhere.get("/v1/streams").json()["next"]).json()
        assert (len(rest["streams"]), rest["next"]) == (13, None)
