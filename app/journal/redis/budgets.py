"""The budgets that all processes share: see `Budgets`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from app.errors import JournalDown
from app.journal.budgets import DAY, Balance
from app.journal.redis import keys
from app.journal.redis.client import Command
from app.journal.redis.connection import RedisConnection
from app.journal.redis.timing import Timing

# An account is a hash. `spent` and `until` are its day's; any other field is a stream, and its value is the time at
# which the reservation lapses, then the reserved tokens. A stream that was settled keeps its field for a while, with
# `settled` in it: the charge may be sent again, because its reply was lost. These are scripts for the reasons that the
# registry's are; a Lua number of this size is printed with an exponent unless `%.0f` says otherwise.
_READ = (
    "local now=tonumber(redis.call('TIME')[1]) "
    "local spent,untl,reserved=0,0,0 "
    "local all=redis.call('HGETALL',KEYS[1]) "
    "for i=1,#all,2 do "
    "if all[i]=='spent' then spent=tonumber(all[i+1]) "
    "elseif all[i]=='until' then untl=tonumber(all[i+1]) "
    "else local lapses,tokens=string.match(all[i+1],'^(%d+) (%d+)') "
    "if tonumber(lapses)<=now then redis.call('HDEL',KEYS[1],all[i]) else reserved=reserved+tonumber(tokens) end "
    "end end "
    "if untl<=now then spent,untl=0,0 end "
    "local function keep(id,tokens,lease,mark) "
    "redis.call('HSET',KEYS[1],id,string.format('%.0f %.0f%s',now+lease,tokens,mark)) "
    "redis.call('EXPIRE',KEYS[1],string.format('%.0f',math.max(untl-now,2*lease))) end "
)
_BALANCE = _READ + "return {spent,reserved,untl-now}"
_RESERVE = _READ + (
    "local own=redis.call('HGET',KEYS[1],ARGV[1]) "
    "if own then reserved=reserved-tonumber(string.match(own,'^%d+ (%d+)')) end "
    "local granted=math.min(tonumber(ARGV[3]),tonumber(ARGV[2])-spent-reserved) "
    "if granted<tonumber(ARGV[4]) then granted=0 else keep(ARGV[1],granted,tonumber(ARGV[5]),'') end "
    "return {granted,spent,reserved,untl-now}"
)
# A reservation that Redis has lost is made again, unless its stream has been settled.
_RENEW = _READ + (
    "for i=2,#ARGV,2 do local known=redis.call('HGET',KEYS[1],ARGV[i]) "
    "if not known or not string.find(known,'settled') then keep(ARGV[i],tonumber(ARGV[i+1]),tonumber(ARGV[1]),'') end "
    "end return 1"
)
_SETTLE = _READ + (
    "local known=redis.call('HGET',KEYS[1],ARGV[1]) "
    "if known and string.find(known,'settled') then return 0 end "
    "local tokens=tonumber(ARGV[2]) "
    "if tokens>0 then "
    "if untl==0 then untl=now+tonumber(ARGV[4]) end "
    "redis.call('HSET',KEYS[1],'spent',string.format('%.0f',spent+tokens),'until',string.format('%.0f',untl)) end "
    "keep(ARGV[1],0,tonumber(ARGV[3]),' settled') "
    "return 1"
)


class _Reservation(NamedTuple):
    key: bytes
    tokens: int


class RedisBudgets:
    """The budgets of all processes, as seen by one of them.

    A charge that Redis could not be told is kept until it is. There are no more of them than streams were live when
    Redis went away, because none can be opened without Redis. A charge is also kept as long as a stream's end is
    *undecided*: another process may have adopted the stream, and will charge it.
    """

    def __init__(self, connection: RedisConnection, timing: Timing, undecided: Callable[[str], bool]) -> None:
        self._connection = connection
        self._timing = timing
        self._undecided = undecided
        self._reserved: dict[str, _Reservation] = {}  # by live stream of this process
        self._unsettled: dict[str, Command] = {}  # by ended stream: the charge that Redis has not acknowledged

    async def balance(self, account: str) -> Balance:
        [reply] = await self._connection.request(("EVAL", _BALANCE, 1, keys.budget(account)))
        return _balance(*reply)

    async def reserve(self, account: str, stream_id: str, budget: int, wanted: int, least: int) -> tuple[int, Balance]:
        key = keys.budget(account)
        command: Command = ("EVAL", _RESERVE, 1, key, stream_id, budget, wanted, least, self._timing.slot)
        [[granted, *balance]] = await self._connection.request(command)
        if granted:
            self._reserved[stream_id] = _Reservation(key, granted)
        return granted, _balance(*balance)

    async def settle(self, account: str, stream_id: str, tokens: int) -> None:
        if self._reserved.pop(stream_id, None) is None:
            return
        charge: Command = ("EVAL", _SETTLE, 1, keys.budget(account), stream_id, tokens, self._timing.settled, DAY)
        self._unsettled[stream_id] = charge
        if self._undecided(stream_id):
            return
        with suppress(JournalDown):
            await self._connection.request(charge)
            self._unsettled.pop(stream_id, None)

    def disown(self, stream_id: str) -> None:
        """Neither renew nor charge what was reserved for a stream that another process goes on with."""
        self._reserved.pop(stream_id, None)
        self._unsettled.pop(stream_id, None)

    async def store(self) -> None:
        """Send the charges that Redis has not acknowledged, again. Raises RedisError or OSError."""
        unsettled = [each for each in self._unsettled.items() if not self._undecided(each[0])]
        if unsettled:
            await self._connection.execute(*(charge for _, charge in unsettled))
            for stream_id, _ in unsettled:
                self._unsettled.pop(stream_id, None)

    def renewals(self) -> list[Command]:
        """Return the commands that keep the reservations of live streams."""
        by_key: dict[bytes, list[str | int]] = {}
        for stream_id, reservation in self._reserved.items():
            by_key.setdefault(reservation.key, []).extend((stream_id, reservation.tokens))
        return [("EVAL", _RENEW, 1, key, self._timing.slot, *each) for key, each in by_key.items()]


def _balance(spent: int, reserved: int, left: int) -> Balance:
    return Balance(spent, reserved, left if left > 0 else DAY)
