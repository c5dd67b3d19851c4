"""The tasks that a journal has for as long as it is in use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from pathlib import PurePath
from typing import Any

from structlog.typing import FilteringBoundLogger


async def running(
    loop: Callable[[], Coroutine[Any, Any, None]],
    crashed: Callable[[], None],
    restart: float,
    log: FilteringBoundLogger,
) -> None:
    """Run *loop* for ever: the boundary, because a bug that met one stream must not end all streams.

    After a crash, call *crashed*, and begin again in *restart* seconds.
    """
    while True:
        try:
            await loop()
        except Exception as error:  # the boundary, as above
            log.error("journal.crashed", loop=loop.__name__, error=type(error).__name__, at=_where(error))
            crashed()
            await asyncio.sleep(restart)


async def cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel *tasks* until they have ended: before Python 3.12, `asyncio.wait_for` can swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.05)


def _where(error: BaseException) -> str:
    """Return the innermost place that *error* came through. Its message may hold what must not be logged."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
