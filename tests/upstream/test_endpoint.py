"""How an answer is streamed: what is read when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.events import Delta, Done
from app.upstream import Attempt
from app.upstream.endpoint import stream_answer
from app.upstream.http.client import Read
from app.upstream.reading.chat import chat_reader
from tests.upstream.raw import CHUNK, FINISH

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("pause", [0.25, None])
async def test_a_pause_follows_content_alone(pause: float | None) -> None:
    """Before the first content, and after bytes without content, the next read does not wait."""
    arriving = [b": hello\n\n", CHUNK % b"a", CHUNK % b"b", b":\n\n", CHUNK % b"c", FINISH]
    waits: list[float | None] = []

    @asynccontextmanager
    async def asked() -> AsyncIterator[Read]:
        async def read(seconds: float | None) -> bytes:
            waits.append(seconds)
            return arriving.pop(0) if arriving else b""

        yield read

    batches = [batch async for batch in stream_answer(chat_reader(1 << 20, ()), asked(), Attempt(), pause)]
    assert [event.text for batch in batches for event in batch if isinstance(event, Delta)] == ["a", "b", "c"]
    assert isinstance(batches[-1][0], Done)
    assert waits[:6] == [None, None, pause, pause, None, pause]
