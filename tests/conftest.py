"""What all tests share: the event loop they run on, and a logger that keeps what it is given."""

from __future__ import annotations

import pytest
import structlog
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def logs() -> LogCapture:
    """The entries that `log` was given."""
    return LogCapture()


@pytest.fixture
def log(logs: LogCapture) -> FilteringBoundLogger:
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(), processors=[logs], wrapper_class=structlog.make_filtering_bound_logger(0)
    ).bind()
    return logger
