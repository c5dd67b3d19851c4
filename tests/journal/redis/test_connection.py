"""Whether Redis is there, what is logged of that, and who waits for it. Most clients here are scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError, OutOfMemoryError, ResponseError
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.errors import JournalDown
from app.journal.redis.client import Check, Command
from app.journal.redis.connection import Reconnected, RecordConnection, RedisConnection, connector
from app.journal.redis.timing import Timing
from tests.real.redis import launch_redis

pytestmark = pytest.mark.anyio

PING: Command = ("PING",)


class Script:
    """A client that plays *replies*, one per pipeline: an exception is raised, a list returned."""

    def __init__(self, *replies: list[Any] | Exception) -> None:
        self._replies = [*replies]
        self.pipelines = 0

    async def pipeline(self, seconds: float, commands: Sequence[Command], check: Check | None = None) -> list[Any]:
        self.pipelines += 1
        await asyncio.sleep(0)
        reply = self._replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def pubsub(self) -> PubSub:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass


def connected(script: Script, log: FilteringBoundLogger) -> tuple[RedisConnection, asyncio.Event]:
    wake = asyncio.Event()
    return RedisConnection(script, "redis://127.0.0.1:6379", wake, Timing(settling=0.0), log), wake


async def test_an_answer(log: FilteringBoundLogger) -> None:
    """While Redis answers, nothing fails, and the committer sleeps."""
    connection, wake = connected(Script([b"PONG"]), log)
    assert await connection.request(PING) == [b"PONG"]
    assert (connection.away, connection.settled, connection.failures, wake.is_set()) == (False, True, 0, False)


async def test_away_and_back(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """A failure makes Redis away: requests fail at once, the committer wakes, and each of both is logged once."""
    script = Script(ConnectionError("refused"), [b"PONG"])
    connection, wake = connected(script, log)
    for _ in range(3):
        with pytest.raises(JournalDown):
            await connection.request(PING)
    assert (connection.away, connection.settled, script.pipelines) == (True, False, 1)
    assert (connection.failures, wake.is_set()) == (1, True)
    assert await connection.execute(PING) == [b"PONG"]  # what the committer and the lease try
    connection.answered()
    connection.answered()
    assert (connection.away, connection.settled) == (False, True)
    assert [(entry["event"], entry.get("reason")) for entry in logs.entries] == [
        ("journal.away", ""),
        ("journal.back", None),
    ]


async def test_a_refusal(log: FilteringBoundLogger) -> None:
    """A refusal is a failure for who asks; who sends a pipeline looks at it himself."""
    refusal = ResponseError("WRONGTYPE of value")
    connection, _ = connected(Script([b"OK", refusal], [b"OK", refusal]), log)
    assert await connection.pipeline([PING, PING]) == [b"OK", refusal]
    with pytest.raises(ResponseError):
        await connection.execute(PING, PING)
    assert not connection.away


async def test_reasons_are_logged_once(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """Each of Redis' own words is logged once until it is back, however often it is heard."""
    connection, _ = connected(Script(), log)
    for error in (
        ConnectionError("reset"),
        OutOfMemoryError("command not allowed", status_code="OOM"),
        ResponseError("MISCONF cannot save"),
        OutOfMemoryError("command not allowed", status_code="OOM"),
        ConnectionError("reset"),
    ):
        connection.failed(error)
    assert [entry["reason"] for entry in logs.entries] == ["", "OOM", "MISCONF"]
    assert connection.failures == 5


async def test_an_outage(log: FilteringBoundLogger) -> None:
    """An outage is over when Redis answers; one that lasts is reported, again and again."""
    connection, _ = connected(Script(), log)
    waiting = asyncio.create_task(connection.outage(60))
    await asyncio.sleep(0)
    for _ in range(3):
        connection.failed(ConnectionError())
        await asyncio.sleep(0)
        connection.answered()
        await asyncio.sleep(0)
    assert not waiting.done()
    connection.failed(ConnectionError())
    for _ in range(2):
        await asyncio.wait_for(connection.outage(0.01), 30)
    assert not waiting.done()
    waiting.cancel()


@pytest.mark.real
async def test_a_new_connection_is_noticed(tmp_path: Path) -> None:
    """After a connection has broken, records are not sent before the new one is trusted."""
    server = launch_redis(tmp_path)
    timing = Timing()
    records = RecordConnection(connector(server.url, timing), timing)
    try:
        assert await records.send([PING]) == [b"PONG"]
        assert await records.send([PING]) == [b"PONG"]
        with server.client() as redis:
            redis.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(
            (ConnectionError, Reconnected)
        ):  # the first, if the end was not seen before something is sent
            await records.send([("SET", "x", "1")])
        with pytest.raises(Reconnected):
            await records.send([("SET", "x", "1")])
        with server.client() as redis:
            assert not redis.exists("x")
        records.trust()
        assert await records.send([PING]) == [b"PONG"]
    finally:
        await records.aclose()
        server.stop()


@pytest.mark.real
async def test_a_socket_in_the_file_system(tmp_path: Path) -> None:
    """Redis is reached by `unix://` as well."""
    path = tmp_path / "redis.sock"
    server = launch_redis(tmp_path, "--unixsocket", str(path))
    client = connector(f"unix://{path}", replace(Timing(), connect=5.0))(None)
    try:
        assert await client.pipeline(5.0, [PING]) == [b"PONG"]
    finally:
        await client.aclose()
        server.stop()
