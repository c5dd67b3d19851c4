"""A Redis of a history: a real one, behind a network whose faults are drawn."""

from __future__ import annotations

import asyncio
import random
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from redis import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.journal.redis.client import Check, Command, OnConnect

_TIME = re.compile(rb"redis\.call\('TIME'\)")
_PUBLISH = b"*3\r\n$7\r\nPUBLISH\r\n"
# Lets time pass for all keys that expire: Redis' own clock does not know a history's.
_AGE = """
for _, key in ipairs(redis.call('KEYS', '*')) do
    local left = redis.call('PTTL', key)
    if left > 0 then redis.call('PEXPIRE', key, left - tonumber(ARGV[1])) end
end
"""


class DrawnRedis:
    """The Redis at *url*, emptied. Its clock is that of the history, which begins at *epoch*, in Unix seconds."""

    def __init__(self, url: str, choose: random.Random, epoch: float) -> None:
        self.choose = choose
        self._epoch = epoch
        self._pool = ConnectionPool.from_url(url, protocol=2)
        self._connection: Any = self._pool.get_connection()
        self._aged_at = 0.0
        self.faults = choose.choice((0.0, 0.0, 0.02))
        self.inboxes: dict[bytes, list[DrawnPubSub]] = {}
        self.run([("FLUSHALL",)])

    def close(self) -> None:
        self._pool.disconnect()

    def draw(self) -> str:
        """Return what becomes of a pipeline."""
        if self.choose.random() >= self.faults:
            return "fine"
        return self.choose.choice(("refused", "lost", "late", "reply lost"))

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """Run *commands* now, and return their replies."""
        now = asyncio.get_running_loop().time()
        if now > self._aged_at:
            self._exchange([("EVAL", _AGE, 0, round((now - self._aged_at) * 1000))])
            self._aged_at = now
        return self._exchange(commands)

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        time = self._epoch + asyncio.get_running_loop().time()
        clock = b"({'%d','%d'})" % (int(time), int(time % 1 * 1e6))
        packed = []
        told = 0
        for command in commands:
            if isinstance(command, bytes):
                if command.startswith(_PUBLISH):
                    self._publish(command)
                    told += 1
                    continue
                packed.append(command)
            else:
                parts = [_TIME.sub(clock, _bytes(part)) if number == 1 else part for number, part in enumerate(command)]
                packed.append(b"".join(self._connection.pack_command(*parts)))
        self._connection.send_packed_command(packed)
        replies: list[Any] = []
        for command in commands:
            if isinstance(command, bytes) and command.startswith(_PUBLISH):
                replies.append(1)
                continue
            try:
                replies.append(self._connection.read_response())
            except ResponseError as error:
                replies.append(error)
        return replies

    def _publish(self, command: bytes) -> None:
        channel, size, rest = command.removeprefix(_PUBLISH).split(b"\r\n", 3)[1:]
        body = rest[: int(size[1:])]
        for inbox in self.inboxes.get(channel, ()):
            inbox.arrived(body)


def _bytes(part: object) -> bytes:
    return part if isinstance(part, bytes) else str(part).encode()


class DrawnClient:
    """A process's connections to the Redis that *redis* returns. See `app.journal.redis.client.Client`."""

    def __init__(
        self, redis: Callable[[], DrawnRedis], is_cut_off: Callable[[], bool], on_connect: OnConnect | None
    ) -> None:
        self._redis = redis
        self._is_cut_off = is_cut_off
        self._on_connect = on_connect
        self._connected = False

    async def pipeline(self, seconds: float, commands: Sequence[Command], check: Check | None = None) -> list[Any]:
        redis = self._redis()
        choose = redis.choose
        fault = "lost" if self._is_cut_off() else redis.draw()
        if fault == "refused":
            self._connected = False
            raise RedisConnectionError("drawn")
        if not self._connected:
            self._connected = True
            if self._on_connect is not None:
                await self._on_connect(self)
        if check is not None:
            check()
        await asyncio.sleep(0.01 * choose.random() ** 4)
        if fault == "fine":
            replies = redis.run(commands)
            await asyncio.sleep(0.01 * choose.random() ** 4)
            return replies
        self._connected = False
        if fault == "late" and not self._is_cut_off():
            asyncio.get_running_loop().call_later(2 * seconds * choose.random(), redis.run, commands)
        if fault == "reply lost":
            redis.run(commands)
        await asyncio.sleep(choose.choice((0.01, seconds)))
        raise RedisTimeoutError("drawn")

    async def on_connect(self) -> None:
        """Greet Redis, as a connection of redis-py's does."""

    def pubsub(self) -> DrawnPubSub:
        return DrawnPubSub(self._redis(), self._is_cut_off)

    async def aclose(self) -> None:
        """Close all connections."""


class DrawnPubSub:
    """A subscription to channels of *redis*."""

    def __init__(self, redis: DrawnRedis, is_cut_off: Callable[[], bool]) -> None:
        self._redis = redis
        self._is_cut_off = is_cut_off
        self._channels: list[bytes] = []
        self._come: deque[dict[str, Any]] = deque()
        self._news = asyncio.Event()

    async def subscribe(self, channel: bytes) -> None:
        self._channels.append(channel)
        self._redis.inboxes.setdefault(channel, []).append(self)
        self._take({"type": "subscribe"})

    def arrived(self, body: bytes) -> None:
        if not self._is_cut_off() and self._redis.draw() == "fine":
            self._take({"type": "message", "data": body})

    def _take(self, message: dict[str, Any]) -> None:
        self._come.append(message)
        self._news.set()

    async def get_message(self, timeout: float) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(timeout):
                await self._news.wait()
        except TimeoutError:
            return None
        message = self._come.popleft()
        if not self._come:
            self._news.clear()
        return message

    async def aclose(self) -> None:
        for channel in self._channels:
            self._redis.inboxes[channel].remove(self)
