"""What one delta costs in Python frames: the number that the hot path's speed hangs on, and that no machine changes."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import orjson
import pytest
from structlog.typing import FilteringBoundLogger
from uvicorn.server import ServerState

import app
from app.composition.service import compose
from app.composition.settings import load
from app.serving.protocol import Protocol, ServerConfig

pytestmark = pytest.mark.anyio

# The functions of `app` that one delta goes through, from the read of the upstream's socket to the write to the
# client's, with one live stream and one reader that keeps up; and how often they are entered. A coroutine that waits
# for the delta is resumed, and called again for the next one.
MOST_FUNCTIONS = 17
MOST_FRAMES = 19

_APP = str(Path(app.__file__).parent)
_WARM_UP = 50
_COUNTED = 100


async def test_frames_per_delta(log: FilteringBoundLogger) -> None:
    """A delta passes through as many frames of this service as it did, and through no more."""
    async with asyncio.timeout(30), upstream() as (url, connection), service(url, log) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = orjson.dumps({"prompt": "x"})
        writer.write(b"POST /v1/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        to_service = await connection

        async def relay(count: int) -> None:
            """Let *count* deltas through, each only when the one before has come out."""
            for number in range(count):
                to_service.write(chunk(f"token {number}"))
                await reader.readuntil(b'{"content":"token %d"}\n' % number)

        await relay(_WARM_UP)
        with counting() as frames:
            await relay(_COUNTED)
        writer.close()
    # What is done once in many deltas, such as packing a page of the journal, is no part of one delta's cost.
    per_delta = {name: count // _COUNTED for name, count in frames.items() if count >= _COUNTED}
    assert len(per_delta) <= MOST_FUNCTIONS, per_delta
    assert sum(per_delta.values()) <= MOST_FRAMES, per_delta
    # What timers do is done more often on a slow machine.
    by_delta = frames.total() - sum(count for name, count in frames.items() if name.startswith("/telemetry/"))
    assert by_delta < (MOST_FRAMES + 0.5) * _COUNTED, frames


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count the frames that are entered in `app` while the block runs, by file and function."""
    frames: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_APP):
            frames[f"{code.co_filename.removeprefix(_APP)} {code.co_qualname}"] += 1

    sys.setprofile(profile)
    try:
        yield frames
    finally:
        sys.setprofile(None)


def chunk(text: str) -> bytes:
    """Return a delta of OpenAI's, as a chunk of an HTTP body."""
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    data = orjson.dumps({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})
    return b"%x\r\ndata: %b\n\n\r\n" % (len(data) + 8, data)


@asynccontextmanager
async def upstream() -> AsyncIterator[tuple[str, asyncio.Future[asyncio.StreamWriter]]]:
    """Run an upstream; yield its base URL, and a future of its one connection, whose answer has begun."""
    begun: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        begun.set_result(writer)

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1", begun
    finally:
        listening.close()
        begun.result().transport.abort()


@asynccontextmanager
async def service(upstream_url: str, log: FilteringBoundLogger) -> AsyncIterator[int]:
    """Run the service as it is composed, behind its own HTTP protocol; yield its port."""
    async with compose(load(None, openai_base_url=upstream_url, openai_api_key="sk-x"), log) as composed:
        config = ServerConfig(composed.app, max_connections=10)
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(lambda: Protocol(config, state, {}, loop), "127.0.0.1", 0)
        try:
            yield listening.sockets[0].getsockname()[1]
        finally:
            listening.close()
            for connection in list(state.connections):
                connection.transport.abort()
