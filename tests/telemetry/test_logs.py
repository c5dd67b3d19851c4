"""The form of the log's lines, and what they never hold."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from app.telemetry.logs import QUIET, configure


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    """Undo what `configure` does to the process."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {name: logging.getLogger(name).level for name in QUIET}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    structlog.reset_defaults()


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_json() -> None:
    """A line is one JSON object that begins with its time, its level and its event."""
    out = io.StringIO()
    configure("info", "json", out).info("stream.opened", model="m", messages=2)
    [line] = lines(out)
    assert [*line] == ["timestamp", "level", "event", "model", "messages"]
    assert (line["level"], line["event"], line["messages"]) == ("info", "stream.opened", 2)


@pytest.mark.parametrize(("style", "is_json"), [("auto", True), ("json", True), ("console", False)])
def test_styles(style: str, is_json: bool) -> None:
    """`auto` is JSON, unless the stream is a terminal."""
    out = io.StringIO()
    configure("info", style, out).info("stream.opened")
    assert out.getvalue().startswith("{") is is_json


def test_levels() -> None:
    """Lines below the level are not written; a library's are not below `warning`."""
    out = io.StringIO()
    log = configure("debug", "json", out)
    log.debug("ours")
    logging.getLogger("library").info("theirs")
    logging.getLogger("library").warning("their trouble")
    assert [line["event"] for line in lines(out)] == ["ours", "their trouble"]
    out = io.StringIO()
    configure("warning", "json", out).info("ours")
    assert out.getvalue() == ""


def test_text_of_clients() -> None:
    """A string that cannot be printed is escaped, so that no client can forge or disguise a line."""
    out = io.StringIO()
    configure("info", "console", out).info("stream.opened", model='a\n2026 [info] stream.finished\u202e"')
    assert out.getvalue().count("\n") == 1
    assert "\u202e" not in out.getvalue()


def test_exceptions_of_libraries() -> None:
    """Of a library's exception the line has the type, and neither its message nor its traceback."""
    out = io.StringIO()
    configure("info", "json", out)
    try:
        raise ValueError("a secret")
    except ValueError:
        logging.getLogger("library").exception("it failed")
    [line] = lines(out)
    assert (line["event"], line["logger"], line["error"]) == ("it failed", "library", "ValueError")
    assert "secret" not in out.getvalue()


class Full(io.StringIO):
    """A stream that cannot be written."""

    def write(self, text: str) -> int:
        raise OSError("No space left on device")

    def flush(self) -> None:
        raise OSError("No space left on device")


def test_a_log_that_cannot_be_written() -> None:
    """A log that cannot be written ends nothing: the line is lost."""
    log = configure("info", "json", Full())
    log.info("stream.opened")
    logging.getLogger("library").warning("their trouble")
