"""The commands that are written by hand are those that redis-py would send."""

from __future__ import annotations

from typing import Any

import pytest
from redis.connection import Connection

from app.events import Delta, Done, Event, Failure, Reasoning, Refusal, Start, ToolCall
from app.journal.redis import codec, keys
from app.usage import Usage

EVENTS: list[list[Event]] = [
    [Delta("Hello")],
    [Delta("\n\r\n\x00\u2028é𝄞"), Delta("")],
    [Start("gpt", 1750000000, ""), Reasoning("why"), Refusal("no"), ToolCall(0, "call", "name", '{"a":\n1}')],
    [Done("stop", None, Usage({"total_tokens": 3, "details": {"cached": 1}}, estimated=True))],
    [Failure("It broke.", "upstream_error", "upstream", retryable=True, status=502, usage=Usage({}))],
]


def packed(*command: str | bytes) -> bytes:
    connection: Any = Connection
    return b"".join(connection().pack_command(*command))


@pytest.mark.parametrize("events", EVENTS)
@pytest.mark.parametrize("first", [1, 10, 123_456_789_012])
def test_an_entry_is_appended_as_redis_py_would(events: list[Event], first: int) -> None:
    """Lengths count bytes, whatever is in them, and the entry's id is its first record's number."""
    key, data = keys.log("a" * 22), codec.encode(events)
    assert codec.append(key, first, data) == packed("XADD", key, "NOMKSTREAM", f"{first}-0", "e", data)


@pytest.mark.parametrize("count", [1, 2, 200])
def test_messages_are_published_as_redis_py_would(count: int) -> None:
    """However many there are, they are one message on the channel."""
    messages = [b"d %d %b" % (number, codec.encode([Delta("x" * number)])) for number in range(count)]
    assert codec.publish(b"inbox", messages) == packed("PUBLISH", b"inbox", b"\n".join(messages))


def test_what_was_published_as_one_comes_apart_again() -> None:
    """No event, line ends and all, is written with a line end, which is what parts one message from the next."""
    messages = [codec.encode(events) for events in EVENTS]
    assert codec.split(b"\n".join(messages)) == messages
    assert [codec.decode(message) for message in messages] == EVENTS
