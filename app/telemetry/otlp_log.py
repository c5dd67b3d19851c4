"""The OpenTelemetry SDK's own log, held to a line in ten minutes, and free of what the collector answers.

While a collector is down, the SDK writes a line or two for every attempt, with the collector's own words in them.
"""

from __future__ import annotations

import logging
import re
import time

from structlog.typing import FilteringBoundLogger

# Seconds between two lines of one kind.
_SELDOM = 600.0
_WORDS = re.compile(r"[A-Za-z ]{1,40}", re.ASCII)


def hush(log: FilteringBoundLogger) -> None:
    """Let the SDK's loggers write to *log*, one line per module and level in ten minutes.

    This is never undone, because the threads that export may outlive everything else.
    """
    logger = logging.getLogger("opentelemetry")
    logger.propagate = False
    logger.handlers = [_Seldom(log)]


class _Seldom(logging.Handler):
    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._said: dict[tuple[str, int], float] = {}  # as many as there are modules

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        kind = (record.name, record.levelno)
        if now - self._said.get(kind, -_SELDOM) < _SELDOM:
            return
        self._said[kind] = now
        arguments = record.args if isinstance(record.args, tuple) else ()
        because = [text for text in map(_harmless, arguments) if text]
        self._log.warning("otlp.trouble", module=record.name, message=str(record.msg)[:100], because=because)


def _harmless(argument: object) -> str:
    """Return what may be logged of a message's argument: a number, an error's kind, a few words; "" for all else."""
    if isinstance(argument, (int, float)):
        return str(argument)
    if isinstance(argument, BaseException):
        return type(argument).__name__
    return argument if isinstance(argument, str) and _WORDS.fullmatch(argument) else ""
