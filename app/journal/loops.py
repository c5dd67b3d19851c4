"""The tasks of a journal: those that run for as long as it is in use, and those that load a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from pathlib import PurePath
from typing import Any, Generic, TypeVar

from structlog.typing import FilteringBoundLogger

T = TypeVar("T")


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


class Loads(Generic[T]):
    """What is being loaded, by stream. Many readers may come back at once: a stream is loaded once for all of them."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[T]] = {}

    def __contains__(self, stream_id: str) -> bool:
        return stream_id in self._tasks

    @property
    def tasks(self) -> list[asyncio.Task[T]]:
        """The tasks that load."""
        return [*self._tasks.values()]

    async def load(self, stream_id: str, load: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return or raise what *load* does, or the one that is under way. It goes on if the caller is cancelled."""
        task = self._tasks.get(stream_id)
        if task is None:
            task = self._tasks[stream_id] = asyncio.create_task(load(), name=f"load {stream_id}")
            task.add_done_callback(lambda task: self._loaded(stream_id, task))
        await asyncio.wait([task])  # from Python 3.14 on, `shield` logs an error that no caller waits for
        return task.result()

    def _loaded(self, stream_id: str, task: asyncio.Task[T]) -> None:
        del self._tasks[stream_id]
        if not task.cancelled():
            task.exception()  # read here, because all callers may have left


def _where(error: BaseException) -> str:
    """Return the innermost place that *error* came through. Its message may hold what must not be logged."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
