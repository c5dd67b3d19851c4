"""pydantic-ai, over chat completions and over Responses."""

from __future__ import annotations

import asyncio
import importlib
from functools import partial
from typing import Any

from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.real.clients.asking import Plan, called, get_weather, main

pydantic_ai: Any = importlib.import_module("pydantic_ai")
models: Any = importlib.import_module("pydantic_ai.models.openai")
providers: Any = importlib.import_module("pydantic_ai.providers.openai")


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    degrees: int


def _agent(kind: str, plan: Plan, **options: Any) -> Any:
    client = AsyncOpenAI(base_url=plan.base, api_key="csk_test", max_retries=0)
    model = getattr(models, kind)(plan.model, provider=providers.OpenAIProvider(openai_client=client))
    return pydantic_ai.Agent(model, **options)


def _stream(kind: str, plan: Plan) -> dict[str, Any]:
    async def read() -> dict[str, Any]:
        async with _agent(kind, plan).run_stream("hi") as answer:
            pieces = [piece async for piece in answer.stream_text(delta=True, debounce_by=None)]
            return {"pieces": pieces, "output": answer.usage.output_tokens}

    return asyncio.run(read())


def _tools(kind: str, plan: Plan) -> dict[str, Any]:
    answer = _agent(kind, plan, tools=[get_weather]).run_sync("Rome?")
    return {"text": answer.output, "called": called, "output": answer.usage.output_tokens}


def _structured(kind: str, plan: Plan) -> dict[str, Any]:
    return {"value": _agent(kind, plan, output_type=Weather).run_sync("Rome?").output.model_dump()}


def _native(kind: str, plan: Plan) -> dict[str, Any]:
    output = pydantic_ai.NativeOutput(Weather)
    return {"value": _agent(kind, plan, output_type=output).run_sync("Rome?").output.model_dump()}


ACTIONS = {"stream": _stream, "tools": _tools, "structured": _structured, "native": _native, "error": _tools}
KINDS = {"chat": "OpenAIChatModel", "responses": "OpenAIResponsesModel"}
main(**{f"{name} {api}": partial(act, kind) for name, act in ACTIONS.items() for api, kind in KINDS.items()})
