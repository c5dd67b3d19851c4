"""What all processes agree on: which stream a key or a label stands for, and who has how many live streams."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from app.errors import JournalDown, KeyReused
from app.journal.redis import keys
from app.journal.redis.connection import Command, Link
from app.journal.redis.writer import Claim

# Seconds that a live stream counts for without being renewed: those of a process that died are given back after that.
_SLOT = 30
# Seconds that a stream may take to appear after its key was claimed, and between two looks.
_APPEARING, _LOOK = 2.0, 0.05
# Seconds after a stream's end for which its claim can still be given up.
_FORGET = 60.0

# Seconds that a label is kept if nobody takes it away at the stream's end: longer than any stream is live.
_LABEL = 86_400

# Scripts, because another process may come between two commands; on Redis' clock, because others' may differ.
_REPLACE = (
    "if redis.call('GET',KEYS[1])==ARGV[1] then redis.call('SET',KEYS[1],ARGV[2],'EX',ARGV[3]) return 1 end return 0"
)
REMOVE = "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) end return 0"
_OCCUPY = (
    "local now=tonumber(redis.call('TIME')[1]) "
    "redis.call('ZREMRANGEBYSCORE',KEYS[1],'-inf',now) "
    "if redis.call('ZCARD',KEYS[1])>=tonumber(ARGV[2]) then return 0 end "
    "redis.call('ZADD',KEYS[1],now+ARGV[3],ARGV[1]) "
    "redis.call('EXPIRE',KEYS[1],2*ARGV[3]) "
    "return 1"
)
_RENEW = (
    "local now=tonumber(redis.call('TIME')[1]) "
    "for i=2,#ARGV do redis.call('ZADD',KEYS[1],now+ARGV[1],ARGV[i]) end "
    "return redis.call('EXPIRE',KEYS[1],2*ARGV[1])"
)


class RedisRegistry:
    """The claims and slots of this process's streams. *life* is how many seconds a claim lasts without its stream."""

    def __init__(self, link: Link, life: int) -> None:
        self._link = link
        self._life = life
        self._claims: dict[str, Claim] = {}  # by stream, until some time after its end
        self._slots: dict[str, bytes] = {}  # by live stream
        self._given_up: dict[Claim, float] = {}  # what could not be released, and until when that is tried

    def claim_of(self, stream_id: str) -> Claim | None:
        """Return a stream's claim, if it has one."""
        return self._claims.get(stream_id)

    async def claim(self, owner: str, name: str, fingerprint: bytes, stream_id: str) -> str | None:
        """See `Registry.claim`."""
        key, mark = keys.claim(owner, name), fingerprint.hex().encode()
        value = mark + b" " + stream_id.encode()
        while True:
            [known] = await self._link.ask(("SET", key, value, "NX", "GET", "EX", self._life))
            if known is None:
                break
            theirs, _, other = known.partition(b" ")
            if theirs != mark:
                raise KeyReused
            if await self._appears(other.decode()):
                return str(other.decode())
            # Whoever claimed it died before the stream was begun. Of those who see that, one goes on in its place.
            [taken] = await self._link.ask(("EVAL", _REPLACE, 1, key, known, value, self._life))
            if taken:
                break
        self._claims[stream_id] = Claim(key, value)
        return None

    async def _appears(self, stream_id: str) -> bool:
        """Wait for a stream that another request is just beginning. Raises JournalDown."""
        # That Redis is slow to answer does not count as an answer.
        exists, clock = ("EXISTS", keys.log(stream_id)), asyncio.get_running_loop().time
        until = clock() + _APPEARING
        while not (await self._link.ask(exists))[0]:
            if clock() >= until:
                return False
            await asyncio.sleep(_LOOK)
        return True

    def retired(self, stream_id: str) -> None:
        """Forget a claim that now ends with its stream's log; but not yet, as it may still be given up."""
        if stream_id in self._claims:
            asyncio.get_running_loop().call_later(_FORGET, self._claims.pop, stream_id, None)

    async def release(self, stream_id: str) -> None:
        """See `Registry.release`."""
        claim = self._claims.pop(stream_id, None)
        if claim is not None:
            try:
                await self._link.ask(("EVAL", REMOVE, 1, claim.key, claim.value))
            except JournalDown:
                self._given_up[claim] = asyncio.get_running_loop().time() + _FORGET

    async def label(self, owner: str, label: str, stream_id: str) -> Claim:
        """Have *label* stand for a stream from now on. Return what stands for that. Raises JournalDown."""
        made = Claim(keys.label(owner, label), stream_id.encode())
        await self._link.ask(("SET", made.key, made.value, "EX", _LABEL))
        return made

    async def labelled(self, owner: str, label: str) -> str | None:
        """Return the stream that *label* stands for, kept or not, or None. Raises JournalDown."""
        [known] = await self._link.ask(("GET", keys.label(owner, label)))
        return None if known is None else str(known.decode())

    async def occupy(self, owner: str, stream_id: str, limit: int) -> bool:
        """See `Registry.occupy`. Raises JournalDown."""
        key = keys.slots(owner)
        [taken] = await self._link.ask(("EVAL", _OCCUPY, 1, key, stream_id, limit, _SLOT))
        if taken:
            self._slots[stream_id] = key
        return bool(taken)

    async def vacate(self, owner: str, stream_id: str) -> None:
        """See `Registry.vacate`."""
        key = self._slots.pop(stream_id, None)
        if key is not None:
            with suppress(JournalDown):
                await self._link.ask(("ZREM", key, stream_id))

    def renewals(self) -> list[Command]:
        """Return what has to be sent now and then: for live streams to go on counting, and for claims to be let go."""
        streams: dict[bytes, list[str]] = {}
        for stream_id, key in self._slots.items():
            streams.setdefault(key, []).append(stream_id)
        commands: list[Command] = [("EVAL", _RENEW, 1, key, _SLOT, *ids) for key, ids in streams.items()]
        now = asyncio.get_running_loop().time()
        self._given_up = {claim: until for claim, until in self._given_up.items() if now < until}
        return commands + [("EVAL", REMOVE, 1, claim.key, claim.value) for claim in self._given_up]
