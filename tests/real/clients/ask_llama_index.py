"""LlamaIndex: its model in a stream, its agent with a tool, and a structured output."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

from pydantic import BaseModel

from tests.real.clients.asking import Plan, called, get_weather, main

workflow: Any = importlib.import_module("llama_index.core.agent.workflow")
llms: Any = importlib.import_module("llama_index.llms.openai")


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    degrees: int


def _model(plan: Plan) -> Any:
    # It looks up the size of the context by a name that it knows.
    options = {"api_base": plan.base, "api_key": "csk_test", "max_retries": 0}
    return llms.OpenAI("gpt-4o-mini", additional_kwargs={"model": plan.model}, **options)


def _stream(plan: Plan) -> dict[str, Any]:
    chunks = list(_model(plan).stream_complete("hi", stream_options={"include_usage": True}))
    return {"pieces": [chunk.delta for chunk in chunks], "output": chunks[-1].raw.usage.completion_tokens}


def _tools(plan: Plan) -> dict[str, Any]:
    async def run() -> str:
        return str(await workflow.FunctionAgent(tools=[get_weather], llm=_model(plan)).run("Rome?"))

    return {"text": asyncio.run(run()), "called": called}


def _structured(plan: Plan) -> dict[str, Any]:
    return {"value": _model(plan).as_structured_llm(Weather).complete("Rome?").raw.model_dump()}


main(stream=_stream, tools=_tools, structured=_structured, error=_stream)
