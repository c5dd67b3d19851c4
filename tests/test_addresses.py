"""Names and addresses of hosts."""

from __future__ import annotations

import pytest

from app.addresses import is_loopback


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    """The addresses of the loopback interface are loopback, and so is their one usual name; nothing else is."""
    assert is_loopback(host) is expected
