"""The handler everybody writes first: httpx, httpx-sse and sse-starlette, one event at a time.

`python naive.py PORT UPSTREAM`, where UPSTREAM is the base url without /v1. Kinder than what is usually found: its
client has no limit of connections, without which 100 streams are all it can have.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import uvicorn
from httpx_sse import aconnect_sse
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

PORT, UPSTREAM = int(sys.argv[1]), sys.argv[2]

client = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None))


async def deltas(body: dict[str, Any]) -> AsyncIterator[dict[str, str]]:
    """Yield each delta of the upstream's answer as an event of its own."""
    async with aconnect_sse(client, "POST", f"{UPSTREAM}/v1/chat/completions", json=body) as source:
        async for event in source.aiter_sse():
            if event.data == "[DONE]":
                yield {"data": "[DONE]"}
                break
            choices = json.loads(event.data)["choices"]
            if choices and (content := choices[0]["delta"].get("content")):
                yield {"data": json.dumps({"content": content})}


async def chat(request: Request) -> EventSourceResponse:
    """`POST /v1/chat` with a prompt."""
    asked = await request.json()
    body = {"model": asked["model"], "messages": [{"role": "user", "content": asked["prompt"]}], "stream": True}
    return EventSourceResponse(deltas(body))


app = Starlette(routes=[Route("/v1/chat", chat, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning", backlog=4096)
