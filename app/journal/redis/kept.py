"""How much of Redis each owner's ended streams take: above a bound, an owner loses those that would be gone first.

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
# An index is a sorted set of `ID SIZE`, each with the time at which the stream is gone, and of `sum`, with all sizes
# together: below zero, so that it is never among the times. However long the index is, the scripts touch little of it.
_SIZES = "local function size(item) return tonumber(string.match(item,' (%d+)$')) end local by=0 "
# Counts a stream of so many bytes in for so many seconds, and returns some of those that have to go for it: never
# itself. To repeat it changes nothing. A full Redis runs it as well, since its first command that writes needs no
# memory.
_COUNT = _SIZES + (
    "local time=redis.call('TIME') local now=time[1]+time[2]/1000000 "
    "local gone=redis.call('ZRANGEBYSCORE',KEYS[1],0,now,'LIMIT',0,1000) "
    "redis.call('ZREM',KEYS[1],'',unpack(gone)) "
    "for _,item in ipairs(gone) do by=by-size(item) end "
    "local new=ARGV[1]..' '..ARGV[2] "
    "if redis.call('ZADD',KEYS[1],'NX',now+ARGV[3],new)==1 then by=by+ARGV[2] end "
    "if redis.call('TTL',KEYS[1])<tonumber(ARGV[3]) then redis.call('EXPIRE',KEYS[1],ARGV[3]) end "
    "local over=-redis.call('ZINCRBY',KEYS[1],-by,'sum')-ARGV[4] "
    "local most={} "
    "if over<=0 then return most end "
    "for _,item in ipairs(redis.call('ZRANGEBYSCORE',KEYS[1],0,'+inf','LIMIT',0,64)) do "
    "if over<=0 then break end "
    "if item~=new then most[#most+1]=item over=over-size(item) end "
    "end "
    "return most"
)
# Counts streams out.
_FORGET = _SIZES + (
    "for _,item in ipairs(ARGV) do if redis.call('ZREM',KEYS[1],item)==1 then by=by-size(item) end end "
    "if by<0 then redis.call('ZINCRBY',KEYS[1],-by,'sum') end"
)


class _Ended(NamedTuple):
    owner: str
    stream_id: str
    size: int
    seconds: int


class Kept:
    """Holds the ended streams of each owner to *most* bytes.

    Callers without credentials are one owner, "", which has no bound.
    """

    def __init__(self, connection: RedisConnection, most: int, timing: Timing) -> None:
        self._connection = connection
        self._most = most
        self._timing = timing
        self._waiting: deque[_Ended] = deque(maxlen=_MOST_WAITING)

    def ended(self, owner: str, stream_id: str, size: int, seconds: int) -> None:
        """Have a stream counted that takes *size* bytes, and that Redis keeps for *seconds*."""
        if owner:
            self._waiting.append(_Ended(owner, stream_id, size, seconds))

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
        count = ("EVAL", _COUNT, 1, key, ended.stream_id, ended.size, ended.seconds, self._most)
        while over := (await self._connection.execute(count))[0]:
            # The logs are deleted by commands of their own, because in a cluster they are elsewhere. They are counted
            # until that is done: if it fails, they are found again, by this process or by another.
            await self._connection.execute(*[("UNLINK", keys.log(_id_of(item))) for item in over])
            await self._connection.execute(("EVAL", _FORGET, 1, key, *over))


def _id_of(item: bytes) -> str:
    return item.partition(b" ")[0].decode()
