"""The notes of live streams in Redis: what another process needs to go on with one.

A note also says which process produces the stream. The header of the log says which one began it. These are scripts,
because a process that was asleep may not write over the note of the one that has adopted its stream meanwhile.
"""

from __future__ import annotations

from typing import NamedTuple

import orjson

from app.journal.redis import keys
from app.journal.redis.client import Command
from app.journal.redis.entries import Tail
from app.journal.redis.writer import Pointer, RedisWriter

# Writes a note, unless the log is gone, or is of a later epoch. The header's id has a 1 that is no epoch.
_PUT = (
    "local last=redis.call('XREVRANGE',KEYS[1],'+','-','COUNT',1)[1] "
    "if not last then return 0 end "
    "local number,epoch=string.match(last[1],'(%d+)-(%d+)') "
    "if number~='0' and tonumber(epoch)>tonumber(ARGV[1]) then return 0 end "
    "redis.call('SET',KEYS[2],ARGV[2],'EX',ARGV[3]) "
    "return 1"
)
# Appends a claim and writes a note, unless the log's last entry is another one by now: then it returns the note.
_CLAIM = (
    "local last=redis.call('XREVRANGE',KEYS[1],'+','-','COUNT',1)[1] "
    "if not last or last[1]~=ARGV[1] then return redis.call('GET',KEYS[2]) end "
    "redis.call('XADD',KEYS[1],ARGV[2],'e','[]') "
    "redis.call('EXPIRE',KEYS[1],ARGV[4]) "
    "redis.call('SET',KEYS[2],ARGV[3],'EX',ARGV[4]) "
    "return 1"
)


class Note(NamedTuple):
    """The owner's *text*, the *process* that produces the stream, and the stream's *claim* if it has one."""

    process: str
    text: str
    claim: Pointer | None

    def pack(self) -> bytes:
        """Return the note as bytes."""
        return orjson.dumps([self.process, self.text, *(part.decode() for part in self.claim or ())])


def read(data: object) -> Note | None:
    """Return the note that Redis has; None if that is no note of this version, or nothing."""
    if not isinstance(data, bytes):
        return None
    try:
        match orjson.loads(data):
            case [str(process), str(text)]:
                return Note(process, text, None)
            case [str(process), str(text), str(key), str(value)]:
                return Note(process, text, Pointer(key.encode(), value.encode()))
    except ValueError:
        pass
    return None


def put(writer: RedisWriter, seconds: int) -> list[Command]:
    """Return the commands that keep the note of a *writer*'s stream for *seconds*, so that other processes find it."""
    note = Note(writer.process, writer.noted or "", writer.claim)
    noted = keys.noted(note.process)
    return [
        ("SADD", noted, writer.id),
        ("EXPIRE", noted, seconds),
        ("EVAL", _PUT, 2, writer.key, keys.note(writer.id), writer.epoch, note.pack(), seconds),
    ]


def claim(stream_id: str, tail: Tail, note: Note, seconds: int) -> Command:
    """Return the command that claims a stream with this *tail*, and keeps its new *note*; see `claimed`."""
    return ("EVAL", _CLAIM, 2, keys.log(stream_id), keys.note(stream_id), tail.entry, tail.claim, note.pack(), seconds)


def claimed(reply: object) -> bool:
    """Whether *reply* to `claim` says that the stream is claimed. Any other reply is the note, for `read`."""
    return reply == 1


def find(stream_id: str) -> Command:
    """Return the command that finds a note. Its reply is a list of that, for `read`."""
    return ("MGET", keys.note(stream_id))  # unlike GET, it refuses nothing
