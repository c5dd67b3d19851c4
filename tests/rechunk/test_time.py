"""`time:MS`, which has the upstream read rarely."""

from __future__ import annotations

import pytest

from app.rechunk import create


@pytest.mark.parametrize(
    ("spec", "pause"),
    [("time:1", 0.001), ("time:250", 0.25), ("time:60000", 0.25), ("auto", None), ("word,80ms", None)],
)
def test_pauses(spec: str, pause: float | None) -> None:
    """Where all that comes in a time is to leave together, the upstream is read as rarely, but never too rarely."""
    assert create(spec).pause == pause
