"""What upstreams repeat in each chunk, and which of it is news."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from app.upstream.reading.extras import (
    MAX_NAME,
    MAX_NAMES,
    MAX_NOTED,
    MAX_SAID,
    MIN_QUOTE,
    Noted,
    Said,
    quotes,
    unknown,
)


def test_said_once() -> None:
    """A field is news when it comes first and when it changes, and never while it stays."""
    said = Said(["own"])
    assert said.news({"a": 1, "own": 2}) == {"a": 1}
    assert said.news({"a": 1, "own": 3}) == {}
    assert said.news({"a": 2, "b": [1]}) == {"a": 2, "b": [1]}
    assert said.news({"a": 1, "b": [1]}) == {"a": 1}


def test_has_news() -> None:
    """It is told without a look at what has a meaning of its own, whether there may be news."""
    said = Said(["own", "plain"], plain=["plain"])
    assert not said.has_news({"plain": 1})
    assert said.has_news({"own": 1})  # its reader does not look at it before
    assert said.has_news({"a": 1})
    said.news({"a": 1})
    assert not said.has_news({"plain": 2, "a": 1})
    assert not said.has_news({"plain": 2})
    assert not said.has_news({"a": None})
    assert said.has_news({"a": 2})


@pytest.mark.parametrize("empty", [None, "", [], {}, [None], {"x": ""}])
def test_empty_values(empty: object) -> None:
    """They say nothing, and do not make the next one like it news either."""
    said = Said([])
    assert said.news({"a": empty}) == {}
    assert not said.has_news({"a": empty})
    assert said.news({"a": 1}) == {"a": 1}
    assert said.news({"a": empty}) == {}


def test_padding() -> None:
    """Padding is never news."""
    said = Said([])
    assert said.news({"obfuscation": "xyz"}) == {}
    assert not said.has_news({"obfuscation": "zyx"})
    assert unknown({"obfuscation": "xyz", "a": 1}, frozenset()) == {"a": 1}


def test_long_values() -> None:
    """Of a value that is too long to keep only a digest is remembered, which tells it from another one."""
    said = Said([])
    long = ["x" * MAX_SAID]
    assert said.news({"a": long}) == {"a": long}
    assert not said.has_news({"a": long})
    assert said.news({"a": [*long]}) == {}
    assert said.has_news({"a": ["y" * MAX_SAID]})
    assert said.news({"a": ["y" * MAX_SAID]}) == {"a": ["y" * MAX_SAID]}


def test_memory() -> None:
    """However long the values are, little is kept of them."""
    said = Said([])
    tracemalloc.start()
    for number in range(60):
        said.news({str(number): f"{number}" + "x" * MAX_SAID})
    kept, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2 * MAX_SAID


def test_most_names() -> None:
    """So many names are remembered, and so many news are told at once. A name that is too long is dropped."""
    said = Said([], most=2)
    assert said.news({"a": 1, "b": 1, "c": 1}) == {"a": 1, "b": 1, "c": 1}
    assert said.news({"a": 1, "b": 1, "c": 1}) == {"c": 1}
    assert len(Said([]).news({str(number): 1 for number in range(99)})) == MAX_NAMES
    assert Said([]).news({"x" * (MAX_NAME + 1): 1}) == {}


def test_encodable() -> None:
    """Names and values can be encoded."""
    assert Said([]).news({"\ud800": "\ud800"}) == {"\ufffd": "\ufffd"}
    assert unknown({"\ud800": "\ud800"}, frozenset()) == {"\ufffd": "\ufffd"}


def test_unknown() -> None:
    """What has no meaning of its own and says something."""
    fields: dict[str, Any] = {"own": 1, "a": 0, "b": None, "c": "", "d": [{}], "x" * (MAX_NAME + 1): 1}
    assert unknown(fields, frozenset(["own"])) == {"a": 0}


def test_noted() -> None:
    """An object is new once. After so many of them, all others are new each time."""
    noted = Noted()
    assert noted.is_new({"a": 1})
    assert not noted.is_new({"a": 1})
    assert noted.is_new({"a": 2})
    for number in range(MAX_NOTED):
        noted.is_new(number)
    assert noted.is_new("more")
    assert noted.is_new("more")
    assert not noted.is_new({"a": 1})


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ({"echo": ['System: You are the operator\'s "assistant".']}, True),
        ({'You are the operator\'s "assistant".': 1}, True),
        ({"echo": "You are the operator's"}, False),
        ({"echo": "short"}, False),
        ({}, False),
    ],
)
def test_quotes(value: Any, quoted: bool) -> None:
    """A secret is found wherever it stands, also where JSON escapes it. One as short as a name is not looked for."""
    assert quotes(value, ["short", 'You are the operator\'s "assistant".']) is quoted


def test_the_shortest_secret() -> None:
    """How long a secret has to be."""
    assert quotes("x" * MIN_QUOTE, ["x" * MIN_QUOTE])
    assert not quotes("x" * MIN_QUOTE, ["x" * (MIN_QUOTE - 1)])
