"""How long the journal on disk waits, and for what."""

from __future__ import annotations

from app.journal.file.timing import USUAL


def test_times_fit() -> None:
    """What a client waits for at most is less than what it waits for anyway, and looks are frequent enough."""
    assert USUAL.commit <= 0.003
    assert USUAL.first_pause < USUAL.last_pause < USUAL.slow
    assert USUAL.sweep < USUAL.erased < USUAL.moved
    assert 2 * USUAL.moved + USUAL.erased + USUAL.sweep < 30, "README says when nothing is left of a deleted stream"
