"""Where a journal on disk is, as a URL says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.journal.file.address import Address, check_address, parse_address


@pytest.mark.parametrize(
    ("url", "folder", "durable"),
    [
        ("file:///var/lib/chat-sse", "/var/lib/chat-sse", False),
        ("file:///a%20b/%3F", "/a b/?", False),
        ("file:///a?survives=kill", "/a", False),
        ("file:///a?survives=power-loss", "/a", True),
    ],
)
def test_addresses(url: str, folder: str, durable: bool) -> None:
    """A URL says the folder, and what its streams survive."""
    check_address(url)
    assert parse_address(url) == Address(Path(folder), durable)


@pytest.mark.parametrize(
    "url",
    [
        *("file://", "file:///", "file:////", "file://relative", "file:///a?", "file:///a?survives=", "file:///a?b=c"),
        *("file:///a#b", "file:///a%00b", "file:///a?survives=flood"),
    ],
)
def test_what_is_no_address(url: str) -> None:
    """Anything else is refused with the form that it takes."""
    with pytest.raises(ValueError, match=r"^it takes the form file:///FOLDER"):
        check_address(url)
