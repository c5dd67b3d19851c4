"""LiteLLM's SDK as a client, run by its own Python: takes a line of JSON for each request, and prints one per piece.

{"url", "model", "stream", "leave", "request"} asks; with "leave", it stops reading after so many pieces. A piece is
{"piece"}, what all of them are {"message", "usage"}, an exception {"error", "status"}; then comes {"end"}.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from typing import Any


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


async def ask(litellm: Any, plan: dict[str, Any]) -> None:
    asked = {
        "model": f"openai/{plan['model']}",
        "api_base": f"{plan['url']}/v1",
        "api_key": "none-asked-for",
        "max_retries": 0,
        **plan["request"],
    }
    if not plan["stream"]:
        answer = await litellm.acompletion(**asked)
    else:
        pieces = []
        reading = await litellm.acompletion(**asked, stream=True, stream_options={"include_usage": True})
        async for piece in reading:
            pieces.append(piece)
            say(piece=piece.model_dump())
            if len(pieces) == plan["leave"]:
                await reading.aclose()
                return
        answer = litellm.stream_chunk_builder(pieces)
    say(message=answer.choices[0].model_dump(), usage=answer.usage.model_dump())


async def main() -> None:
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True  # which it prints
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            await ask(litellm, json.loads(line))
        except Exception as error:  # which one it is is what the test asks
            say(error=type(error).__name__, status=getattr(error, "status_code", None), text=str(error))
        say(end=True)


asyncio.run(main())
