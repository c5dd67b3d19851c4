"""mirascope: its default for OpenAI, which is Responses, and chat completions."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from pydantic import BaseModel

from tests.real.clients.asking import Plan, called, get_weather, main

llm: Any = importlib.import_module("mirascope.llm")


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    degrees: int


def _model(api: str, plan: Plan) -> str:
    llm.register_provider("openai", base_url=plan.base, api_key="csk_test")
    return f"openai/{plan.model}{api}"


def _stream(api: str, plan: Plan) -> dict[str, Any]:
    @llm.call(_model(api, plan))  # type: ignore[untyped-decorator]  # it is not installed where the types are checked
    def ask() -> str:
        return "hi"

    answer = ask.stream()
    pieces = list(answer.text_stream())
    return {"pieces": pieces, "output": answer.usage.output_tokens}


def _tools(api: str, plan: Plan) -> dict[str, Any]:
    @llm.call(_model(api, plan), tools=[llm.tool(get_weather)])  # type: ignore[untyped-decorator]  # as above
    def ask() -> str:
        return "Rome?"

    answer = ask()
    answer = answer.resume(answer.execute_tools())
    return {"text": answer.text(), "called": called}


def _structured(api: str, plan: Plan) -> dict[str, Any]:
    @llm.call(_model(api, plan), format=Weather)  # type: ignore[untyped-decorator]  # as above
    def ask() -> str:
        return "Rome?"

    return {"value": ask().parse().model_dump()}


ACTIONS = {"stream": _stream, "tools": _tools, "structured": _structured, "error": _stream}
APIS = {"default": "", "chat": ":completions"}
main(**{f"{name} {label}": partial(act, api) for name, act in ACTIONS.items() for label, api in APIS.items()})
