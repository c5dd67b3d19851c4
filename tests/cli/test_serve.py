"""`chat-sse serve`: what stops the start."""

from __future__ import annotations

import pytest

from app.cli import main
from app.cli.process import listen


def test_a_wrong_setting_stops_the_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`chat-sse serve` exits with 2 and says what is wrong, without a traceback."""
    monkeypatch.setenv("CHAT_SSE_LOG_LEVEL", "loud")
    assert main(["serve"]) == 2
    assert capsys.readouterr().err.startswith("chat-sse: CHAT_SSE_LOG_LEVEL is not right")


def test_an_address_in_use_stops_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    """A port that another process has is said in a sentence, too."""
    with listen("127.0.0.1", 0) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot listen on http://127.0.0.1:" in capsys.readouterr().err


def test_workers_share_no_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """Several workers take a journal that they can share."""
    assert main(["serve", "--workers", "2"]) == 2
    assert "CHAT_SSE_WORKERS is 2, and processes share neither memory nor a file" in capsys.readouterr().err
