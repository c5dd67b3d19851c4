"""What the scripts of Python's frameworks share: each asks a service in the ways that a framework can.

A script calls `main` with its actions by name. Each gets a `Plan` and returns what came of it; what it raises is said
as {"error": {"name", "status"}}. A line of JSON is printed for each action, with its name.

Arguments: one JSON object, {"url", "failing", "model"}: the address of a service, and that of one whose model
`error-429` fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}


class Plan(NamedTuple):
    """Where a script asks. *base* is a base URL as OpenAI's SDK takes it."""

    base: str
    model: str


called: list[str] = []


def get_weather(city: str) -> str:
    """Say what the weather in a city is.

    Args:
        city: The city.
    """
    called.append(city)
    return f"21 degrees in {city}"


def main(**actions: Callable[[Plan], dict[str, Any]]) -> None:
    """Do all *actions*. `error` asks for a model that fails."""
    plan = json.loads(sys.argv[1])
    for name, action in actions.items():
        called.clear()
        where = Plan(plan["failing"], "error-429") if name.startswith("error") else Plan(plan["url"], plan["model"])
        try:
            said = action(where)
        except Exception as error:  # of whatever class the framework raises: the test checks that
            said = {"error": {"name": type(error).__name__, "status": getattr(error, "status_code", None)}}
            if not name.startswith("error"):
                said["error"]["message"] = str(error)
        print(json.dumps({"action": name, **said}), flush=True)
