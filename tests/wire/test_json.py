"""The pieces of JSON that dialects share."""

from __future__ import annotations

import json

import pytest
from hypothesis import given as assume
from hypothesis import strategies as st

from app.events import Failure
from app.usage import Usage
from app.wire.json import dumps, error_object, given, integer, string_in, text, usage_object


@assume(st.text(st.characters(codec="utf-8")))
def test_text(said: str) -> None:
    """A text is what `dumps` makes of it: one line for every reader, and the same text again."""
    assert text(said) == dumps(said)
    assert len(text(said).decode().splitlines()) == 1
    assert json.loads(text(said)) == said


@pytest.mark.parametrize("number", [0, 1, 10**12])
def test_integer(number: int) -> None:
    """A number is its digits."""
    assert integer(number) == b"%d" % number


def test_given() -> None:
    """Fields that are empty are left out."""
    assert given(a="", b="x", c=[], d=None, e=[1]) == {"b": "x", "e": [1]}


def test_error_object() -> None:
    """An error has what a client goes by, and nothing of its status."""
    failure = Failure("Broke.", "t", "c", True, 502, param="p", retry_after=1)
    assert error_object(failure) == {"message": "Broke.", "type": "t", "code": "c", "retryable": True}


def test_usage_object() -> None:
    """Usage is the upstream's own; an estimate says that it is one."""
    fields = {"total_tokens": 1}
    assert usage_object(None) is None
    assert usage_object(Usage(fields)) == fields
    assert usage_object(Usage(fields, estimated=True)) == {"total_tokens": 1, "estimated": True}


@pytest.mark.parametrize(("found", "text"), [({"a": "x"}, "x"), ({"a": 3}, ""), ({}, ""), ("a", ""), (None, "")])
def test_string_in(found: object, text: str) -> None:
    """A string, if that is there."""
    assert string_in(found, "a") == text
