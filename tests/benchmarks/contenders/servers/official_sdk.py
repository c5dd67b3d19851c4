"""FastAPI with the official OpenAI SDK, as tutorials have it.

`python official_sdk.py PORT UPSTREAM`, where UPSTREAM is the base url without /v1.
"""

# FastAPI and OpenAI's SDK are in the contender's own virtual environment, not where mypy looks.
# mypy: disable-error-code="import-not-found,untyped-decorator"

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI
from pydantic import BaseModel

PORT, UPSTREAM = int(sys.argv[1]), sys.argv[2]

app = FastAPI()
client = AsyncOpenAI(base_url=f"{UPSTREAM}/v1", api_key="none")


class Chat(BaseModel):
    """The body of a request."""

    model: str
    prompt: str


async def deltas(asked: Chat) -> AsyncIterator[str]:
    """Yield each delta of the upstream's answer as an event of its own."""
    stream = await client.chat.completions.create(
        model=asked.model, messages=[{"role": "user", "content": asked.prompt}], stream=True
    )
    async for chunk in stream:
        if chunk.choices and (content := chunk.choices[0].delta.content):
            yield f"data: {json.dumps({'content': content})}\n\n"
    yield "data: [DONE]\n\n"


@app.post("/v1/chat")
async def chat(asked: Chat) -> StreamingResponse:
    """Answer a prompt."""
    return StreamingResponse(deltas(asked), media_type="text/event-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning", backlog=4096)
