"""The journal of many processes: see `journal`. redis-py, which is an extra, is imported only when one is created."""

from __future__ import annotations

from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from app.journal import Bounds, Journal
from app.journal.redis.address import check_address

FORMS = ("redis://", "rediss://", "redis+cluster://", "rediss+cluster://", "unix://")
SHARED = True
check = check_address


def create(
    url: str, bounds: Bounds, patience: float, on_evict: Callable[[str, str], None], log: FilteringBoundLogger
) -> Journal:
    """See `app.journal.create`. What this process no longer has in memory is still in Redis: nothing is evicted."""
    from app.journal.redis.journal import RedisJournal

    return RedisJournal(url, bounds, patience, log)
