"""Grapheme clusters: where one begins and ends, and that this is found in time."""

from __future__ import annotations

from functools import partial

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from app.rechunk._clusters import EXTENDER, after, floor, last
from tests.growth import LINEAR, growth

FAMILY = "👩\u200d👩\u200d👧"
FLAGS = "🇩🇪🇫🇷"


@pytest.mark.parametrize(
    ("text", "end", "at"),
    [
        ("abc", 2, 2),
        ("ae\u0301b", 2, 1),  # not between a letter and its accent
        ("ae\u0301b", 3, 3),
        (f"a{FAMILY}b", 4, 1),
        (f"a{FAMILY}b", 6, 6),
        (f"{FAMILY}b", 3, 0),  # nothing whole fits
        ("a\r\nb", 2, 1),
        (f"{FLAGS}a", 3, 2),  # flags go in pairs
        (f"{FLAGS}a", 2, 2),
    ],
)
def test_floor(text: str, end: int, at: int) -> None:
    """The last boundary that is not after a position, or 0."""
    assert floor(text, end) == at


@pytest.mark.parametrize(
    ("text", "at"),
    [("", 0), ("a", 0), ("ab", 1), ("ae\u0301", 1), (FLAGS, 2), (f"{FLAGS}🇮", 4), (FAMILY, 0), (f"a{FAMILY}", 1)],
)
def test_last(text: str, at: int) -> None:
    """Where the last cluster begins."""
    assert last(text) == at


@pytest.mark.parametrize(
    ("text", "position", "end"),
    [("ab", 1, 1), ("e\u0301b", 1, 2), (f"{FAMILY}b", 2, 5), ("e\u0301", 1, 2), ("a\r\n", 2, 3)],
)
def test_after(text: str, position: int, end: int) -> None:
    """The end of the cluster that the character before a position is in."""
    assert after(text, position) == end


@given(st.text(st.sampled_from("ab\r\n\u0301\u200d👩👧🇩🇪🇫한\u1100\u1161नि\u0600"), min_size=1, max_size=12))
def test_as_regex_has_them(text: str) -> None:
    """The clusters are those of `\\X`, also where flags stand in a row."""
    starts = [match.start() for match in regex.finditer(r"\X", text)]
    assert last(text) == starts[-1]
    for end in range(1, len(text)):
        assert floor(text, end) == max(start for start in starts if start <= end)


def test_many_flags() -> None:
    """A row of regional indicators takes time in proportion to its length."""
    assert growth(lambda flags: partial(last, "🇩" * flags), 64_000) < LINEAR


@pytest.mark.parametrize("character", ["\u0301", "\u200d", "\u0903", "\ufe0f"])
def test_extenders(character: str) -> None:
    """What never begins a cluster is in a class of its own; a letter is not."""
    assert regex.fullmatch(f"[{EXTENDER}]", character)
    assert last(f"a{character}") == 0
    assert not regex.fullmatch(f"[{EXTENDER}]", "a")
