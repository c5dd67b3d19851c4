"""What processes tell one another comes apart as it was put together, and nothing else is taken for it."""

from __future__ import annotations

from typing import Any

import pytest
from redis.connection import Connection

from app.events import Delta, Done, Event, Failure, Logprobs, ToolCall
from app.journal.encoding import encode
from app.journal.redis import messages
from app.journal.redis.messages import VERSION, Cancel, Following, Message, Positions, Records, pack

EVENTS: list[Event] = [
    Delta('\n"\u2028é'),
    ToolCall(0, "call", "name", '{"a":\n1}'),
    Logprobs([{"token": "x"}], []),
    Done("stop"),
]
TOLD: list[Message] = [
    Records("s", 7, EVENTS),
    Following("p", {"s": True, "t": False, "u": None}),
    Positions({"s": 12, "t": -1}),
    Cancel("s"),
    Records("s", 123_456_789_012, [Failure("m", "t", "c", True, 502)]),
]


def packed(message: Message) -> bytes:
    if isinstance(message, Records):
        return messages.pack_records(message.stream_id, message.first, encode(message.events))
    return pack(message)


def body_of(command: bytes) -> bytes:
    """Return what is published by a command without line ends in its parts."""
    return command.split(b"\r\n")[6]


@pytest.mark.parametrize("count", range(len(TOLD) + 1))
def test_messages_come_back(count: int) -> None:
    """However many messages are published as one, each is read as it was told, in order."""
    command = messages.publish(b"inbox", [packed(message) for message in TOLD[:count]])
    assert messages.read(body_of(command)) == TOLD[:count]


@pytest.mark.parametrize("count", [0, 1, 200])
def test_messages_are_published_as_redis_py_would(count: int) -> None:
    """The command is byte by byte the one of redis-py."""
    told = [messages.pack_records("s", number, encode([Delta("é" * number)])) for number in range(count)]
    connection: Any = Connection
    body = b"[%d%b]" % (VERSION, b"".join(b"," + each for each in told))
    assert messages.publish(b"inbox", told) == b"".join(connection().pack_command("PUBLISH", b"inbox", body))


GARBAGE = [
    b"",
    b"x",
    b"\xff \xff",
    b"[]",
    b"{}",
    b'"1"',
    b"[0]",
    b'[2,["cancel","s"]]',  # another version
    b"[1,[]]",
    b'[1,["?"]]',
    b'[1,["records","s","x",[]]]',
    b'[1,["records","s",1,"x"]]',
    b'[1,["records","s",1,[["?"]]]]',
    b'[1,["positions",{"s":"x"}]]',
    b'[1,["positions",["s"]]]',
    b'[1,["following","p"]]',
    b'[1,["following",1,{}]]',
    b'[1,["cancel",{}]]',
]


@pytest.mark.parametrize("body", GARBAGE)
def test_garbage_is_refused(body: bytes) -> None:
    """What another version says, or somebody else, is a ValueError."""
    with pytest.raises(ValueError):
        messages.read(body)
