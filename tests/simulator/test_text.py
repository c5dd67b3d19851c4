"""How the texts are cut into deltas."""

from __future__ import annotations

import pytest

from app.simulator.text import ANSWERS, cut


@pytest.mark.parametrize("name", sorted(ANSWERS))
@pytest.mark.parametrize("size", [0, 1, 4])
def test_cutting_loses_nothing(name: str, size: int) -> None:
    """The deltas of each text, put together, are the text."""
    pieces = list(cut(ANSWERS[name], size))
    assert "".join(pieces) == ANSWERS[name]
    assert all(pieces)
