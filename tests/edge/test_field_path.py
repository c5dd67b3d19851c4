"""Where pydantic found a mistake, as people write it."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.edge.field_path import field_path, suggestion


class Leaf(BaseModel):
    """A table within a table."""

    model_config = ConfigDict(extra="forbid")

    size: int = 0


class Root(BaseModel):
    """Has a field of each kind that our models have."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    leaves: list[Leaf] = []
    stop: str | list[str] | None = None
    sizes: dict[Annotated[str, Field(max_length=3)], int] = {}


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({}, "name"),
        ({"name": 1}, "name"),
        ({"name": "x", "leaves": [{}, {"size": "y"}]}, "leaves[1].size"),
        ({"name": "x", "leaves": [{}, {"other": 1}]}, "leaves[1].other"),
        ({"name": "x", "leaves": [1]}, "leaves[0]"),
        ({"name": "x", "stop": 1}, "stop"),
        ({"name": "x", "stop": {}}, "stop"),
        ({"name": "x", "stop": ["a", 1]}, "stop"),
        ({"name": "x", "sizes": {"a": "b"}}, "sizes.a"),
        ({"name": "x", "sizes": {"long": 1}}, "sizes.long"),
        ({"name": "x", "y" * 100: 1}, "y" * 64),
        ([], ""),
    ],
    ids=str,
)
def test_path(data: Any, path: str) -> None:
    """The path has each step that the data has, and no branch of a union; a missing field is a step, too."""
    with pytest.raises(ValidationError) as raised:
        Root.model_validate(data)
    assert field_path(raised.value.errors()[0], data) == path


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("promt", " Did you mean 'prompt'?"),
        ("max_token", " Did you mean 'max_tokens'?"),
        ("temprature", " Did you mean 'temperature'?"),
        ("api_key", ""),
        ("top_k", ""),  # another parameter, and not a misspelt `top_p`
        ("x" * 1_000_000, ""),
        ("", ""),
    ],
)
def test_what_was_meant(name: str, sentence: str) -> None:
    """A misspelling is answered with the name that it is like, and anything else with nothing."""
    assert suggestion(name, ("prompt", "max_tokens", "temperature", "tools", "top_p")) == sentence
