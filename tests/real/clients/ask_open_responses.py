"""The seven requests of Open Responses' compliance suite, checked against the models of its specification.

The suite itself is a repository, which no registry has; `openresponses-types` has the models that are generated from
its specification. A whole response has to be a `ResponseResource`, and each event has to be the one that its type says.
Prints a line of JSON for each request: {"action", "status", "output", "events", "errors"}.
"""

from __future__ import annotations

import importlib
import json
import sys
import typing
from typing import Any

import httpx

types: Any = importlib.import_module("openresponses_types")

PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather somewhere.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def _said(role: str, content: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


SEEN = [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": PICTURE}]
ASKED: dict[str, dict[str, Any]] = {
    "basic": {"input": [_said("user", "Say hello.")]},
    "streaming": {"input": [_said("user", "Count.")], "stream": True},
    "system prompt": {"input": [_said("system", "Be brief."), _said("user", "Say hello.")]},
    "tool": {"input": [_said("user", "Rome?")], "tools": [TOOL]},
    "tool, streaming": {"input": [_said("user", "Rome?")], "tools": [TOOL], "stream": True},
    "image": {"input": [_said("user", SEEN)]},
    "turns": {"input": [_said("user", "I am Ann."), _said("assistant", "Hello Ann."), _said("user", "Who am I?")]},
}


def _models() -> dict[str, Any]:
    """Return the models of the events, by type."""
    found = {}
    for name in dir(types):
        model = getattr(types, name)
        if name.endswith("StreamingEvent"):
            annotation = model.model_fields["type"].annotation
            found.update(dict.fromkeys(typing.get_args(annotation) or [member.value for member in annotation], model))
    return found


def _wrong(model: Any, value: Any) -> list[str]:
    try:
        model.model_validate(value)
    except ValueError as error:
        return [str(error)]
    return []


def _ask(base: str, asked: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(f"{base}/responses", json={"model": "m", **asked}, timeout=60)
    answer.raise_for_status()
    if not asked.get("stream"):
        response = answer.json()
        events, errors = [], []
    else:
        blocks = [block.split("\n") for block in answer.text.split("\n\n") if "data:" in block]
        events = [
            json.loads(line.removeprefix("data: ")) for block in blocks for line in block if line.startswith("data")
        ]
        models = _models()
        errors = [wrong for event in events for wrong in _wrong(models[event["type"]], event)]
        response = events[-1]["response"]
    return {
        "status": response["status"],
        "output": [item["type"] for item in response["output"]],
        "events": [event["type"] for event in events],
        "errors": errors + _wrong(types.ResponseResource, response),
    }


for action, asked in ASKED.items():
    print(json.dumps({"action": action, **_ask(json.loads(sys.argv[1])["url"], asked)}))
