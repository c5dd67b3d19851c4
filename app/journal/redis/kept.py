"""How much of Redis each owner's ended streams take: above a bound, an owner loses those that ended first.

Redis itself knows no owners, and with `noeviction` it takes no new stream once it is full. So each owner has an index
of its ended streams beside them, which is gone when they are. A stream is in it shortly after its end; a process that
dies before that leaves it out, and the stream goes when its time is up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from redis.exceptions import RedisError, ResponseError

from app.journal.redis import keys
from app.journal.redis.connection import RedisConnection, is_foreign
from app.journal.redis.timing import Timing

# How many ended streams wait to be counted, while Redis is away; the oldest ones are left out then.
_MOST_WAITING = 10_000
# Counts a stream of so many bytes in, and returns the streams that have to go for it: never the newest one. The logs
# are deleted by commands of their own, because in a cluster they are elsewhere. A full Redis runs the script as well,
# since the first command in it that writes needs no memory.
_KEEP = (
    "local time=redis.call('TIME') local now=time[1]+time[2]/1000000 "
    "redis.call('ZREMRANGEBYSCORE',KEYS[1],'-inf',now) "
    "redis.call('ZADD',KEYS[1],now+ARGV[3],ARGV[1]..' '..ARGV[2]) "
    "redis.call('EXPIRE',KEYS[1],ARGV[3]) "
    "local sum=0 local gone={} "
    "for i,item in ipairs(redis.call('ZREVRANGE',KEYS[1],0,-1)) do "
    "local id,size=string.match(item,'^(%S+) (%d+)$') "
    "sum=sum+size "
    "if i>1 and sum>tonumber(ARGV[4]) then gone[#gone+1]=id redis.call('ZREM',KEYS[1],item) end "
    "end "
    "return gone"
)


class _Ended(NamedTuple):
    owner: str
    stream_id: str
    size: int


class Kept:
    """Holds the ended streams of each owner to *most* bytes. Redis keeps an ended stream for *seconds*.

    Callers without credentials are one owner, "", which has no bound.
    """

    def __init__(self, connection: RedisConnection, most: int, seconds: int, timing: Timing) -> None:
        self._connection = connection
        self._most = most
        self._seconds = seconds
        self._timing = timing
        self._waiting: deque[_Ended] = deque(maxlen=_MOST_WAITING)

    def ended(self, owner: str, stream_id: str, size: int) -> None:
        """Have a stream counted that takes *size* bytes."""
        if owner:
            self._waiting.append(_Ended(owner, stream_id, size))

    async def trim(self) -> None:
        """Count the streams that have ended, and delete those that are too many, for ever."""
        while True:
            await asyncio.sleep(self._timing.renewal)
            try:
                await self._count_all()
            except (RedisError, OSError) as error:
                self._connection.failed(error)

    async def _count_all(self) -> None:
        while self._waiting:
            try:
                await self._count(self._waiting[0])
            except ResponseError as error:
                if not is_foreign(error):
                    raise
            self._waiting.popleft()

    async def _count(self, ended: _Ended) -> None:
        """Raises RedisError or OSError."""
        key = keys.kept(ended.owner)
        count = ("EVAL", _KEEP, 1, key, ended.stream_id, ended.size, self._seconds, self._most)
        [gone] = await self._connection.execute(count)
        if gone:
            await self._connection.execute(*[("UNLINK", keys.log(stream_id.decode())) for stream_id in gone])
