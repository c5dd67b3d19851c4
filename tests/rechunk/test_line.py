from __future__ import annotations

from collections.abc import Callable

import pytest

from app.events import Delta
from app.rechunk import create


@pytest.mark.parametrize(
    "expected",
    ["a\n|b\r\n|c\r|d\n|\n|\r\n|\r|\r|e", "```py\n|def f():\n|    return 1\n|```\n", "no end", "中\n|\u2028文"],
)
def test_lines(cut: Callable[[str, str], str], expected: str) -> None:
    """Each line leaves with its end, whichever of the three that is."""
    assert cut("line", expected.replace("|", "")) == expected


def test_line_end_is_not_waited_for() -> None:
    """A line leaves with its `\\n`; only a `\\r` waits to see what follows."""
    line = create("line")
    line.feed([Delta("x")])
    assert line.feed([Delta("y\n")]) == [Delta("y\n")]
    assert line.feed([Delta("z\r")]) == []
    assert line.feed([Delta("\n")]) == [Delta("z\r\n")]
    assert not line.held
