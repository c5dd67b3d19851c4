"""What a request may say about a stream without readers."""

from __future__ import annotations

import math

import pytest

from app.hub import parse_disconnect_policy


@pytest.mark.parametrize(
    ("text", "grace"),
    [("cancel", 0), ("continue", math.inf), ("grace:0", 0), ("grace:2.5", 2.5), ("grace:86400", 86400)],
)
def test_policies(text: str, grace: float) -> None:
    """Each policy is a number of seconds without a reader."""
    assert parse_disconnect_policy(text) == grace


@pytest.mark.parametrize("text", ["", "grace", "grace:", "grace:-1", "grace:1e9", "grace:9999999", "Cancel", "grace:٣"])
def test_no_policy(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="grace:SECONDS"):
        parse_disconnect_policy(text)
