"""Which streams an owner has: an index for each owner, beside the logs.

It has the newest `MOST` streams of the owner, each with the time of its creation: a live one by its id, and one that
has ended by its id, its state and the number of its last record. The process that produces a stream writes them, with
the commands that begin and end the log. A reader of the index looks at the logs, too: a stream that is no longer kept
is left out, and one whose process died before it could write the end there has ended if its log has. If the log has
not ended either, it is the process's lease that tells: without one, the stream's next reader will find an error. But a
stream with a note goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import NamedTuple

from app.events import Terminal
from app.journal import Listed, Listing
from app.journal.holder import listed, state_after
from app.journal.memory import MemoryLog
from app.journal.redis import keys
from app.journal.redis.client import Command
from app.journal.redis.connection import RedisConnection
from app.journal.redis.entries import HEADER, info_of, read_header, read_tail
from app.request import StreamInfo
from app.turns import turn

MOST = 1000
"""How many streams of an owner are in its index."""

# How many logs are looked at in one pipeline: each may have a last entry of many records.
_AT_ONCE = 16

# Puts a stream in, in place of how it was in before. Something else at the key is no reason to end the stream.
_NOTE = (
    "redis.pcall('ZREM',KEYS[1],ARGV[1]) "
    "redis.pcall('ZADD',KEYS[1],ARGV[2],ARGV[1]..ARGV[3]) "
    "redis.pcall('ZREMRANGEBYRANK',KEYS[1],0,-1-ARGV[4]) "
    "redis.pcall('EXPIRE',KEYS[1],ARGV[5])"
)
# Returns the streams before a time, each followed by when it was created: so many of them, or only of the live ones.
_FIND = (
    "local found={} "
    "local all=redis.pcall('ZREVRANGEBYSCORE',KEYS[1],ARGV[1],'-inf','WITHSCORES') "
    "for i=1,#all,2 do "
    "if #found>=2*ARGV[2] then break end "
    "if ARGV[3]=='0' or not string.find(all[i],' ') then found[#found+1]=all[i] found[#found+1]=all[i+1] end "
    "end "
    "return found"
)
# Returns the first entry of a log and, if asked for, the last, and whether there is a note; something else at the key
# is not a log.
_LOOK = (
    "local first=redis.pcall('XRANGE',KEYS[1],ARGV[1],ARGV[1]) "
    "if first.err then return {{},{},0} end "
    "local last=ARGV[2]=='1' and redis.call('XREVRANGE',KEYS[1],'+','-','COUNT',1) or {} "
    "return {first,last,redis.call('EXISTS',KEYS[2])}"
)


def note(stream_id: str, info: StreamInfo, seconds: int, last: int = 0, end: Terminal | None = None) -> list[Command]:
    """Return the command that has a stream in its owner's index for *seconds* at least.

    If it has ended, *end* is its record number *last*. The owner "" has no index.
    """
    if not info.owner:
        return []
    ending = "" if end is None else f" {state_after(end)} {last}"
    key = keys.streams(info.owner)
    return [("EVAL", _NOTE, 1, key, stream_id, info.created, ending, MOST, seconds)]


class _Found(NamedTuple):
    """An *item* of the index, and when the stream was *created*."""

    item: bytes
    created: int

    def parts(self) -> tuple[str, str, int]:
        """Return the stream's id, its state, and the number of its last record: 0 if it is live."""
        stream_id, *ending = self.item.decode().split(" ")
        state, last = ending or ("live", "0")
        return stream_id, state, int(last)


class Listings:
    """Lists the streams of all processes. *known* returns the log of a stream that this process has in memory."""

    def __init__(self, connection: RedisConnection, known: Callable[[str], MemoryLog | None]) -> None:
        self._connection = connection
        self._known = known

    async def streams_of(self, owner: str, limit: int, before: int | None, *, live: bool) -> Listing:
        """See `Journal.streams_of`. Raises JournalDown."""
        key = keys.streams(owner)
        newest = "+inf" if before is None else f"({before}"
        [flat] = await self._connection.request(("EVAL", _FIND, 1, key, newest, limit + 1, int(live)))
        found = [_Found(item, int(score)) for item, score in zip(flat[::2], flat[1::2], strict=True)]
        asked = found[:limit]
        streams: list[Listed] = []
        gone: list[bytes] = []
        for start in range(0, len(asked), _AT_ONCE):
            some = asked[start : start + _AT_ONCE]
            for each, stream in zip(some, await self._look(some), strict=True):
                if stream is None:
                    gone.append(each.item)
                elif not live or stream.state == "live":
                    streams.append(stream)
        if gone:
            await self._connection.request(("ZREM", key, *gone))
        return Listing(streams, asked[-1].created if len(found) > limit else None)

    async def _look(self, found: list[_Found]) -> list[Listed | None]:
        """Return what is to be said of the streams that were *found*: None of one that is no longer kept."""
        streams: dict[bytes, Listed | None] = {}
        commands: dict[bytes, Command] = {}
        live: dict[bytes, tuple[Listed, str]] = {}  # what is live by its log, and the process that produces it
        for each in found:
            stream_id, state, _ = each.parts()
            log = self._known(stream_id)
            if log is not None:
                streams[each.item] = listed(stream_id, log)
            else:
                commands[each.item] = ("EVAL", _LOOK, 2, *_keys(stream_id), HEADER, int(state == "live"))
        replies = dict(zip(commands, await self._connection.request(*commands.values()), strict=True))
        for each in found:
            if each.item in replies:
                first, last, noted = replies[each.item]
                await turn(1 + sum(len(part) for _, fields in last for part in fields) // 1024)
                streams[each.item] = stream = _read(*each.parts(), first, last)
                if stream is not None and stream.state == "live" and not noted:
                    live[each.item] = (stream, read_header(first[0])[b"process"].decode())
        gone = await self._gone({process for _, process in live.values()})
        streams |= {item: stream._replace(state="error") for item, (stream, process) in live.items() if process in gone}
        return [streams[each.item] for each in found]

    async def _gone(self, processes: Set[str]) -> set[str]:
        """Return those of *processes* that have no lease. Right after an outage they may not have renewed it yet."""
        if not processes or not self._connection.settled:
            return set()
        asked = sorted(processes)
        leases = await self._connection.request(*[("EXISTS", keys.lease(process)) for process in asked])
        return {process for process, alive in zip(asked, leases, strict=True) if not alive}


def _keys(stream_id: str) -> tuple[bytes, bytes]:
    return keys.log(stream_id), keys.note(stream_id)


def _read(stream_id: str, state: str, number: int, first: list[object], last: list[object]) -> Listed | None:
    """Return what a log's *first* and *last* entries say of a stream; None if it is not kept, or they are not ours."""
    try:
        if not first:
            return None
        info = info_of(read_header(first[0]))
        if state == "live":
            tail = read_tail(last, 0)
            state = "live" if tail.ending is None else state_after(tail.ending)
            number = tail.last
    except ValueError:
        return None
    return Listed(stream_id, info, state, number)
