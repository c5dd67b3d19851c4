"""The cost of a text grows with its length, not with its square."""

from __future__ import annotations

from functools import partial

import pytest

from app.events import Delta
from app.rechunk import create
from app.rechunk._holding import LIMIT
from tests.growth import LINEAR, growth

pytestmark = pytest.mark.no_cover  # tracing is not what is to be measured

HOSTILE = {
    "letters": "x",
    "spaces": " ",
    "marks": "\u0301",
    "joiners": "\u200d",
    "direction": "\u200f",
    "quotes": '"',
    "flags": "🇩",
    "family": "👩\u200d",
    "katakana": "カ\u3099",
    "points": '。"',
    "digits": "1",
    "returns": "\r",
    "virama": "क\u094d",
    "prepended": "\u0600",
    "initials": "a. ",
}


def cut(spec: str, text: str) -> None:
    """Feed *text* in deltas of four characters."""
    rechunker = create(spec)
    for at in range(0, len(text), 4):
        rechunker.feed([Delta(text[at : at + 4])])


@pytest.mark.parametrize("spec", ["word", "sentence", "line", "size:1", "size:65536", "time:500"])
@pytest.mark.parametrize("name", HOSTILE)
def test_linear(spec: str, name: str) -> None:
    """The cost is in proportion up to the limit on holding."""
    text = HOSTILE[name] * LIMIT
    assert growth(lambda length: partial(cut, spec, text[:length]), LIMIT - 8, repeat=2) < LINEAR
