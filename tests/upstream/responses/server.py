"""A Responses source, and what a server of raw bytes may do to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

from app.upstream.endpoint import Endpoint
from app.upstream.http.client import create_client
from app.upstream.responses.background import Timing
from app.upstream.sources.openai_responses import OpenAIResponses
from tests.upstream.raw import Handler, hang_up
from tests.upstream.responses.bytes import WHOLE

BLOCKS = [block + b"\n\n" for block in WHOLE.split(b"\n\n")[:-1]]
SOON = Timing(resume_waits=(0.0, 0.001, 0.001))  # no test waits for as long as a restart takes
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@asynccontextmanager
async def responses(
    base_url: str,
    *,
    key: str | None = "sk-key",
    headers: Mapping[str, str] = MappingProxyType({}),
    extra_body: Mapping[str, Any] = MappingProxyType({}),
    background: bool = False,
    timing: Timing = SOON,
) -> AsyncIterator[OpenAIResponses]:
    async with create_client(base_url, 5) as client:
        endpoint = Endpoint(client, base_url, key, headers, extra_body)
        yield OpenAIResponses(endpoint, 1 << 20, background, timing)


def cut(body: bytes) -> Handler:
    """Return a handler that breaks off mid-body."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + body)
        await writer.drain()
        await hang_up(reader, writer)

    return handler


def held(body: bytes) -> Handler:
    """Return a handler that sends no more, and waits for the other side to leave."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + body)
        await writer.drain()
        await reader.read()

    return handler
