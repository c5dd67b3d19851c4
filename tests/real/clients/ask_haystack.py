"""Haystack: its chat generators over chat completions and over Responses, and its agent with a tool."""

from __future__ import annotations

import importlib
import json
from functools import partial
from typing import Any

from tests.real.clients.asking import SCHEMA, Plan, called, get_weather, main

agents: Any = importlib.import_module("haystack.components.agents")
generators: Any = importlib.import_module("haystack.components.generators.chat")
classes: Any = importlib.import_module("haystack.dataclasses")
tools: Any = importlib.import_module("haystack.tools")
utils: Any = importlib.import_module("haystack.utils")


def _generator(kind: str, plan: Plan, **options: Any) -> Any:
    key = utils.Secret.from_token("csk_test")
    return getattr(generators, kind)(api_key=key, model=plan.model, api_base_url=plan.base, max_retries=0, **options)


def _ask(generator: Any) -> Any:
    return generator.run([classes.ChatMessage.from_user("Rome?")])["replies"][-1]


def _stream(kind: str, plan: Plan) -> dict[str, Any]:
    pieces: list[str] = []
    options = {"stream_options": {"include_usage": True}} if kind == "OpenAIChatGenerator" else {}
    answer = _ask(
        _generator(kind, plan, streaming_callback=lambda chunk: pieces.append(chunk.content), generation_kwargs=options)
    )
    usage = answer.meta["usage"]
    return {"pieces": pieces, "output": usage.get("completion_tokens") or usage.get("output_tokens")}


def _tools(kind: str, plan: Plan) -> dict[str, Any]:
    agent = agents.Agent(chat_generator=_generator(kind, plan), tools=[tools.create_tool_from_function(get_weather)])
    answer = agent.run([classes.ChatMessage.from_user("Rome?")])
    return {"text": answer["messages"][-1].text, "called": called}


def _structured(plan: Plan) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "weather", "strict": True, "schema": SCHEMA}}
    generator = _generator("OpenAIChatGenerator", plan, generation_kwargs={"response_format": form})
    return {"value": json.loads(_ask(generator).text)}


ACTIONS = {"stream": _stream, "tools": _tools, "error": _stream}
KINDS = {"chat": "OpenAIChatGenerator", "responses": "OpenAIResponsesChatGenerator"}
asked = {f"{name} {api}": partial(act, kind) for name, act in ACTIONS.items() for api, kind in KINDS.items()}
main(**asked, native=_structured)
