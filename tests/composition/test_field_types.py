"""What the types of settings take, and that they say what they do not take without the value."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from app.composition import field_types as types


@pytest.mark.parametrize(
    ("type_", "given", "value"),
    [
        (types.Words, " a, b,,c ", ("a", "b", "c")),
        (types.Words, "", ()),
        (types.Origins, "https://a.example,*", ("https://a.example", "*")),
        (types.Seconds, "0.5", 0.5),
        (types.Count, "7", 7),
        (types.Kind, "openai-chat", "openai-chat"),
        (types.DisconnectPolicy, "grace:7", "grace:7"),
    ],
)
def test_good(type_: Any, given: str, value: object) -> None:
    """Texts are read as the type says; lists are separated by commas."""
    assert TypeAdapter(type_).validate_python(given) == value


@pytest.mark.parametrize(
    ("type_", "given"),
    [
        (types.Origins, "secret"),
        (types.Hosts, "se/cret"),
        (types.Seconds, "inf"),
        (types.Seconds, -1),
        (types.Bytes, 1023),
        (types.Count, -1),
        (types.Kind, "secret"),
        (types.DisconnectPolicy, "secret"),
    ],
)
def test_bad(type_: Any, given: object) -> None:
    """Anything else is refused in words that do not quote it."""
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(type_).validate_python(given)
    assert "secret" not in str([error["msg"] for error in raised.value.errors(include_input=False)])


def test_lower() -> None:
    """Only texts have a case."""
    assert (types.lower("INFO"), types.lower(7)) == ("info", 7)
