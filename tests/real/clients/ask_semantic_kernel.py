"""Semantic Kernel: its chat completion in a stream, with a function of a plugin, and with a structured output."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.real.clients.asking import Plan, called, get_weather, main

sk: Any = importlib.import_module("semantic_kernel")
openai: Any = importlib.import_module("semantic_kernel.connectors.ai.open_ai")
choices: Any = importlib.import_module("semantic_kernel.connectors.ai.function_choice_behavior")
contents: Any = importlib.import_module("semantic_kernel.contents")
functions: Any = importlib.import_module("semantic_kernel.functions")


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    degrees: int


class Plugin:
    """A plugin with a tool."""

    @functions.kernel_function(name="get_weather")  # type: ignore[untyped-decorator]  # it is not installed here
    def get_weather(self, city: Annotated[str, "The city."]) -> str:
        """Say what the weather in a city is."""
        return get_weather(city)


def _asking(ask: Callable[[Any, Any], Coroutine[Any, Any, dict[str, Any]]], plan: Plan) -> dict[str, Any]:
    client = AsyncOpenAI(base_url=plan.base, api_key="csk_test", max_retries=0)
    history = contents.ChatHistory()
    history.add_user_message("Rome?")
    return asyncio.run(ask(openai.OpenAIChatCompletion(plan.model, async_client=client), history))


def _stream(plan: Plan) -> dict[str, Any]:
    async def ask(service: Any, history: Any) -> dict[str, Any]:
        settings = openai.OpenAIChatPromptExecutionSettings()
        chunks = [chunk async for chunk in service.get_streaming_chat_message_content(history, settings)]
        counts = [
            chunk.metadata["usage"].completion_tokens for chunk in chunks if chunk and chunk.metadata.get("usage")
        ]
        return {"pieces": [str(chunk) for chunk in chunks if chunk], "output": max(counts)}

    return _asking(ask, plan)


def _tools(plan: Plan) -> dict[str, Any]:
    async def ask(service: Any, history: Any) -> dict[str, Any]:
        kernel = sk.Kernel()
        kernel.add_plugin(Plugin(), "weather")
        settings = openai.OpenAIChatPromptExecutionSettings(
            function_choice_behavior=choices.FunctionChoiceBehavior.Auto()
        )
        answer = await service.get_chat_message_content(history, settings, kernel=kernel)
        return {"text": str(answer), "called": called}

    return _asking(ask, plan)


def _structured(plan: Plan) -> dict[str, Any]:
    async def ask(service: Any, history: Any) -> dict[str, Any]:
        settings = openai.OpenAIChatPromptExecutionSettings(response_format=Weather)
        return {"value": json.loads(str(await service.get_chat_message_content(history, settings)))}

    return _asking(ask, plan)


main(stream=_stream, tools=_tools, native=_structured, error=_stream)
