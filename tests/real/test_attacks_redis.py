"""Attacks by others that write to the same Redis, or by what an earlier failure has left there."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from typing import Any

import httpx
import jwt
import pytest
from redis import Redis

from app.events import new_stream_id
from app.journal.redis import keys
from app.journal.redis.entries import header_of
from app.request import StreamInfo
from tests.real.conftest import Start
from tests.real.neighbour import neighbour
from tests.real.processes import Server
from tests.real.redis import RedisServer
from tests.waiting import wait_until

pytestmark = pytest.mark.real

HEADER: dict[str, Any] = {name.decode(): value for name, value in header_of(StreamInfo("auto"), "gone").items()}
# Logs by what is wrong with them: the header, and what follows it, by entry id.
LOGS: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {
    "a header without fields of ours": ({"a": "b"}, {}),
    "a header that is cut short": ({"chunk": "auto"}, {}),
    "a header of another encoding": ({**HEADER, "chunk": b"\xff"}, {}),
    "a header with a word for a number": ({**HEADER, "readers": "many"}, {}),
    "an entry that is cut short": (HEADER, {"1-0": {"e": '[["s","m"'}}),
    "an event that is cut short": (HEADER, {"1-0": {"e": '[["s","m"]]'}}),
    "an entry that is empty": (HEADER, {"1-0": {"e": ""}}),
    "an entry with other fields": (HEADER, {"1-0": {"a": "b", "c": "d"}}),
    "an event of another kind": (HEADER, {"1-0": {"e": '[["?",1]]'}}),
    "values of other types": (HEADER, {"1-0": {"e": '[["s",1,"x"],["r",5],["d",null]]'}}),
    "records that are missing": (HEADER, {"5-0": {"e": '["x",["d","stop"]]'}}),
}


SECRET = "a secret of thirty-two bytes or so"
KEY, CHAT, REPEAT = "csk_" + "k" * 32, "chat-of-mallory-1234", "repeat-of-mallory-1"
SUBJECT = "eve@example.com"
SLOW = {"model": "never-ends?rate=20", "on_disconnect": "grace:60"}
LIMITS = {"requests_per_minute": 1000, "tokens_per_day": 100_000, "streams_per_principal": 9, "reserve_tokens": 1000}


def clients(url: str) -> list[httpx.Client]:
    """Return a client with an API key, and one with a JWT."""
    claims = {"sub": SUBJECT, "exp": time.time() + 600, "aud": "chat"}
    tokens = (KEY, jwt.encode(claims, SECRET, "HS256"))
    return [httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30) for token in tokens]


def ui_chat(chat_id: str) -> dict[str, Any]:
    message = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
    return {"id": chat_id, "messages": [message], "trigger": "submit-message", **SLOW}


def values(redis: Redis) -> list[bytes]:
    """Return every key that Redis has, and everything that is at it."""
    found: list[bytes] = []
    reading: dict[Any, Callable[[Any], Any]] = {
        b"string": redis.get,
        b"hash": redis.hgetall,
        b"zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
        b"stream": redis.xrange,
    }
    names: Any = redis.keys("*")
    for key in names:
        found += [key, repr(reading[redis.type(key)](key)).encode()]
    return found


@pytest.mark.parametrize("secret", ["a secret that the fleet's processes share", ""])
def test_no_names_in_redis(
    secret: str, start_service: Start, start_simulator: Start, start_redis: Callable[..., RedisServer]
) -> None:
    """Redis is given no name of a principal's, no label, idempotency key or credential: neither kept nor in passing.

    The processes that share it know them all the same: whose a stream is, what a key and a chat stand for.
    """
    redis_server = start_redis()
    keys_of = {"api_keys": f"mallory:{sha256(KEY.encode()).hexdigest()}", "jwt_secret": SECRET, "jwt_audience": "chat"}
    settings = {"journal": redis_server.url, "secret": secret, **keys_of, **LIMITS}
    upstream = start_simulator()
    here, there = [start_service(upstream, **settings) for _ in range(2)]
    kept: list[bytes] = []
    address = ("127.0.0.1", int(redis_server.url.rpartition(":")[2].partition("/")[0]))
    with redis_server.client() as redis, closing(socket.create_connection(address)) as seen:
        seen.sendall(b"MONITOR\r\n")  # from now on, it is told every command
        assert seen.recv(5) == b"+OK\r\n"
        for one, other in zip(clients(here.url), clients(there.url), strict=True):
            with one, other:
                once = {"Accept": "application/json", "Idempotency-Key": REPEAT}
                asked: dict[str, Any] = {"json": {"prompt": "hi", **SLOW}, "headers": once}
                stream_id = one.post("/v1/chat", **asked).json()["stream_id"]
                assert other.post("/v1/chat", **asked).json()["stream_id"] == stream_id
                path = f"/v1/ai-sdk/chat/{CHAT}/stream"
                with one.stream("POST", "/v1/ai-sdk/chat", json=ui_chat(CHAT)) as answer:
                    chat = answer.headers["X-Stream-Id"]
                with other.stream("GET", path) as answer:
                    assert (answer.status_code, answer.headers["X-Stream-Id"]) == (200, chat)
                listed = other.get("/v1/streams").json()["streams"]
                assert {each["stream_id"] for each in listed} == {stream_id, chat}
                kept += values(redis)
                assert other.delete(path).status_code == 204
                assert other.delete(f"/v1/streams/{stream_id}").json()["finish_reason"] == "cancelled"
                assert one.get("/v1/streams?state=live").json()["streams"] == []
        wait_until(lambda: sum(b"chat-sse:kept:" in each for each in values(redis)) == 2)
        kept += values(redis)
        redis.set("the end", "")
        told = b""
        while b'"the end"' not in told:
            told += seen.recv(1 << 16)
    # A list of streams says which chat each is of: that is metadata, as an answer's text is content.
    text = b"".join([*kept, told]).replace(b"\\", b"").replace(b'"chat_id":"%s"' % CHAT.encode(), b"")
    for name in ("mallory", "eve@", "example.com", CHAT, REPEAT, KEY, SECRET, keys_of["api_keys"][-64:]):
        assert name.encode() not in text, name
    assert sum(b"account" in each for each in kept) >= 4, "nothing was looked at"


def test_logs_that_are_not_ours(
    start_service: Start, simulator: Server, start_redis: Callable[..., RedisServer]
) -> None:
    """A log that this service cannot have written is an error of that stream, and of nothing else."""
    redis_server = start_redis()
    service = start_service(simulator, journal=redis_server.url)
    with redis_server.client() as redis, neighbour(service):
        for what, (header, entries) in LOGS.items():
            stream_id = new_stream_id()
            redis.xadd(keys.log(stream_id), header, id="0-1")
            for entry_id, fields in entries.items():
                redis.xadd(keys.log(stream_id), fields, id=entry_id)
            url = f"{service.url}/v1/streams/{stream_id}"
            for accept in ("text/event-stream", "application/json"):
                answer = httpx.get(url, headers={"Accept": accept, "Last-Event-ID": ""})
                assert answer.status_code < 500 or answer.json()["error"]["code"] == "journal_lost", (what, answer.text)
            assert httpx.delete(url).json()["error"]["code"] == "journal_lost", what
            assert httpx.get(f"{service.url}/readyz").status_code == 200
        redis.set(keys.log(stream_id := new_stream_id()), "x")
        assert httpx.get(f"{service.url}/v1/streams/{stream_id}").status_code == 503
        assert httpx.get(f"{service.url}/readyz").status_code == 200
    assert "journal.away" not in service.text()
    assert "crashed" not in service.text()
