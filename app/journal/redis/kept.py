"""How much of Redis ended streams take: an owner above its bound, or all of them together, lose some.

Redis itself knows no owners, and with `noeviction` it takes no new stream once it is full. So each owner has an index
of its ended streams beside them, which is gone when they are. A stream is in it shortly after its end; a process that
dies before that leaves it out, and the stream goes when its time is up. The streams that would be gone first go first.

Once Redis has little left of its `maxmemory`, the owners that have most lose streams, as in a process's own memory. One
more index has what each owner takes. It may have more than that, because what goes by itself is counted out only when
the owner is looked at; what is in use, Redis knows.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import deque
from collections.abc import Callable, Set
from typing import NamedTuple

from redis.exceptions import RedisError, ResponseError
from structlog.typing import FilteringBoundLogger

from app.journal.redis import keys
from app.journal.redis.connection import RedisConnection, is_foreign
from app.journal.redis.timing import Timing

# How many ended streams wait to be counted, while Redis is away; the oldest ones are left out then.
_MOST_WAITING = 10_000
# An index is a sorted set of `ID SIZE`, each with the time at which the stream is gone, and of `sum`, with all sizes
# together: below zero, so that it is never among the times. However long the index is, the scripts touch little of it.
_SIZES = "local function size(item) return tonumber(string.match(item,' (%d+)$')) end local by=0 "
# Counts a stream of so many bytes in for so many seconds, if one is given. Returns what the owner's streams take, and
# some of those that have to go for it to be at most so much: never the given one. To repeat it changes nothing. A full
# Redis runs it as well, since its first command that writes needs no memory.
_COUNT = _SIZES + (
    "local time=redis.call('TIME') local now=time[1]+time[2]/1000000 "
    "local gone=redis.call('ZRANGEBYSCORE',KEYS[1],0,now,'LIMIT',0,1000) "
    "redis.call('ZREM',KEYS[1],'',unpack(gone)) "
    "for _,item in ipairs(gone) do by=by-size(item) end "
    "local new='' "
    "if ARGV[2] then new=ARGV[2]..' '..ARGV[3] "
    "if redis.call('ZADD',KEYS[1],'NX',now+ARGV[4],new)==1 then by=by+ARGV[3] end "
    "if redis.call('TTL',KEYS[1])<tonumber(ARGV[4]) then redis.call('EXPIRE',KEYS[1],ARGV[4]) end end "
    "if redis.call('EXISTS',KEYS[1])==0 then return {0} end "
    "local sum=-redis.call('ZINCRBY',KEYS[1],-by,'sum') "
    "local found={sum} local over=sum-ARGV[1] "
    "if over<=0 then return found end "
    "for _,item in ipairs(redis.call('ZRANGEBYSCORE',KEYS[1],0,'+inf','LIMIT',0,64)) do "
    "if over<=0 then break end "
    "if item~=new then found[#found+1]=item over=over-size(item) end "
    "end "
    "return found"
)
# Counts streams out.
_FORGET = _SIZES + (
    "for _,item in ipairs(ARGV) do if redis.call('ZREM',KEYS[1],item)==1 then by=by-size(item) end end "
    "if by<0 then redis.call('ZINCRBY',KEYS[1],-by,'sum') end"
)
# Notes what an owner takes, for so many seconds at least. Of many owners, only those that have most are of interest.
_NOTE = (
    "redis.call('ZREMRANGEBYRANK',KEYS[1],0,-10001) "
    "if tonumber(ARGV[2])>0 then redis.call('ZADD',KEYS[1],ARGV[2],ARGV[1]) "
    "else redis.call('ZREM',KEYS[1],ARGV[1]) end "
    "if redis.call('TTL',KEYS[1])<tonumber(ARGV[3]) then redis.call('EXPIRE',KEYS[1],ARGV[3]) end"
)
# What of its `maxmemory` Redis may have in use. The rest is for live streams, and for what comes before the next look.
_FULL = 0.75
# How many items of an index are looked through at once: their sizes are not known where a stream is deleted.
_SCANNED_AT_ONCE = 1000
# How many owners are looked at in a round.
_MOST_LOOKS = 1000
_MEMORY = re.compile(rb"^(used_memory|maxmemory):(\d+)", re.MULTILINE)


class _Ended(NamedTuple):
    owner: str
    stream_id: str
    size: int
    seconds: int


class Kept:
    """Holds the ended streams of each owner to *most* bytes, and all of them to what Redis has room for.

    Callers without credentials are one owner, "", which has no bound of its own. *on_evict* is told the id of each
    stream that this process deletes because there was no room, and why.
    """

    def __init__(
        self,
        connection: RedisConnection,
        most: int,
        on_evict: Callable[[str, str], None],
        timing: Timing,
        log: FilteringBoundLogger,
    ) -> None:
        self._connection = connection
        self._most = most
        self._on_evict = on_evict
        self._timing = timing
        self._log = log
        self._waiting: deque[_Ended] = deque(maxlen=_MOST_WAITING)
        self._removed: dict[str, set[str]] = {}  # by owner: the streams that are to be counted out

    def ended(self, owner: str, stream_id: str, size: int, seconds: int) -> None:
        """Have a stream counted that takes *size* bytes, and that Redis keeps for *seconds*."""
        self._waiting.append(_Ended(owner, stream_id, size, seconds))

    def removed(self, owner: str, stream_id: str) -> None:
        """Have a stream counted out that was deleted; otherwise it would count until its time is up."""
        self._removed.setdefault(owner, set()).add(stream_id)

    async def trim(self) -> None:
        """Count the streams that have ended, and delete those that are too many, for ever."""
        while True:
            await asyncio.sleep(self._timing.renewal)
            try:
                await self._count_all()
                await self._forget_removed()
                await self._make_room()
            except (RedisError, OSError) as error:
                if not is_foreign(error):
                    self._connection.failed(error)

    async def _count_all(self) -> None:
        while self._waiting:
            ended = self._waiting[0]
            try:
                most = self._most if ended.owner else sys.maxsize
                await self._bring_down(ended.owner, most, ended.stream_id, ended.size, ended.seconds)
            except ResponseError as error:
                if not is_foreign(error):
                    raise
            self._waiting.popleft()

    async def _forget_removed(self) -> None:
        """Count the streams out that were deleted. If Redis fails meanwhile, the others go when their time is up."""
        removed, self._removed = self._removed, {}
        for owner, stream_ids in removed.items():
            try:
                await self._forget(owner, stream_ids)
            except ResponseError as error:
                if not is_foreign(error):
                    raise

    async def _forget(self, owner: str, stream_ids: Set[str]) -> None:
        key = keys.kept(owner)
        cursor = b"0"
        while True:
            [[cursor, found]] = await self._connection.execute(("ZSCAN", key, cursor, "COUNT", _SCANNED_AT_ONCE))
            gone = [item for item in found[::2] if _id_of(item) in stream_ids]
            if gone:
                await self._connection.execute(("EVAL", _FORGET, 1, key, *gone))
            if cursor == b"0":
                return

    async def _make_room(self) -> None:
        """Delete streams of the owners that have most, if Redis has little room left. Raises RedisError or OSError."""
        freed = 0
        excess = await self._excess()
        for _ in range(_MOST_LOOKS):
            if freed >= excess:
                break
            flat = (await self._connection.execute(("ZREVRANGE", keys.holders(), 0, 1, "WITHSCORES")))[0]
            if not flat:
                break
            owner, size, *next_one = flat
            # Until it has what is too much no more, or no more than the next one.
            most = max(int(size) - (excess - freed), min(int(size) - 1, int(next_one[1]) if next_one else 0))
            freed += await self._bring_down(owner.decode(), most)
        if freed:
            self._log.warning("journal.full", freed=freed, advice="raise Redis' maxmemory, or lower CHAT_SSE_KEEP")

    async def _excess(self) -> int:
        """Return how many bytes are too much in Redis; 0 if Redis has no bound, or does not tell."""
        try:
            [told] = await self._connection.execute(("INFO", "memory"))
        except ResponseError:  # a hosted Redis may not let its clients ask
            return 0
        found = dict(_MEMORY.findall(told))
        return int(found.get(b"used_memory", 0)) - int(_FULL * most) if (most := int(found.get(b"maxmemory", 0))) else 0

    async def _bring_down(self, owner: str, most: int, *new: str | int) -> int:
        """Delete an owner's streams until they have *most* bytes. Raises RedisError or OSError.

        A *new* one is counted before: its id, size, and seconds. Return how many bytes are free.
        """
        key = keys.kept(owner)
        freed = 0
        while True:
            [[size, *over]] = await self._connection.execute(("EVAL", _COUNT, 1, key, most, *new))
            if not over:
                break
            # The logs are deleted by commands of their own, because in a cluster they are elsewhere. They are counted
            # until that is done: if it fails, they are found again, by this process or by another.
            deleted = await self._connection.execute(*[("UNLINK", keys.log(_id_of(item))) for item in over])
            for item, was_there in zip(over, deleted, strict=True):
                if was_there:
                    self._on_evict(_id_of(item), "memory")
            await self._connection.execute(("EVAL", _FORGET, 1, key, *over))
            freed += sum(int(item.partition(b" ")[2]) for item in over)
        await self._connection.execute(("EVAL", _NOTE, 1, keys.holders(), owner, size, new[-1] if new else 0))
        return freed


def _id_of(item: bytes) -> str:
    return item.partition(b" ")[0].decode()
