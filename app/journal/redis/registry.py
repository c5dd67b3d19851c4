"""What all processes agree on: which stream a key or a label stands for, and how many streams an account has live."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from app.errors import JournalDown, KeyReused
from app.journal.redis import keys
from app.journal.redis.client import Command
from app.journal.redis.connection import RedisConnection
from app.journal.redis.timing import Timing
from app.journal.redis.writer import Pointer

# These are scripts, because another process may come between two commands. They use Redis' clock, because the clocks of
# processes may differ.
_REPLACE = (
    "if redis.call('GET',KEYS[1])==ARGV[1] then redis.call('SET',KEYS[1],ARGV[2],'EX',ARGV[3]) return 1 end return 0"
)
_REMOVE = "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) end return 0"
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


def removal(pointer: Pointer) -> Command:
    """Return the command that deletes a key, unless it stands for another stream by then."""
    return ("EVAL", _REMOVE, 1, pointer.key, pointer.value)


class RedisRegistry:
    """The registry of all processes, as seen by one of them: see `Registry`."""

    def __init__(self, connection: RedisConnection, timing: Timing) -> None:
        self._connection = connection
        self._timing = timing
        self._claims: dict[str, Pointer] = {}  # by stream of this process, until some time after its end
        self._slots: dict[str, bytes] = {}  # by live stream of this process: its account's slots
        self._renewed: dict[str, bytes] = {}  # the slots that `renewals` had since the last `vacated`
        self._unreleased: dict[Pointer, float] = {}  # what Redis could not be told, and until when that is tried

    def claim_of(self, stream_id: str) -> Pointer | None:
        """Return a stream's claim, if it has one."""
        return self._claims.get(stream_id)

    async def claim(self, owner: str, name: str, fingerprint: bytes, stream_id: str) -> str | None:
        key = keys.claim(owner, name)
        mark = fingerprint.hex().encode()
        value = mark + b" " + stream_id.encode()
        while True:
            [known] = await self._connection.request(("SET", key, value, "NX", "GET", "EX", self._timing.live))
            if known is None:
                break
            their_mark, _, other = known.partition(b" ")
            if their_mark != mark:
                raise KeyReused
            if await self._appears(other.decode()):
                return str(other.decode())
            # The process that claimed the key died before it began the stream. Of those that see this, one goes on.
            [taken] = await self._connection.request(("EVAL", _REPLACE, 1, key, known, value, self._timing.live))
            if taken:
                break
        self._claims[stream_id] = Pointer(key, value)
        return None

    async def keyed(self, owner: str, name: str) -> str | None:
        [known] = await self._connection.request(("GET", keys.claim(owner, name)))
        return None if known is None else str(known.partition(b" ")[2].decode())

    async def _appears(self, stream_id: str) -> bool:
        """Wait for a stream that another request is just beginning. Raises JournalDown."""
        exists: Command = ("EXISTS", keys.log(stream_id))
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._timing.appearing
        # However slow Redis is, its answer is waited for at least once.
        while not (await self._connection.request(exists))[0]:
            if clock() >= deadline:
                return False
            await asyncio.sleep(self._timing.appearing_pause)
        return True

    def retire(self, stream_id: str) -> None:
        """Note that a stream has ended. Its claim ends with its log, but for a while it can still be released."""
        if stream_id in self._claims:
            asyncio.get_running_loop().call_later(self._timing.release, self._claims.pop, stream_id, None)

    def adopt(self, stream_id: str, claim: Pointer | None) -> None:
        """Take note of the *claim* of a stream that another process began."""
        if claim is not None:
            self._claims[stream_id] = claim

    def disown(self, stream_id: str) -> None:
        """Forget the claim and the slot of a stream that another process goes on with."""
        self._claims.pop(stream_id, None)
        self._slots.pop(stream_id, None)
        self._renewed.pop(stream_id, None)

    async def release(self, stream_id: str) -> None:
        claim = self._claims.pop(stream_id, None)
        if claim is not None:
            try:
                await self._connection.request(removal(claim))
            except JournalDown:
                self._unreleased[claim] = asyncio.get_running_loop().time() + self._timing.release

    async def labelled(self, owner: str, label: str) -> str | None:
        [known] = await self._connection.request(("GET", keys.label(owner, label)))
        return None if known is None else str(known.decode())

    async def occupy(self, account: str, stream_id: str, limit: int) -> bool:
        key = keys.slots(account)
        [taken] = await self._connection.request(("EVAL", _OCCUPY, 1, key, stream_id, limit, self._timing.slot))
        if taken:
            self._slots[stream_id] = key
        return bool(taken)

    async def vacate(self, account: str, stream_id: str) -> None:
        key = self._slots.pop(stream_id, None)
        if key is not None:
            with suppress(JournalDown):
                await self._connection.request(("ZREM", key, stream_id))

    def renewals(self) -> list[Command]:
        """Return the commands that keep the slots of live streams, and that release what could not be released."""
        streams: dict[bytes, list[str]] = {}
        for stream_id, key in self._slots.items():
            streams.setdefault(key, []).append(stream_id)
        self._renewed.update(self._slots)
        commands: list[Command] = [("EVAL", _RENEW, 1, key, self._timing.slot, *ids) for key, ids in streams.items()]
        now = asyncio.get_running_loop().time()
        self._unreleased = {claim: until for claim, until in self._unreleased.items() if now < until}
        return commands + [removal(claim) for claim in self._unreleased]

    def vacated(self) -> list[Command]:
        """Return the commands that vacate again what was vacated while its renewal was on its way to Redis."""
        again = self._renewed.items() - self._slots.items()
        self._renewed.clear()
        return [("ZREM", key, stream_id) for stream_id, key in again]
