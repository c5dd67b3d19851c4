"""The OpenTelemetry SDK's own log: seldom, and free of what a collector answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.telemetry.otlp_log import hush
from tests.clock import Clock

EXPORTER = "opentelemetry.exporter.otlp"


@pytest.fixture(autouse=True)
def clock(log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """Hush the SDK, whose loggers are the process's own: leave them as they were."""
    clock = Clock(round(time.monotonic()))  # whole seconds, so that sums of them are exact
    logger = logging.getLogger("opentelemetry")
    before = logger.handlers, logger.propagate
    hush(log)
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", clock)
        yield clock
    logger.handlers, logger.propagate = before


def said(logs: LogCapture) -> list[tuple[Any, ...]]:
    return [(entry["module"], entry["message"], entry["because"]) for entry in logs.entries]


def test_one_line_in_ten_minutes(logs: LogCapture, clock: Clock) -> None:
    """Each module has a line for each level, and the next one ten minutes later."""
    logger = logging.getLogger(EXPORTER)
    for seconds, lines in ((0, 1), (599, 1), (1, 2), (1, 2)):
        clock.now += seconds
        logger.warning("Transient error")
        assert len(logs.entries) == lines
    logger.error("Failed")
    logging.getLogger("opentelemetry.sdk").warning("Queue is full")
    assert said(logs)[2:] == [(EXPORTER, "Failed", []), ("opentelemetry.sdk", "Queue is full", [])]
    assert {(entry["event"], entry["log_level"]) for entry in logs.entries} == {("otlp.trouble", "warning")}


def test_what_is_not_worth_a_warning(logs: LogCapture) -> None:
    """Below a warning nothing is logged, even if somebody lets the SDK say more."""
    logger = logging.getLogger(EXPORTER)
    logger.setLevel(logging.INFO)
    try:
        logger.info("Exporting")
    finally:
        logger.setLevel(logging.NOTSET)
    assert not logs.entries


def test_nothing_goes_elsewhere(logs: LogCapture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's own handlers do not get the lines."""
    elsewhere: list[logging.LogRecord] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "handle", elsewhere.append)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    logging.getLogger(EXPORTER).error("Failed at http://user:hunter2@collector")
    assert len(logs.entries) == 1
    assert not elsewhere


@pytest.mark.parametrize(
    ("argument", "because"),
    [
        (503, ["503"]),
        (1.5, ["1.5"]),
        (ConnectionError("http://user:hunter2@collector"), ["ConnectionError"]),
        ("Service Unavailable", ["Service Unavailable"]),
        ("http://user:hunter2@collector", []),
        ("hunter2", []),
        ("x" * 41, []),
        ("é", []),
        ({"secret": 1}, []),
    ],
)
def test_arguments(logs: LogCapture, argument: object, because: list[str]) -> None:
    """Of the arguments, a number, the kind of an error and a few words are told; what a collector wrote is not."""
    logging.getLogger(EXPORTER).error("Failed to export to %s, %s", argument, "because")
    assert said(logs) == [(EXPORTER, "Failed to export to %s, %s", [*because, "because"])]


def test_the_message_is_bounded(logs: LogCapture) -> None:
    """A hundred characters of a message are logged."""
    logging.getLogger(EXPORTER).error("x" * 200)
    assert said(logs) == [(EXPORTER, "x" * 100, [])]
