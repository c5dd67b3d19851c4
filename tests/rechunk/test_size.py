from __future__ import annotations

from collections.abc import Callable

import pytest

from app.events import Delta
from app.rechunk import create


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("size:3", "abc|def|g"),
        ("size:3", "中文字|很好"),
        ("size:3", "👨‍👩‍👧|ab|🇩🇪|🇫🇷c"),
        ("size:2", "e\u0301|e\u0301|ab"),
        ("size:1", "a|\r\n|🇩🇪|🇫🇷|नि|b"),
        ("size:4", "नम|स्ते|!"),
    ],
)
def test_sizes(cut: Callable[[str, str], str], spec: str, expected: str) -> None:
    """As many whole clusters leave as fit; a longer cluster leaves alone."""
    assert cut(spec, expected.replace("|", "")) == expected


@pytest.mark.parametrize("first", ["Hi", "É", "中", "か", "한", "“", "a ", "Ω"])
def test_settled_first_text(first: str) -> None:
    """A first text whose end is unlikely to grow leaves at once and whole."""
    assert create("size:9").feed([Delta(first)]) == [Delta(first)]


@pytest.mark.parametrize(
    ("first", "leaves", "then", "whole"),
    [
        ("Hi 👋", "Hi ", " a", "👋"),
        ("👩", "", "\u200d👧 b", "👩\u200d👧"),
        ("a🇩", "a", "🇪🇫", "🇩🇪"),
        ("नि", "", "त", "नि"),
    ],
)
def test_unsettled_first_text(first: str, leaves: str, then: str, whole: str) -> None:
    """A last cluster of the first text that may grow leaves as soon as the next character has decided."""
    size = create("size:9")
    assert size.feed([Delta(first)]) == ([Delta(leaves)] if leaves else [])
    assert size.held
    assert size.feed([Delta(then)]) == [Delta(whole)]


def test_grid_is_kept() -> None:
    """After the first text the next cut is where it would have been without it."""
    size = create("size:5")
    assert size.feed([Delta("abcdefg")]) == [Delta("abcde"), Delta("fg")]
    assert size.feed([Delta("hijklmno")]) == [Delta("hij")]
    assert size.feed([Delta("pq")]) == [Delta("klmno")]
    assert size.flush() == [Delta("pq")]


def test_more_than_the_bound_on_holding() -> None:
    """A request for 65536 characters gets them in one event."""
    size = create("size:65536")
    size.feed([Delta("a")])
    events = [event for _ in range(70) for event in size.feed([Delta("b" * 1000)])]
    assert [len(event.text) for event in events if isinstance(event, Delta)] == [65_535]
