"""Events as bytes: one JSON array per entry. A `Delta`, of which nearly every stream is made, is a bare string.

And the two commands that are sent for nearly every delta, as Redis reads them: what redis-py makes of them, at a tenth
of the price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson

from app.events import TERMINAL, Delta, Done, Event, Failure, Logprobs, Reasoning, Refusal, Start, ToolCall, values
from app.journal.redis import keys
from app.usage import Usage

_TAGS: dict[type, str] = {
    Start: "s",
    Reasoning: "r",
    Refusal: "f",
    ToolCall: "t",
    Logprobs: "l",
    Done: "d",
    Failure: "e",
}
_KINDS: dict[str, Any] = {tag: kind for kind, tag in _TAGS.items()}


def encode(events: Sequence[Event]) -> bytes:
    """Return *events* as bytes."""
    return orjson.dumps([event.text if type(event) is Delta else _pack(event) for event in events])


def decode(data: bytes) -> list[Event]:
    """Return what was encoded. Raises ValueError for anything else."""
    try:
        return [Delta(item) if isinstance(item, str) else _unpack(item) for item in orjson.loads(data)]
    except (KeyError, TypeError) as error:  # from a process of another version
        raise ValueError("not a batch of events") from error


def read_entry(entry: Any) -> tuple[int, list[Event]]:
    """Return an entry's first record's number and its records; of the header, 1 and none. Raises ValueError."""
    entry_id, fields = entry
    if entry_id == keys.HEADER:
        return 1, []
    return int(entry_id.partition(b"-")[0]), decode(fields[1])


def append(key: bytes, first: int, data: bytes) -> bytes:
    """Return the command that appends an entry to a log, the number of its first record being *first*.

    Not to a log that is gone, which has to be written anew as a whole.
    """
    entry_id = b"%d-0" % first
    return b"*6\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n$10\r\nNOMKSTREAM\r\n$%d\r\n%b\r\n$1\r\ne\r\n$%d\r\n%b\r\n" % (
        len(key),
        key,
        len(entry_id),
        entry_id,
        len(data),
        data,
    )


def publish(channel: bytes, messages: Sequence[bytes]) -> bytes:
    """Return the command that sends *messages* to *channel*, as one. `split` parts them again."""
    message = b"\n".join(messages)  # there is no line end in JSON as it is written here
    return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, len(message), message)


def split(message: bytes) -> list[bytes]:
    """Return the messages that were published as one."""
    return message.split(b"\n")


def _pack(event: Event) -> list[Any]:
    packed = [[dict(it.fields), it.estimated] if isinstance(it, Usage) else it for it in values(event)]
    return [_TAGS[type(event)], *packed]


def _unpack(item: list[Any]) -> Event:
    tag, *packed = item
    event: Event = _KINDS[tag](*packed)
    if isinstance(event, TERMINAL) and event.usage is not None:
        usage: Any = event.usage  # still as `_pack` left it
        return replace(event, usage=Usage(*usage))
    return event
