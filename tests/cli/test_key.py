"""`chat-sse key`: a key on stdout, and on stderr the line that accepts it."""

from __future__ import annotations

import re

import pytest

from app.cli import main
from app.edge.access.api_keys import digest


def test_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    """The key alone is on stdout, so that it can be piped; the settings' line has its hash."""
    assert main(["key", "web"]) == 0
    said = capsys.readouterr()
    assert re.fullmatch(r"csk_[A-Za-z0-9_-]{43}\n", said.out)
    assert f"CHAT_SSE_API_KEYS=web:{digest(said.out.strip())}" in said.err


def test_a_name_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that no setting could hold makes no key."""
    assert main(["key", "a b"]) == 1
    said = capsys.readouterr()
    assert (said.out, "NAME:SHA256" in said.err) == ("", True)
