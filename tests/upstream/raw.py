"""A server of raw bytes to ask, and how a test asks it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress

from app.events import Content, Done
from app.request import StreamRequest
from app.upstream import Attempt, Source
from app.upstream.endpoint import Endpoint
from app.upstream.http.client import create_client
from app.upstream.router import RetryPolicy, Router, Target
from app.upstream.sources.openai_chat import OpenAIChat
from tests.script import played

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def asked(model: str = "m", prompt: str = "hello") -> StreamRequest:
    return StreamRequest(model, ({"role": "user", "content": prompt},), {"temperature": 0})


def retrying(source: Source, policy: RetryPolicy) -> Router:
    """Return a way to *source* alone."""
    return Router({}, (Target("", None, source),), policy)


@asynccontextmanager
async def chat(base_url: str, *, key: str | None = "sk-key", connect: float = 5) -> AsyncIterator[OpenAIChat]:
    async with create_client(base_url, connect) as client:
        yield OpenAIChat(Endpoint(client, base_url, key), max_event=1 << 20)


async def answer(
    source: Source | Router, request: StreamRequest | None = None, attempts: list[Attempt] | None = None
) -> tuple[list[Content], Done]:
    """Return the whole answer, and append what became of each attempt to *attempts*."""
    content: list[Content] = []
    request = request or asked()
    attempts = [] if attempts is None else attempts
    if isinstance(source, Router):
        stream = played(source, request, attempts)
    else:
        attempts.append(Attempt())
        stream = source.stream(request, attempts[-1])
    async with aclosing(stream) as batches:
        async for batch in batches:
            for event in batch:
                if isinstance(event, Done):
                    return content, event
                content.append(event)
    raise AssertionError("a source that does not raise ends with Done")


def answers(attempts: list[Attempt]) -> list[str]:
    """Return what each request was answered with, over all attempts."""
    return [answer for attempt in attempts for answer in attempt.answers]


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Give each connection to a free port of 127.0.0.1 to *serve*. Gives the port; closes the connections at the end.

    They are closed first, because `wait_closed` waits for them from Python 3.12.1 on.
    """
    writers: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(asyncio.IncompleteReadError, OSError):  # the client left
            await serve(reader, writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            with suppress(AttributeError):  # Python 3.11.2's, of a connection over TLS that is closed already
                writer.transport.abort()
        await server.wait_closed()


class Upstream:
    """A server of raw bytes, over TLS if *tls* is given: each request is kept, and answered by the next handler."""

    def __init__(self, *handlers: Handler | bytes, tls: ssl.SSLContext | None = None) -> None:
        self.handlers = list(handlers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0
        self._tls = tls
        self._listening = AsyncExitStack()

    async def __aenter__(self) -> Upstream:
        port = await self._listening.enter_async_context(listening(self._serve, self._tls))
        self.url = f"{'http' if self._tls is None else 'https'}://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listening.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                self.requests.append(head + await reader.readexactly(length))
                handler = self.handlers.pop(0)
                if isinstance(handler, bytes):
                    writer.write(handler)
                    await writer.drain()
                else:
                    await handler(reader, writer)
        finally:
            self.open -= 1
            writer.close()

    async def idle(self) -> None:
        """Wait until every connection is gone."""
        async with asyncio.timeout(30):
            while self.open:
                await asyncio.sleep(0.005)


def reply(body: bytes, *, status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), headers, body)


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()
    raise ConnectionError
