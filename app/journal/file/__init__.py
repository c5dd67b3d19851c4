"""The journal of one process on disk: see `journal`. sqlite3 is imported only when one is created."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from app.journal import Bounds, Journal
from app.journal.file.address import check_address, parse_address

FORMS = ("file://",)
SHARED = False
check = check_address


def about(url: str) -> str:
    """See `app.journal`."""
    folder, durable = parse_address(url)
    return f"{folder}, which survives that the process is killed{' and a power loss' if durable else ''}"


def create(
    url: str, bounds: Bounds, patience: float, on_evict: Callable[[str, str], None], log: FilteringBoundLogger
) -> Journal:
    """See `app.journal.create`. The *bounds* hold on disk, and in memory again."""
    from app.journal.file.journal import FileJournal

    return FileJournal(parse_address(url), bounds, patience, on_evict, log)


async def ask(url: str, seconds: float = 5.0) -> tuple[bool, str]:
    """See `app.journal`. A disk that hangs is given up after so many *seconds*."""
    from app.journal.file.asking import look
    from app.journal.file.store import Worker

    folder = parse_address(url).folder
    worker = Worker("look")
    try:
        async with asyncio.timeout(seconds):
            return await worker.call(lambda: look(folder))
    except TimeoutError:
        return False, f"the disk of {folder} does not answer"
    finally:
        worker.stop(wait=False)
