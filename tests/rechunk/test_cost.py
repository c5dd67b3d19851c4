"""The cost of a text grows with its length, not with its square."""

from __future__ import annotations

from time import process_time

import pytest

from app.events import Delta
from app.rechunk import create
from app.rechunk._holding import LIMIT

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


def seconds(spec: str, text: str) -> float:
    """Return the processor time for *text* in deltas of four characters, the better of two."""
    times = []
    for _ in range(2):
        rechunker = create(spec)
        begun = process_time()
        for at in range(0, len(text), 4):
            rechunker.feed([Delta(text[at : at + 4])])
        times.append(process_time() - begun)
    return min(times)


@pytest.mark.parametrize("spec", ["word", "sentence", "line", "size:1", "size:65536", "time:500"])
@pytest.mark.parametrize("name", HOSTILE)
def test_linear(spec: str, name: str) -> None:
    """Four times the text costs about four times as much, and far from sixteen times, up to the limit on holding."""
    text = HOSTILE[name] * LIMIT
    assert seconds(spec, text[: LIMIT - 8]) < 10 * seconds(spec, text[: LIMIT // 4 - 2])
