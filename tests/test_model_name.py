"""What the name of a model may be."""

from __future__ import annotations

import re

import pytest

from app.model_name import LONGEST, PATTERN, is_model_name

# The pattern is JSON Schema's, in which `$` is the end of a text, as `\Z` is here.
_PATTERN = re.compile(PATTERN.replace("$", r"\Z"))


@pytest.mark.parametrize("name", ["gpt-4o", "org/m:free", "通义千问 max", "👩‍👩‍👧", " ", "x" * LONGEST, "é" * LONGEST])
def test_names(name: str) -> None:
    """Text that people can read on one line is a name, and matches the pattern."""
    assert is_model_name(name)
    assert _PATTERN.search(name)


@pytest.mark.parametrize("character", ["\n", "\r", "\x00", "\x1b", "\x7f", "\x85", "\u2028", "\u202e", "\u2066"])
def test_characters_that_could_disguise_a_line(character: str) -> None:
    """Control characters, line ends and reversed text are in no name, wherever they stand."""
    for name in (character, f"a{character}b", f"a{character}", f"{character}a"):
        assert not is_model_name(name)
        assert not _PATTERN.search(name)


@pytest.mark.parametrize("value", ["", "x" * (LONGEST + 1), "a\ud800", "\udfff", None, 3, ["m"]])
def test_no_names(value: object) -> None:
    """A name is a text, neither empty nor too long, that can be sent."""
    assert not is_model_name(value)
