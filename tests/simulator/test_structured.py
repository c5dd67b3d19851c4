"""How a JSON schema is answered."""

from __future__ import annotations

from app.simulator.structured import VALUES, json_text


def test_a_schema_that_multiplies_itself_ends() -> None:
    """A schema of many references to itself makes a value of bounded size."""
    schema = {"type": "object", "properties": {f"p{at}": {"$ref": "#"} for at in range(100)}}
    assert json_text(schema, "x").count("null") <= 200 * VALUES
