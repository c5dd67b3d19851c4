"""DSPy, which asks through LiteLLM: its model, and a signature with typed fields."""

from __future__ import annotations

import importlib
from typing import Any

from tests.real.clients.asking import Plan, main

dspy: Any = importlib.import_module("dspy")


def _model(plan: Plan) -> Any:
    return dspy.LM(f"openai/{plan.model}", api_base=plan.base, api_key="csk_test", cache=False, num_retries=0)


def _whole(plan: Plan) -> dict[str, Any]:
    model = _model(plan)
    [text] = model("hi")
    return {"pieces": [text], "output": model.history[-1]["usage"]["completion_tokens"]}


def _structured(plan: Plan) -> dict[str, Any]:
    known = plan._replace(model="gpt-4o-mini")  # only to models that LiteLLM knows it sends a schema
    with dspy.context(lm=_model(known), adapter=dspy.JSONAdapter()):
        found = dspy.Predict("question -> city: str, degrees: int")(question="Rome?")
    return {"value": {"city": found.city, "degrees": found.degrees}}


main(whole=_whole, native=_structured, error=_whole)
