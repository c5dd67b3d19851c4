"""OpenAI's Agents SDK, run by its own Python: one run of an agent that has a tool.

Prints {"text", "called", "deltas"}: what it said, what its tool was asked, and how many pieces of text came.

Arguments: one JSON object, {"url", "model", "prompt", "stream"}.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from typing import Any

from openai import AsyncOpenAI

agents: Any = importlib.import_module("agents")  # it is not installed where the types are checked
called: list[str] = []


def get_weather(city: str) -> str:
    """Say what the weather in a city is."""
    called.append(city)
    return f"21 degrees in {city}"


async def main() -> None:
    """Run the agent."""
    plan: dict[str, Any] = json.loads(sys.argv[1])
    agents.set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{plan['url']}/v1", api_key="csk_test", max_retries=0)
    agent = agents.Agent(
        name="Forecaster",
        instructions="Be brief.",
        model=agents.OpenAIResponsesModel(model=plan["model"], openai_client=client),
        model_settings=agents.ModelSettings(response_include=["reasoning.encrypted_content"]),
        tools=[agents.function_tool(get_weather)],
    )
    if plan["stream"]:
        result: Any = agents.Runner.run_streamed(agent, plan["prompt"])
        kinds = [event.data.type async for event in result.stream_events() if event.type == "raw_response_event"]
    else:
        result = await agents.Runner.run(agent, plan["prompt"])
        kinds = []
    print(
        json.dumps({"text": result.final_output, "called": called, "deltas": kinds.count("response.output_text.delta")})
    )


asyncio.run(main())
