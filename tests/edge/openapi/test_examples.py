"""The examples in the description are there, and are true."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import httpx_sse
from jsonschema_rs import Draft202012Validator

from app.edge.openapi.document import document, examples
from tests.edge.openapi.test_document import operations

# Of these, an example would be a file.
FILES = {"text/html", "text/javascript", "text/css", "image/svg+xml"}


def test_every_answer_has_an_example() -> None:
    """Each answer with content, and each body, has an example; what does not is a file, or this description."""
    for path, method, operation in operations(document(credentials=True)):
        for content in (operation.get("requestBody", {}), *operation["responses"].values()):
            for kind, each in content.get("content", {}).items():
                fails = content is not operation.get("requestBody") and "Error" in json.dumps(each["schema"])
                if (
                    path == "/openapi.json"
                    or path.startswith("/playground/")
                    or kind in FILES
                    or kind == "application/openmetrics-text"
                ):
                    continue
                if (
                    path == "/readyz"
                    or fails
                    or each["schema"].get("description") == "A sentence that a page can show."
                ):
                    continue
                assert "example" in each, (method, path, kind)


def test_examples_are_valid() -> None:
    """Each example is what its schema describes: of a stream, each of its events."""
    description = document(credentials=True)
    for _, _, operation in operations(description):
        for content in (operation.get("requestBody", {}), *operation["responses"].values()):
            for kind, each in content.get("content", {}).items():
                if "example" not in each or kind == "text/plain":
                    continue
                schema = Draft202012Validator({**each["schema"], "components": description["components"]})
                values = [each["example"]] if kind == "application/json" else events(each["example"])
                for value in values:
                    schema.validate(value)


def events(text: str) -> list[dict[str, Any]]:
    stream = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text=f"{text}\n")
    found = []
    for event in httpx_sse.EventSource(stream).iter_sse():
        if event.data != "[DONE]":
            json.loads(event.data)
        named = {} if event.event == "message" else {"event": event.event}
        found.append({**named, "id": event.id, "data": event.data})
    assert found
    return found


def test_examples_belong_to_operations() -> None:
    """No example is of an operation that does not exist, and each parameter that is sent is described."""
    description = document(credentials=True)
    shared = description["components"]["parameters"]
    known = {operation["operationId"]: (path, operation) for path, _, operation in operations(description)}
    for name, example in examples().items():
        path, operation = known[name]
        listed = [*description["paths"][path].get("parameters", ()), *operation.get("parameters", ())]
        described = {
            (each["in"], each["name"])
            for parameter in listed
            for each in [shared[parameter["$ref"].rpartition("/")[2]] if "$ref" in parameter else parameter]
        }
        for place, words in (("path", "path"), ("query", "query"), ("header", "headers")):
            assert {(place, parameter) for parameter in example.get(words, {})} <= described, name
        assert set(re.findall(r"\{(\w+)\}", path)) == set(example.get("path", ())), name
