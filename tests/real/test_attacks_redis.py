"""Attacks by whoever else writes to the same Redis, or by what an earlier failure has left there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.events import new_stream_id
from app.journal.redis import keys
from tests.real.conftest import Start
from tests.real.neighbour import neighbour
from tests.real.processes import Server
from tests.real.redis import RedisServer

pytestmark = pytest.mark.real

HEADER = {"chunk": "auto", "owner": "", "process": "gone"}
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
