"""JSON as an answer: a value that a JSON schema describes, with the text in it.

It knows what structured outputs are made of: objects, arrays, enums, constants, unions and references. It does not
keep to bounds and patterns.
"""

from __future__ import annotations

from typing import Any

import orjson

# For schemas that refer to themselves: how deep a value goes, and how many values there may be in it.
DEPTH = 12
VALUES = 10_000


def json_text(schema: dict[str, Any], text: str) -> str:
    """Return the JSON of a value of *schema*; of an object with *text* in it, if the schema is empty."""
    value = _Maker(schema, text).value(schema, 0) if schema else {"answer": text}
    return orjson.dumps(value).decode()


class _Maker:
    """Makes one value of the schema *root*, with *text* for its strings."""

    def __init__(self, root: dict[str, Any], text: str) -> None:
        self._root = root
        self._scalars = {"string": text, "integer": 42, "number": 0.5, "boolean": True}
        self._left = VALUES

    def value(self, schema: Any, depth: int) -> Any:
        """Return a value of *schema*, None for what is too deep or too much."""
        self._left -= 1
        if not isinstance(schema, dict) or depth > DEPTH or self._left < 0:
            return None
        if "const" in schema:
            return schema["const"]
        choices = _list(schema.get("enum"))
        if choices:
            return choices[0]
        reference = schema.get("$ref")
        if isinstance(reference, str):
            return self.value(self._referred(reference), depth + 1)
        deep = depth > DEPTH // 2
        for union in ("anyOf", "oneOf", "allOf"):
            choices = _list(schema.get(union))
            if choices:
                return self.value(choices[-1 if deep else 0], depth + 1)  # the last of a union is most often null
        kind = schema.get("type")
        kind = kind[0] if isinstance(kind, list) and kind else kind
        if kind == "array":
            return [] if deep else [self.value(schema.get("items"), depth + 1)]
        if kind == "object":
            fields = schema.get("properties")
            fields = fields if isinstance(fields, dict) else {}
            return {name: self.value(field, depth + 1) for name, field in fields.items()}
        return self._scalars.get(str(kind))

    def _referred(self, name: str) -> Any:
        found: Any = self._root
        for step in name.removeprefix("#").strip("/").split("/"):
            found = found.get(step) if step and isinstance(found, dict) else found
        return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
