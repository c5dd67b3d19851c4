"""Logs: set up once, on stderr, JSON or console, every line through structlog.

What may be logged: names, ids, counts, times, codes. Never a prompt, an answer, a credential or an upstream's message.
Loggers of the libraries below us are held to warnings, because some print what passes through them at DEBUG.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

# sse-starlette logs every chunk that it sends, httpx every URL, and asyncio reprs of all kinds of objects.
QUIET = ("sse_starlette", "httpx", "asyncio", "uvicorn", "uvicorn.error", "uvicorn.access")

_encode = json.JSONEncoder(default=repr).encode


def configure(level: str, style: str, stream: TextIO | None = None) -> FilteringBoundLogger:
    """Set up logging for the process and return the service's logger.

    *level* is the name of a level; *style* is `json`, `console` or `auto`. A main program calls this once.
    """
    out = stream or sys.stderr
    lines = _Lines(out)
    threshold = logging.getLevelNamesMapping()[level.upper()]
    console = style == "console" or (style == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        _in_order,
    ]
    render: Processor = (
        structlog.dev.ConsoleRenderer(colors=shows_colors(out))
        if console
        else structlog.processors.JSONRenderer(serializer=lambda event, **_: _encode(event))
    )
    handler = logging.StreamHandler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, _without_traceback, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, lines)),  # it only writes and flushes
        cache_logger_on_first_use=True,
    )
    logger: FilteringBoundLogger = structlog.get_logger().bind()
    return logger


def shows_colors(stream: TextIO) -> bool:
    """Whether *stream* is a terminal whose owner has not set `NO_COLOR` (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


class _Lines:
    """A stream for log lines that never fails, because a full disk or a closed pipe must not end an answer."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._out.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._out.flush()


def _in_order(logger: object, name: str, event: EventDict) -> EventDict:
    """Put first what people look for, and make strings safe to print: a client chooses the model's name, for one."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    first = {"timestamp": now.removesuffix("+00:00") + "Z", "level": event.pop("level")}
    first["event"] = event.pop("event", "")
    for key, value in event.items():
        first[key] = ascii(value) if isinstance(value, str) and not value.isprintable() else value
    return first


def _without_traceback(logger: object, name: str, event: EventDict) -> EventDict:
    """Keep the type of a library's exception, and drop its message and traceback: they can quote what was sent."""
    error = event.pop("exc_info", None)
    if isinstance(error, tuple) and error[0] is not None:
        event["error"] = error[0].__name__
    return event
