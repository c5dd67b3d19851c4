"""smolagents: its model in a stream, and its agent with a tool."""

from __future__ import annotations

import importlib
import json
from typing import Any

from tests.real.clients.asking import SCHEMA, Plan, called, get_weather, main

smolagents: Any = importlib.import_module("smolagents")
ROME = [{"role": "user", "content": [{"type": "text", "text": "Rome?"}]}]


def _model(plan: Plan) -> Any:
    # Its own retries wait a minute after a 429.
    options = {"api_key": "csk_test", "client_kwargs": {"max_retries": 0}, "retry": False}
    return smolagents.OpenAIModel(plan.model, api_base=plan.base, **options)


def _stream(plan: Plan) -> dict[str, Any]:
    deltas = list(_model(plan).generate_stream(ROME))
    return {
        "pieces": [delta.content for delta in deltas if delta.content],
        "output": max(delta.token_usage.output_tokens for delta in deltas if delta.token_usage),
    }


def _tools(plan: Plan) -> dict[str, Any]:
    agent = smolagents.ToolCallingAgent([smolagents.tool(get_weather)], _model(plan), verbosity_level=-1)
    return {"text": agent.run("Rome?"), "called": called}


def _structured(plan: Plan) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "weather", "strict": True, "schema": SCHEMA}}
    return {"value": json.loads(_model(plan).generate(ROME, response_format=form).content)}


main(stream=_stream, tools=_tools, native=_structured, error=_stream)
