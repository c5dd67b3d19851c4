"""Names that a client makes up."""

from __future__ import annotations

import pytest

from app.edge.client_ids import is_found_by
from app.request import ANYONE, Principal


@pytest.mark.parametrize(
    ("principal", "name", "found"),
    [
        (ANYONE, "x" * 15, False),
        (ANYONE, "x" * 16, True),
        (Principal("ann"), "x", True),
    ],
)
def test_short_names(principal: Principal, name: str, found: bool) -> None:
    """A short name leads to a stream only where its owner is known."""
    assert is_found_by(name, principal) is found
