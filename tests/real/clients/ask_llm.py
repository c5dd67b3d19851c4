"""llm, the command line's library: what its `extra-openai-models.yaml` makes of a model."""

from __future__ import annotations

import importlib
import json
from typing import Any

from tests.real.clients.asking import SCHEMA, Plan, called, get_weather, main

plugin: Any = importlib.import_module("llm.default_plugins.openai_models")


def _model(plan: Plan) -> Any:
    model = plugin.Chat("m", model_name=plan.model, api_base=plan.base, supports_schema=True, supports_tools=True)
    model.key = "csk_test"
    return model


def _stream(plan: Plan) -> dict[str, Any]:
    answer = _model(plan).prompt("hi", stream=True)
    return {"pieces": list(answer), "output": answer.usage().output}


def _tools(plan: Plan) -> dict[str, Any]:
    answer = _model(plan).chain("Rome?", tools=[get_weather])
    return {"text": "".join(answer), "called": called}


def _structured(plan: Plan) -> dict[str, Any]:
    return {"value": json.loads(_model(plan).prompt("Rome?", schema=SCHEMA).text())}


main(stream=_stream, tools=_tools, native=_structured, error=_stream)
