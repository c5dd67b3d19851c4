"""Asking a simulator from tests: over a bare connection, byte by byte, or for the chunks of a stream."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.simulator import Simulator

KEY = "sk-secret-of-the-test"
PROMPT = "Tell me about 漢字"


@dataclass
class Seen:
    """What one request got, byte by byte as HTTP had it. *end*: clean, cut (mid-body or before), or open."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    frames: list[int] = field(default_factory=list)
    end: str = "clean"
    headers_after: float = 0.0
    content_after: float = 0.0

    @property
    def events(self) -> list[Any]:
        """The events' data, as JSON where it is; comments left out."""
        blocks = [block for block in self.body.split(b"\n\n") if block and not block.startswith(b":")]
        return [b"[DONE]" if block == b"data: [DONE]" else json.loads(block[6:]) for block in blocks]

    @property
    def deltas(self) -> list[dict[str, Any]]:
        """The deltas that have something to say, the role apart."""
        chunks = [event for event in self.events if isinstance(event, dict) and event.get("choices")]
        return [delta for chunk in chunks if (delta := chunk["choices"][0]["delta"]) and "role" not in delta]

    @property
    def finish(self) -> str | None:
        reasons = [
            event["choices"][0]["finish_reason"] for event in self.events if event != b"[DONE]" and "id" in event
        ]
        return next(filter(None, reasons), None)

    @property
    def done(self) -> bool:
        return self.body.endswith(b"data: [DONE]\n\n")


async def ask(
    simulator: Simulator,
    model: str,
    *,
    path: str = "/v1/chat/completions",
    enough: int = 1 << 30,
    patience: float = 10,
    **fields: Any,
) -> Seen:
    """Ask *model* over a bare connection; stop after *enough* bytes of body, or when nothing came for *patience*."""
    host, port = simulator.url.removeprefix("http://").removesuffix("/v1").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    said = {"messages": [{"role": "user", "content": PROMPT}]} if path.endswith("completions") else {"input": PROMPT}
    data = json.dumps({"model": model, "stream": True} | said | fields).encode()
    writer.write(b"POST %b HTTP/1.1\r\nhost: s\r\nauthorization: Bearer %b\r\n" % (path.encode(), KEY.encode()))
    writer.write(b"content-length: %d\r\n\r\n" % len(data) + data)
    seen = Seen()
    parts: list[bytes] = []
    loop = asyncio.get_running_loop()
    asked = loop.time()
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.headers_after = loop.time() - asked
        first, *lines = head.decode().strip().split("\r\n")
        seen.status = int(first.split()[1])
        seen.headers = dict(line.split(": ", 1) for line in lines)
        if length := seen.headers.get("content-length"):
            parts.append(await reader.readexactly(int(length)))
        while not length and sum(seen.frames) < enough:
            size = int(await asyncio.wait_for(reader.readuntil(b"\r\n"), patience), 16)
            frame = (await reader.readexactly(size + 2))[:-2]
            if size == 0:
                break
            said_now = b'"delta":"' in frame or (b'"content":' in frame and b'"role"' not in frame)
            if said_now and not seen.content_after:
                seen.content_after = loop.time() - asked
            seen.frames.append(size)
            parts.append(frame)
        else:
            seen.end = "clean" if length else "open"
    except TimeoutError:
        seen.end = "open"
    except (asyncio.IncompleteReadError, ConnectionError):
        seen.end = "cut"
    seen.body = b"".join(parts)
    writer.close()
    return seen


def question(model: str, content: Any = "Hello", **fields: Any) -> dict[str, Any]:
    return {"model": model, "stream": True, "messages": [{"role": "user", "content": content}], **fields}


async def chunks_of(client: httpx.AsyncClient, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the chunks of a stream that ends with [DONE], read with nothing but the json module."""
    response = await client.post("/chat/completions", json=body)
    assert response.status_code == 200
    *events, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])


async def begin(simulator: Simulator, model: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request over a bare connection."""
    host, port = simulator.url.removeprefix("http://").removesuffix("/v1").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    body = json.dumps(question(model)).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    return reader, writer
