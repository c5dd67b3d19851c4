"""instructor: structured outputs by a tool and by a schema, whole and in pieces."""

from __future__ import annotations

import importlib
from typing import Any

import openai
from pydantic import BaseModel

from tests.real.clients.asking import Plan, main

instructor: Any = importlib.import_module("instructor")


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    degrees: int


ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "Rome?"}], "response_model": Weather}


def _client(plan: Plan, mode: str) -> Any:
    client = openai.OpenAI(base_url=plan.base, api_key="csk_test", max_retries=0)
    return instructor.from_openai(client, mode=getattr(instructor.Mode, mode))


def _tool(plan: Plan) -> dict[str, Any]:
    value, answer = _client(plan, "TOOLS").create_with_completion(model=plan.model, max_retries=1, **ASKED)
    return {"value": value.model_dump(), "output": answer.usage.completion_tokens}


def _schema(plan: Plan) -> dict[str, Any]:
    return {"value": _client(plan, "JSON_SCHEMA").create(model=plan.model, **ASKED).model_dump()}


def _partial(plan: Plan) -> dict[str, Any]:
    values = list(_client(plan, "TOOLS").create_partial(model=plan.model, **ASKED))
    return {"value": values[-1].model_dump(), "steps": len(values)}


main(structured=_tool, native=_schema, partial=_partial, error=_tool)
